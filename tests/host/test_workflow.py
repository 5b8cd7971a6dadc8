"""From a portrait and a voice to an MP4 in a real ComfyUI, and what happens when things go wrong there."""

from __future__ import annotations

import ast
import copy
import json
import re
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fd2talk_core import configs
from fd2talk_core.face.model import default_face_model
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.timing import frame_count
from scripts.comfyui import ComfyUIServer, error_of
from scripts.environment import ROOT
from tests.host.conftest import FPS, SECONDS, SET, Watcher, id_of, node_of
from tests.host.media import lag, play, speech, write_wav

pytestmark = pytest.mark.host

DECODER_INPUTS = ("samples", "reference", "autoencoder", "paste_back", "detail")
"""What Decode Frames and Decode Video share."""


def without(graph: dict, *class_types: str) -> dict:
    """A graph without the nodes of these classes."""
    return {name: node for name, node in graph.items() if node["class_type"] not in class_types}


def heard(graph: dict, **inputs: object) -> dict:
    """The part of a graph that ends at the motion preview, with changes to Load Audio."""
    ends = ("EncodeReference", "LoadImage", "FD2TalkUNetSampler", "FD2TalkDecodeVideo", "SaveVideo")
    part = without(graph, *ends)
    node_of(part, "LoadAudioWav2Vec").update(inputs)
    node_of(part, "Coeff3DMMPreview")["size"] = 64
    return part


@pytest.mark.parametrize("fps", [FPS, 29.97])
def test_the_workflow_gives_a_playable_mp4(watcher: Watcher, graph: dict, fps: float) -> None:
    node_of(graph, "LoadAudioWav2Vec")["fps"] = fps
    node_of(graph, "FD2TalkUNetSampler")["steps"] = 1
    outputs = watcher.run(graph)
    video = play(watcher.server.path_of(outputs[id_of(graph, "SaveVideo")]["images"][0]))

    assert len(video.frames) == frame_count(Fraction(SECONDS), fps)
    assert video.frame_times[0] == 0
    assert max(abs(float(t) - i / fps) for i, t in enumerate(video.frame_times)) < 0.002
    assert video.sound_rate == 16000
    assert video.sound_start == 0
    shift, likeness = lag(video.sound.mean(axis=0), speech(SECONDS).numpy())
    assert shift == 0
    assert likeness > 0.98
    assert any(b"\xff\xd8\xff" in picture[:400] for picture in watcher.pictures), "live JPEG frames are shown"
    steps = [data for _, kind, data in watcher.messages if kind == "progress"]
    assert {data["node"] for data in steps} >= {
        id_of(graph, name) for name in ("ExpDiT", "PoseDiT", "FD2TalkUNetSampler", "FD2TalkDecodeVideo")
    }
    assert all(0 <= data["value"] <= data["max"] for data in steps)


def test_the_untouched_picture_lies_around_the_pasted_head(watcher: Watcher, graph: dict) -> None:
    decoded = {name: node_of(graph, "FD2TalkDecodeVideo")[name] for name in DECODER_INPUTS}
    part = without(graph, "Coeff3DMMPreview", "FD2TalkDecodeVideo", "SaveVideo")
    part["frames"] = {"class_type": "DecodeFrames", "inputs": decoded}
    part["save"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["frames", 0], "filename_prefix": "frames"},
    }
    from PIL import Image

    given = np.asarray(Image.open(watcher.server.folder("input") / "portrait.png"), dtype=int)
    saved = watcher.run(part)["save"]["images"]
    frames = [np.asarray(Image.open(watcher.server.path_of(result)), dtype=int) for result in saved]
    assert frames[0].shape == given.shape
    # the invisible mark changes a pixel by up to 7 levels
    untouched = (np.abs(frames[0] - given).max(axis=2) <= 7).mean()
    assert 0.02 < untouched < 0.98


