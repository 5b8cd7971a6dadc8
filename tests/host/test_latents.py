"""What the decoders make of a LATENT that was saved, cut, or whose portrait was encoded again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.latent_flow import LatentFlowUNet
from scripts.comfyui import ComfyUIServer, error_of
from tests.host.conftest import SET, id_of, node_of
from tests.host.media import play

pytestmark = pytest.mark.host

FPS = 2.0
FRAMES = 2


@pytest.fixture
def made(comfyui: ComfyUIServer, graph: dict) -> dict:
    """From a portrait and a voice to two latents; the portrait encoded again from another file, and wider."""
    folder = comfyui.folder("input")
    shutil.copy(folder / "portrait.png", folder / "portrait_again.png")
    kept = ("LoadImage", "LoadAudioWav2Vec", "EncodeReference", "ExpDiT", "PoseDiT", "FD2TalkUNetSampler")
    part = {name: node for name, node in graph.items() if node["class_type"] in kept}
    node_of(part, "LoadAudioWav2Vec")["fps"] = FPS
    node_of(part, "LoadImage")["image"] = "portrait.png"
    encode = node_of(part, "EncodeReference")
    part["file again"] = {"class_type": "LoadImage", "inputs": {"image": "portrait_again.png"}}
    part["again"] = {"class_type": "EncodeReference", "inputs": {**encode, "image": ["file again", 0]}}
    part["wide"] = {"class_type": "EncodeReference", "inputs": {**encode, "margin": 1.5}}
    return part


def decoding(part: dict, name: str, samples: list, reference: str = "", **inputs: object) -> None:
    """Add a decoder of some latents, and what saves its frames."""
    part[name] = {
        "class_type": "DecodeFrames",
        "inputs": {
            "samples": samples,
            "reference": [reference or id_of_first(part, "EncodeReference"), 0],
            "autoencoder": SET,
            "paste_back": True,
            "detail": 1.0,
            **inputs,
        },
    }
    part[f"{name} saved"] = {
        "class_type": "SaveImage",
        "inputs": {"images": [name, 0], "filename_prefix": f"latents/{name}"},
    }


def id_of_first(part: dict, class_type: str) -> str:
    return next(name for name, node in part.items() if node["class_type"] == class_type)


def motion_of(part: dict) -> dict[str, list]:
    """The wires of the motion that the sampler had."""
    return {"expression": [id_of(part, "ExpDiT"), 0], "pose": [id_of(part, "PoseDiT"), 0]}


def pictures(server: ComfyUIServer, outputs: dict, name: str) -> np.ndarray:
    saved = outputs[f"{name} saved"]["images"]
    return np.stack([np.array(Image.open(server.path_of(one)).convert("RGB")) for one in saved])


def said(outputs: dict, name: str) -> str:
    return "".join(outputs.get(name, {}).get("text", []))


def test_a_portrait_encoded_again_keeps_its_detail_and_what_does_not_fit_is_told(
    comfyui: ComfyUIServer, made: dict
) -> None:
    latents = [id_of(made, "FD2TalkUNetSampler"), 0]
    made["cut"] = {
        "class_type": "LatentFromBatch",
        "inputs": {"samples": latents, "batch_index": 0, "length": 1},
    }
    decoding(made, "first", latents)
    decoding(made, "second", latents, "again")
    decoding(made, "third", latents, "wide")
    decoding(made, "fourth", ["cut", 0])
    decoding(made, "fifth", ["cut", 0], detail=0.0, paste_back=False)
    outputs = comfyui.run(made)
    first, second = (pictures(comfyui, outputs, name) for name in ("first", "second"))
    assert len(first) == FRAMES and (first == second).all()
    assert said(outputs, "first") == said(outputs, "second") == ""
    assert said(outputs, "third") == (
        "Detail, close-ups and the head mask are left out: the portrait is not the one that the sampler had; "
        "connect that one to this node."
    )
    assert said(outputs, "fourth") == (
        "Detail, close-ups and the head mask are left out: this LATENT and the motion that it carries differ "
        "in length, 1 and 2 frames; connect expression and pose of these frames to this node."
    )
    assert said(outputs, "fifth") == "", "neither is wanted"


@pytest.fixture
def reloaded(comfyui: ComfyUIServer, made: dict) -> dict:
    """The same with the latents read from a file that the host's own node has written."""
    latents = [id_of(made, "FD2TalkUNetSampler"), 0]
    save = {"class_type": "SaveLatent", "inputs": {"samples": latents, "filename_prefix": "latents/kept"}}
    outputs = comfyui.run({**made, "save": save})
    (file,) = outputs["save"]["latents"]
    shutil.copy(comfyui.path_of(file), comfyui.folder("input") / "kept.latent")
    made["file"] = {"class_type": "LoadLatent", "inputs": {"latent": "kept.latent"}}
    return made


