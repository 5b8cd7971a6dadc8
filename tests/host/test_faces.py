"""Driving videos and chosen faces in a real ComfyUI."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import default_face_model
from fd2talk_core.formats.sequences import load_motion
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.motion.tracking import follow_face, read_motion
from scripts.comfyui import ComfyUIServer
from scripts.environment import ROOT
from tests.host.conftest import SET, Watcher
from tests.host.media import speech, write_wav

pytestmark = pytest.mark.host

RATE = 12.5
FRAMES = 8
HIDDEN = (2, 3)


@pytest.fixture(scope="module")
def files(comfyui: ComfyUIServer) -> Path:
    """A head that moves through a video and is hidden for two frames; a picture of two people; two voices."""
    folder = comfyui.folder("input")
    portrait = Image.open(ROOT / "example_inputs" / "portrait.png").convert("RGB").resize((256, 256))
    pixels = torch.from_numpy(np.array(portrait)).float() / 255
    frames = torch.stack([pixels[8 : 8 + 208, 4 * i : 4 * i + 224] for i in range(FRAMES)])
    frames[list(HIDDEN)] = 0.5
    with VideoWriter(folder / "driving.mp4", RATE) as writer:
        writer.write(frames)
    with VideoWriter(folder / "nobody.mp4", RATE) as writer:
        writer.write(torch.full((3, 96, 96, 3), 0.4))
    two = Image.new("RGB", (560, 256), (96, 120, 130))
    two.paste(portrait, (0, 0))
    two.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((224, 224)), (320, 20))
    two.save(folder / "two.png")
    write_wav(folder / "first.wav", speech(0.5), 16000)
    write_wav(folder / "second.wav", speech(0.5).flip(0), 16000)
    write_wav(folder / "longer.wav", speech(1.0), 16000)
    return folder


def tracker(source: dict, **widgets: object) -> dict:
    widgets = {"fps": 25.0, "missing_faces": "interpolate", "face_index": 0, **widgets}
    return {"class_type": "FD2TalkCoefficientsFromVideo", "inputs": {**widgets, **source}}


def reading(file: str = "driving.mp4", as_images: bool = False, **widgets: object) -> dict:
    """Read a video, save what was read, and show how many frames were filled and at which rate."""
    graph = {
        "video": {"class_type": "LoadVideo", "inputs": {"file": file}},
        "read": tracker({"video": ["video", 0]}, **widgets),
        "save": {
            "class_type": "FD2TalkSaveCoefficients",
            "inputs": {
                "filename_prefix": "faces/read",
                "format": "safetensors",
                "expression": ["read", 0],
                "pose": ["read", 1],
            },
        },
        "filled": {"class_type": "PreviewAny", "inputs": {"source": ["read", 2]}},
        "rate": {"class_type": "PreviewAny", "inputs": {"source": ["read", 3]}},
    }
    if as_images:
        graph["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["video", 0]}}
        graph["read"] = tracker({"images": ["parts", 0]}, **widgets)
    return graph


@pytest.mark.parametrize("as_images", [False, True])
def test_a_driving_video_is_read_as_the_core_reads_it(
    watcher: Watcher, comfyui: ComfyUIServer, files: Path, as_images: bool
) -> None:
    outputs = watcher.run(reading(as_images=as_images, fps=RATE))
    motion = load_motion(comfyui.path_of(outputs["save"]["motion"][0]))
    track = follow_face(VideoFrames(files / "driving.mp4"), FaceLandmarker.load())
    expected = read_motion(track, RATE, default_face_model(), missing="interpolate")
    assert motion.pose.fps == RATE and motion.pose.num_frames == motion.expression.num_frames == FRAMES
    assert torch.allclose(motion.pose.values, expected.pose.values, atol=2e-3)
    assert torch.allclose(motion.expression.values, expected.expression.values, atol=2e-2)
    assert expected.missing == HIDDEN
    assert outputs["filled"]["text"] == ["2"] and float(outputs["rate"]["text"][0]) == RATE
    assert outputs["read"]["text"] == ["2 of 8 frames had no face and were filled: 2-3."]
    assert b"2 of 8 frames had no face" in b"".join(watcher.pictures)  # shown on the node
    steps = [data for _, kind, data in watcher.messages if kind == "progress" and data.get("node") == "read"]
    assert {(step["value"], step["max"]) for step in steps} >= {(1, FRAMES), (FRAMES, FRAMES)}


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (reading(missing_faces="error"), r"No face was found in 2 of 8 frames \(2-3\): cut them out, or set"),
        (reading("nobody.mp4"), r"No face was found in any of the 3 frames"),
        (reading(face_index=1), r"Face 1 was asked for, but none of the 8 frames shows 2 faces"),
        (reading(face_box="0, 150, 30, 200"), r"No face lies in the box \(0, 150, 30, 200\) in any of the 8"),
        ({**reading(), "read": tracker({})}, r"0 driving sources are connected, but exactly one is needed"),
    ],
)
def test_what_cannot_be_read_is_told(comfyui: ComfyUIServer, files: Path, graph: dict, sentence: str) -> None:
    with pytest.raises(RuntimeError, match=f"(?s){sentence}"):
        comfyui.run(graph)


@pytest.mark.parametrize("box", ["largest first", ["largest first"], {"x": 1, "y": 2}, 7, [[0, 0, 9, 9]]])
def test_what_is_no_bounding_box_is_refused(comfyui: ComfyUIServer, files: Path, box: object) -> None:
    with pytest.raises(
        RuntimeError, match=r"^The bounding box input holds .{1,60}, but x, y, width and heig"
    ):
        comfyui.run(reading(bounding_box={"__value__": box}))


def person(name: str, face_index: int, voice: str, background: list | None = None) -> dict:
    """The nodes that make one person of a picture speak, their ids begin with the name."""
    at = lambda node, output=0: [f"{name}.{node}", output]  # noqa: E731
    wires = {"background": background} if background else {}
    motion = {
        "features": at("audio"),
        "checkpoint": SET,
        "seed": 1,
        "steps": 2,
        "guidance": 1.0,
        "intensity": 1.0,
    }
    nodes = {
        "audio": ("LoadAudioWav2Vec", {"audio_file": voice, "encoder": SET, "fps": 8.0}),
        "expression": ("ExpDiT", motion),
        "pose": ("PoseDiT", motion),
        "reference": (
            "EncodeReference",
            {
                "image": ["image", 0],
                "autoencoder": SET,
                "face_index": face_index,
                "margin": 1.0,
                "no_face": "error",
                "face_order": "left to right",
            },
        ),
        "sampler": (
            "FD2TalkUNetSampler",
            {
                "reference": at("reference"),
                "expression": at("expression"),
                "pose": at("pose"),
                "checkpoint": SET,
                "seed": 1,
                "steps": 2,
                "motion_mode": "relative",
                "eta": 0.0,
                "noise_mode": "shared",
                "frames_per_batch": 0,
            },
        ),
        "frames": (
            "DecodeFrames",
            {
                "samples": at("sampler"),
                "reference": at("reference"),
                "autoencoder": SET,
                "paste_back": True,
                "detail": 1.0,
                **wires,
            },
        ),
        "saved": ("SaveImage", {"images": at("frames"), "filename_prefix": f"faces/{name}"}),
    }
    return {f"{name}.{id_}": {"class_type": kind, "inputs": inputs} for id_, (kind, inputs) in nodes.items()}


def two_people(second_voice: str = "second.wav") -> dict:
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": "two.png"}},
        **person("left", 0, "first.wav"),
        **person("right", 1, second_voice, ["left.frames", 0]),
    }


def test_two_people_speak_in_one_picture(comfyui: ComfyUIServer, files: Path) -> None:
    outputs = comfyui.run(two_people())

    def pictures(name: str) -> np.ndarray:
        saved = outputs[f"{name}.saved"]["images"]
        frames = [np.array(Image.open(comfyui.path_of(one)).convert("RGB")) for one in saved]
        return np.stack(frames).astype(int)

    one, both = pictures("left"), pictures("right")
    photo = np.array(Image.open(files / "two.png"))
    assert one.shape == both.shape == (4, 256, 560, 3)
    left, right = np.s_[:, :, :250], np.s_[:, :, 330:]
    # each decoding adds its invisible mark, up to 7 levels and alike in all frames
    beside, before = one[right] - photo[None][right], both[left] - one[left]
    assert abs(beside).max() <= 7 and abs(before).max() <= 7
    assert (beside == beside[:1]).all()
    assert (abs(both[right] - photo[None][right]) > 14).any(axis=-1).mean() > 0.02


def test_voices_of_different_length_are_told(comfyui: ComfyUIServer, files: Path) -> None:
    with pytest.raises(RuntimeError, match="background has 4 frames, but the clip has 8: make both from"):
        comfyui.run(two_people("longer.wav"))


def test_a_mask_or_a_list_of_boxes_says_which_face(comfyui: ComfyUIServer, files: Path) -> None:
    mask = {
        "class_type": "SolidMask",
        "inputs": {"value": 1.0, "width": 560, "height": 256},
    }
    encode = {
        "image": ["image", 0],
        "autoencoder": SET,
        "face_index": 0,
        "margin": 1.0,
        "no_face": "error",
    }
    graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": "two.png"}},
        "mask": mask,
        "empty": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 560, "height": 256}},
        "right": {
            "class_type": "MaskComposite",
            "inputs": {
                "destination": ["empty", 0],
                "source": ["mask", 0],
                "x": 330,
                "y": 0,
                "operation": "add",
            },
        },
        "encode": {"class_type": "EncodeReference", "inputs": {**encode, "face_mask": ["right", 0]}},
        "boxed": {
            "class_type": "EncodeReference",
            "inputs": {**encode, "bounding_box": boxes()},
        },
        "a": {"class_type": "SaveImage", "inputs": {"images": ["encode", 1], "filename_prefix": "faces/a"}},
        "b": {"class_type": "SaveImage", "inputs": {"images": ["boxed", 1], "filename_prefix": "faces/b"}},
    }
    outputs = comfyui.run(graph)
    crops = [np.array(Image.open(comfyui.path_of(outputs[name]["images"][0]))) for name in "ab"]
    photo = Image.open(files / "two.png").crop((320, 20, 544, 244))
    assert (crops[0] == crops[1]).all()
    assert abs(crops[0].mean() - np.array(photo).mean()) < 40
    graph["encode"]["inputs"]["face_mask"] = ["empty", 0]
    with pytest.raises(RuntimeError, match=re.escape("The mask is empty: paint over the face")):
        comfyui.run(graph)


def boxes() -> dict:
    """The right person's box as an older graph's JSON holds it."""
    return {"x": 380, "y": 40, "width": 100, "height": 100}