def test_the_audio_output_is_the_recording_sample_for_sample(watcher: Watcher, graph: dict) -> None:
    part = {
        "2": copy.deepcopy(graph[id_of(graph, "LoadAudioWav2Vec")]),
        "flac": {"class_type": "SaveAudio", "inputs": {"audio": ["2", 1], "filename_prefix": "untouched"}},
    }
    result = watcher.run(part)["flac"]["audio"][0]
    import av

    with av.open(str(watcher.server.path_of(result))) as container:
        rate = container.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    if sound.dtype != np.float32:
        sound = sound.astype(np.float64) / np.iinfo(sound.dtype).max
    given = speech(SECONDS).numpy()
    assert rate == 16000
    assert sound.shape[1] == len(given)
    assert np.abs(sound.reshape(1, -1)[0] - given).max() < 2 / 32768


def test_the_crop_is_streamed_into_a_file_as_well(watcher: Watcher, graph: dict) -> None:
    part = without(graph, "Coeff3DMMPreview")
    node_of(part, "FD2TalkDecodeVideo")["paste_back"] = False
    outputs = watcher.run(part)
    video = play(watcher.server.path_of(outputs[id_of(graph, "SaveVideo")]["images"][0]))
    assert video.frames.shape == (frame_count(Fraction(SECONDS), FPS), 256, 256, 3)
    assert video.sound_start == 0
    assert lag(video.sound.mean(axis=0), speech(SECONDS).numpy())[0] == 0


def test_the_last_samples_of_the_sound_are_in_the_video(watcher: Watcher, graph: dict) -> None:
    """The last 50 ms, in which no frame begins; the host's own CreateVideo cuts them off."""
    part = without(graph, "Coeff3DMMPreview")
    said = speech(SECONDS + 0.05).flip(0)
    write_wav(watcher.server.folder("input") / "ends_between_frames.wav", said, 16000)
    node_of(part, "LoadAudioWav2Vec")["audio_file"] = "ends_between_frames.wav"
    outputs = watcher.run(part)
    video = play(watcher.server.path_of(outputs[id_of(part, "SaveVideo")]["images"][0]))
    assert len(video.frames) == frame_count(Fraction(SECONDS), FPS)
    heard, given = video.sound.mean(axis=0)[16000 : len(said)], said[16000:].numpy()
    assert len(heard) == len(given) == 800
    assert np.corrcoef(heard, given)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("file", "seconds"), [("one_sample.wav", 1 / 16000), ("silence_stereo.wav", 0.25)], ids=["one", "silent"]
)
def test_odd_recordings_work(watcher: Watcher, graph: dict, file: str, seconds: float) -> None:
    part = heard(graph, audio_file=file)
    (result,) = watcher.run(part)[id_of(part, "Coeff3DMMPreview")]["images"]
    assert len(play(watcher.server.path_of(result)).frames) == max(1, frame_count(Fraction(seconds), FPS))


def test_a_recording_from_another_node_takes_the_place_of_the_file(watcher: Watcher, graph: dict) -> None:
    part = heard(graph, recording=["load", 0])
    part["load"] = {"class_type": "LoadAudio", "inputs": {"audio": "speech.wav"}}
    del node_of(part, "LoadAudioWav2Vec")["audio_file"]
    (result,) = watcher.run(part)[id_of(part, "Coeff3DMMPreview")]["images"]
    video = play(watcher.server.path_of(result))
    assert len(video.frames) == frame_count(Fraction(SECONDS), FPS)
    assert video.frames.std() > 10, "the mesh is drawn"


def test_interrupting_stops_within_a_step_and_the_host_goes_on(watcher: Watcher, graph: dict) -> None:
    sampler = id_of(graph, "FD2TalkUNetSampler")
    slow = copy.deepcopy(graph)
    slow[sampler]["inputs"].update(steps=500, seed=7)
    asked: list[float] = []
    after: list[dict] = []

    def interrupt(kind: str, data: dict) -> None:
        if kind != "progress" or data["node"] != sampler:
            return
        if asked:
            after.append(data)
        elif data["value"] >= 2:
            watcher.server.post("/interrupt", {})
            asked.append(time.monotonic())

    entry = watcher.follow(watcher.server.queue(slow), interrupt)
    stopped, kind, _ = watcher.messages[-1]
    assert kind == "execution_interrupted"
    assert entry["status"]["status_str"] == "error"
    assert len(after) <= 1, "the step that was under way, and no other"
    assert stopped - asked[0] < 3
    assert watcher.run(graph)