def test_for_a_latent_from_a_file_the_motion_is_given_again(comfyui: ComfyUIServer, reloaded: dict) -> None:
    decoding(reloaded, "first", [id_of(reloaded, "FD2TalkUNetSampler"), 0])
    decoding(reloaded, "bare", ["file", 0])
    decoding(reloaded, "flat", ["file", 0], detail=0.0)
    decoding(reloaded, "crop", ["file", 0], paste_back=False)
    decoding(reloaded, "whole", ["file", 0], "again", **motion_of(reloaded))
    decoding(reloaded, "absolute", ["file", 0], **motion_of(reloaded), motion_mode="absolute")
    outputs = comfyui.run(reloaded)
    why = "left out: this LATENT does not carry the motion; connect expression and pose to this node."
    assert said(outputs, "bare") == f"Detail, close-ups and the head mask are {why}"
    assert said(outputs, "flat") == f"The head mask is {why}"
    assert said(outputs, "crop") == f"Detail and close-ups are {why}"
    assert said(outputs, "whole") == said(outputs, "absolute") == ""
    first = pictures(comfyui, outputs, "first")
    assert (pictures(comfyui, outputs, "whole") == first).all()
    assert (pictures(comfyui, outputs, "bare") != first).any()
    assert (pictures(comfyui, outputs, "absolute") != first).any(), (
        "the portrait does not look straight ahead"
    )


def test_decode_video_takes_motion_and_rate_from_what_is_connected(
    comfyui: ComfyUIServer, reloaded: dict
) -> None:
    decode = {
        "class_type": "FD2TalkDecodeVideo",
        "inputs": {
            "samples": ["file", 0],
            "reference": ["again", 0],
            "autoencoder": SET,
            "paste_back": False,
            "detail": 1.0,
            "fps": 0.0,
            **motion_of(reloaded),
        },
    }
    save = {
        "class_type": "SaveVideo",
        "inputs": {
            "video": ["video", 0],
            "filename_prefix": "latents/video",
            "format": "mp4",
            "codec": "h264",
        },
    }
    outputs = comfyui.run({**reloaded, "video": decode, "save": save})
    (file,) = outputs["save"]["images"]
    video = play(comfyui.path_of(file))
    assert len(video.frames) == FRAMES and float(video.frame_times[1]) == 1 / FPS
    assert said(outputs, "video") == ""

    reloaded["short"] = {
        "class_type": "FD2TalkTrim",
        "inputs": {**motion_of(reloaded), "start": 0.0, "end": 0.5},
    }
    for change, sentence in (
        ({"expression": None, "pose": None}, "do not say their frame rate; set fps"),
        ({"pose": None}, "Only the expression is connected: connect the pose too, or neither"),
        ({"expression": None}, "Only the pose is connected: connect the expression too, or neither"),
        (
            {"expression": ["short", 0], "pose": ["short", 1]},
            "There are 2 latents, but expression and pose have 1 frames: connect those that the sampler had",
        ),
    ):
        inputs = {name: value for name, value in {**decode["inputs"], **change}.items() if value is not None}
        with pytest.raises(RuntimeError, match=sentence):
            comfyui.run({**reloaded, "video": {**decode, "inputs": inputs}, "save": save})


def test_a_checkpoint_that_makes_all_frames_at_once_hears_through_its_own_socket(
    comfyui: ComfyUIServer, made: dict
) -> None:
    """DAWN's renderer behind the same sampler."""
    heard = configs.build("audio_encoder", "tiny").feature_dim
    network = LatentFlowUNet(
        block_out_channels=(8, 16),
        attention_levels=(False, True),
        attention_head_dim=8,
        context_dim=8,
        states="pose_and_blinks",
        audio_dim=heard,
    )
    info = CheckpointInfo(face_model="anny-arkit52", resolution=256, steps=1)
    file = comfyui.folder("models") / "fd2talk" / "unet" / "flow.safetensors"
    save_checkpoint(network, file, info)
    sampler = node_of(made, "FD2TalkUNetSampler")
    sampler |= {"checkpoint": "flow.safetensors", "steps": 1}
    decoding(made, "bare", [id_of(made, "FD2TalkUNetSampler"), 0], paste_back=False)
    entry = comfyui.wait(comfyui.queue(made))
    assert "made from the sound beside the motion" in error_of(entry)
    sampler["features"] = [id_of(made, "LoadAudioWav2Vec"), 0]
    outputs = comfyui.run(made)
    file.unlink()
    assert pictures(comfyui, outputs, "bare").shape == (FRAMES, 256, 256, 3)