def test_a_changed_pose_file_re_runs_only_what_depends_on_it(watcher: Watcher, graph: dict) -> None:
    save = copy.deepcopy(graph)
    for seed in (1, 2):
        save[f"save{seed}"] = {
            "class_type": "FD2TalkSaveCoefficients",
            "inputs": {"pose": [f"pose{seed}", 0], "filename_prefix": f"pose{seed}", "format": "safetensors"},
        }
        save[f"pose{seed}"] = copy.deepcopy(graph[id_of(graph, "PoseDiT")])
        save[f"pose{seed}"]["inputs"]["seed"] = seed
    save = without(save, "Coeff3DMMPreview", "SaveVideo")
    watcher.run(save)
    written = sorted(watcher.server.folder("output").rglob("pose?_*.safetensors"))
    assert len(written) == 2
    target = watcher.server.folder("input") / "swap.safetensors"

    swap = copy.deepcopy(without(graph, "Coeff3DMMPreview", "PoseDiT"))
    swap["pose file"] = {
        "class_type": "FD2TalkLoadCoefficients",
        "inputs": {"motion_file": target.name, "fps": 0.0},
    }
    node_of(swap, "FD2TalkUNetSampler")["pose"] = ["pose file", 1]
    pictures = []
    for file in written:
        shutil.copy(file, target)
        outputs = watcher.run(swap)
        result = outputs[id_of(swap, "SaveVideo")]["images"][0]
        pictures.append(play(watcher.server.path_of(result)).frames)
    depends = {"FD2TalkLoadCoefficients", "FD2TalkUNetSampler", "FD2TalkDecodeVideo", "SaveVideo"}
    assert {swap[name]["class_type"] for name in watcher.executed()} == depends
    assert not np.array_equal(*pictures)


def test_the_same_graph_again_runs_nothing(watcher: Watcher, graph: dict) -> None:
    watcher.run(graph)
    watcher.run(graph)
    assert {graph[name]["class_type"] for name in watcher.executed()} == set()


BAD_VALUES = [
    ("LoadAudioWav2Vec", {"fps": 0}, r"fps.*1\.0|1\.0.*fps"),
    ("ExpDiT", {"steps": -1}, r"steps.*0|0.*steps"),
    (
        "LoadAudioWav2Vec",
        {"audio_file": "../../../../etc/passwd"},
        r"outside the host's input, output and temp",
    ),
    ("LoadAudioWav2Vec", {"audio_file": "/etc/passwd"}, r"outside the host's input, output and temp"),
    ("LoadAudioWav2Vec", {"audio_file": "nowhere.wav"}, r"no file 'nowhere.wav' in the host's input folder"),
    ("FD2TalkUNetSampler", {"checkpoint": "../unet/seeded.safetensors"}, r"outside the host's model folders"),
    ("FD2TalkUNetSampler", {"checkpoint": "absent.safetensors"}, r"absent.*searched: .*models/fd2talk/unet"),
]


@pytest.mark.parametrize(("node", "inputs", "sentence"), BAD_VALUES)
def test_a_bad_value_is_refused_before_anything_runs(
    comfyui: ComfyUIServer, graph: dict, node: str, inputs: dict, sentence: str
) -> None:
    node_of(graph, node).update(inputs)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011, see below
        comfyui.queue(without(graph, "Coeff3DMMPreview"))
    assert re.search(sentence, str(refusal.value), re.S), refusal.value


BAD_FILES = [
    ("LoadAudioWav2Vec", {"audio_file": ""}, r"choose or upload a file, or connect a recording"),
    ("LoadAudioWav2Vec", {"audio_file": "empty.wav"}, r"no samples|empty|no sound"),
    ("LoadAudioWav2Vec", {"audio_file": "corrupt.wav"}, r"corrupt\.wav"),
    ("LoadImage", {"image": "no_face.png"}, r"No face was found in the 256 x 256 portrait.*whole"),
    ("LoadImage", {"image": "tiny.png"}, r"32.*64"),
    ("EncodeReference", {"face_index": 5}, r"Face 5 was asked for, but the portrait has 1"),
    ("EncodeReference", {"face_box": "1, 2, three"}, r"four numbers are needed: left, top, right, bottom"),
    ("ExpDiT", {"style": "sad"}, r"has not learned the style 'sad': choose one of neutral, or other weights"),
    ("FD2TalkUNetSampler", {"checkpoint": "truncated.safetensors"}, r"truncated\.safetensors"),
    ("FD2TalkUNetSampler", {"checkpoint": "pickle.safetensors"}, r"pickle\.safetensors is not a readable"),
    (
        "FD2TalkUNetSampler",
        {"checkpoint": "other.safetensors"},
        r"other\.safetensors holds a FrameAutoencoder",
    ),
]


@pytest.mark.parametrize(("node", "inputs", "sentence"), BAD_FILES)
def test_bad_material_is_told_in_a_sentence(
    comfyui: ComfyUIServer, graph: dict, tmp_path: Path, node: str, inputs: dict, sentence: str
) -> None:
    hostile_checkpoints(comfyui.folder("models/fd2talk"), tmp_path / "executed")
    node_of(graph, node).update(inputs)
    with pytest.raises(RuntimeError, match=f"(?s){sentence}"):
        comfyui.run(without(graph, "Coeff3DMMPreview"))
    assert not (tmp_path / "executed").exists()


def hostile_checkpoints(models: Path, trap: Path) -> None:
    """UNet files: cut short, of another class, and a pickle that would create ``trap`` if it were run."""
    import pickle

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    whole = (models / "unet" / SET).read_bytes()
    (models / "unet" / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (models / "unet" / "pickle.safetensors").write_bytes(pickle.dumps(Trap()))
    shutil.copy(models / "autoencoder" / SET, models / "unet" / "other.safetensors")


def test_a_checkpoint_that_another_node_names_is_checked_when_it_runs(
    comfyui: ComfyUIServer, graph: dict
) -> None:
    part = heard(graph, fps=2.0)
    part["choice"] = {"class_type": "TestChoice", "inputs": {"name": SET}}
    node_of(part, "ExpDiT")["checkpoint"] = ["choice", 0]
    assert comfyui.run(part)
    part["choice"]["inputs"]["name"] = "absent.safetensors"
    with pytest.raises(RuntimeError, match=r"(?s)absent.*searched: .*models/fd2talk/expression"):
        comfyui.run(part)


def own_checkpoint(server: ComfyUIServer, network: str, info: CheckpointInfo, **config: object) -> str:
    """A checkpoint of an untrained network that says something of itself; gives its name."""
    name = f"own_{network}.safetensors"
    built = configs.build(network, "tiny", **config)
    save_checkpoint(built, server.folder(f"models/fd2talk/{network}") / name, info)
    return name


def test_no_steps_are_the_checkpoints_own(watcher: Watcher, graph: dict) -> None:
    face_model = default_face_model().name
    steps = {"expression": 5, "pose": 4, "unet": 3}
    nodes = {"expression": "ExpDiT", "pose": "PoseDiT", "unet": "FD2TalkUNetSampler"}
    for network, node in nodes.items():
        info = CheckpointInfo(face_model=face_model, steps=steps[network])
        config = {} if network == "unet" else {"recommended_steps": steps[network], "free_steps": 0}
        name = own_checkpoint(watcher.server, network, info, **config)
        node_of(graph, node).update(checkpoint=name, steps=0)
    node_of(graph, "LoadAudioWav2Vec")["fps"] = 2.0
    ends = ("Coeff3DMMPreview", "DecodeFrames", "FD2TalkDecodeVideo", "CreateVideo", "SaveVideo")
    part = without(graph, *ends)
    samples = [id_of(graph, "FD2TalkUNetSampler"), 0]
    part["save"] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": samples, "filename_prefix": "latents/steps"},
    }
    watcher.run(part)
    done = {
        data["node"]: data["max"]
        for _, kind, data in watcher.messages
        if kind == "progress" and data["value"]
    }
    frames = 2
    assert {network: done[id_of(graph, node)] for network, node in nodes.items()} == {
        **steps,
        "unet": frames * steps["unet"],
    }


def test_the_crop_is_as_large_as_the_checkpoint_says(comfyui: ComfyUIServer, graph: dict) -> None:
    info = CheckpointInfo(face_model=default_face_model().name, resolution=128)
    node_of(graph, "EncodeReference")["autoencoder"] = own_checkpoint(comfyui, "autoencoder", info)
    encode = id_of(graph, "EncodeReference")
    part = {
        name: node for name, node in graph.items() if node["class_type"] in ("LoadImage", "EncodeReference")
    }
    part["save"] = {"class_type": "SaveImage", "inputs": {"images": [encode, 1], "filename_prefix": "crop"}}
    from PIL import Image

    (file,) = comfyui.run(part)["save"]["images"]
    assert Image.open(comfyui.path_of(file)).size == (128, 128)


def test_without_a_face_the_whole_image_can_be_used(watcher: Watcher, graph: dict) -> None:
    part = without(graph, "Coeff3DMMPreview")
    node_of(part, "LoadImage")["image"] = "no_face.png"
    node_of(part, "EncodeReference")["no_face"] = "use whole image"
    outputs = watcher.run(part)
    video = play(watcher.server.path_of(outputs[id_of(part, "SaveVideo")]["images"][0]))
    assert video.frames.shape[1:] == (256, 256, 3)


def test_one_joint_network_serves_both_motion_nodes(comfyui: ComfyUIServer, graph: dict) -> None:
    models, part = comfyui.folder("models/fd2talk"), heard(graph)
    info = CheckpointInfo(face_model=default_face_model().name)
    joint = configs.build("expression", "tiny", kind="joint", coefficient_dim=58)
    for node, network in (("ExpDiT", "expression"), ("PoseDiT", "pose")):
        save_checkpoint(joint, models / network / "joint.safetensors", info)
        node_of(part, node)["checkpoint"] = "joint.safetensors"
    assert comfyui.run(part)
    shutil.copy(models / "pose" / SET, models / "expression" / "pose.safetensors")
    node_of(part, "ExpDiT")["checkpoint"] = "pose.safetensors"
    with pytest.raises(RuntimeError, match="predicts the pose: choose one that predicts the expression"):
        comfyui.run(part)


def test_the_set_that_ships_is_used_or_named_with_every_folder_searched(
    comfyui: ComfyUIServer, graph: dict
) -> None:
    part = heard(graph)
    node_of(part, "ExpDiT").update(checkpoint="tiny", style="happy", style_strength=0.7)
    shipped = ROOT / "fd2talk_core" / "weights" / "tiny" / "expression.safetensors"
    if shipped.exists():
        node_of(part, "LoadAudioWav2Vec")["encoder"] = "tiny"
        assert comfyui.run(part)
        return
    with pytest.raises(ValueError) as refusal:  # noqa: PT011, see below
        comfyui.queue(part)
    for folder in ("models/fd2talk/expression", "elsewhere", "fd2talk_core/weights"):
        assert folder in str(refusal.value)


def test_the_readmes_client_gets_the_video(comfyui: ComfyUIServer, graph: dict, tmp_path: Path) -> None:
    file = tmp_path / "workflows" / "api" / "talking_portrait.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(graph), encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (client,) = [block for block in blocks if "/prompt" in block]
    client = client.replace("http://127.0.0.1:8188", comfyui.url)
    done = subprocess.run([sys.executable, "-c", client], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file for file in ast.literal_eval(done.stdout) if file["filename"].endswith(".mp4")]


def test_prompts_queued_together_do_not_mix(comfyui: ComfyUIServer, graph: dict) -> None:
    prompts = {fps: comfyui.queue(heard(graph, fps=fps)) for fps in (5.0, 6.0, 7.0)}
    preview = id_of(graph, "Coeff3DMMPreview")
    for fps, prompt in prompts.items():
        entry = comfyui.wait(prompt)
        assert entry["status"]["status_str"] == "success", error_of(entry)
        (result,) = entry["outputs"][preview]["images"]
        assert len(play(comfyui.path_of(result)).frames) == fps
