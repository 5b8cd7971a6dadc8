"""The marks of generated video through a real ComfyUI: in frames, in the saved file, found by our node."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from fd2talk_core.marks.report import Provenance
from fd2talk_core.marks.tags import TRAINED
from tests.host.conftest import Watcher, id_of, node_of
from tests.host.test_workflow import DECODER_INPUTS, without

pytestmark = pytest.mark.host


def test_marks_reach_the_saved_video_and_the_frames(watcher: Watcher, graph: dict) -> None:
    part = without(graph, "Coeff3DMMPreview")
    video = node_of(part, "FD2TalkDecodeVideo")
    decoded = {name: video[name] for name in DECODER_INPUTS}
    labelled = {**decoded, "label": "AI-generated", "label_corner": "top left", "label_size": 0.1}
    part["frames"] = {"class_type": "DecodeFrames", "inputs": decoded}
    part["labelled"] = {"class_type": "DecodeFrames", "inputs": labelled}
    part["look"] = {"class_type": "FD2TalkVerify", "inputs": {"images": ["frames", 0]}}
    part["watch"] = {
        "class_type": "FD2TalkVerify",
        "inputs": {"video": [id_of(part, "FD2TalkDecodeVideo"), 0]},
    }
    for name in ("frames", "labelled"):
        part[f"save {name}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [name, 0], "filename_prefix": name},
        }
    outputs = watcher.run(part)

    saved = Provenance.of_file(watcher.server.path_of(outputs[id_of(graph, "SaveVideo")]["images"][0]))
    assert saved.mark.payload is not None and saved.mark.found
    assert saved.tags["digitalSourceType"] == TRAINED
    assert saved.tags["fd2talk_id"] == str(saved.mark.payload)
    for name in ("look", "watch"):
        (said,) = outputs[name]["text"]
        assert re.search(rf"id {saved.mark.payload}, version 1", said), said
    assert "digitalSourceType" in said and "digitalSourceType" not in outputs["look"]["text"][0]

    plain, written = (
        np.asarray(Image.open(watcher.server.path_of(outputs[f"save {name}"]["images"][0])), dtype=int)
        for name in ("frames", "labelled")
    )
    # the pattern follows the picture under it, so beside the label it differs by little
    changed = np.abs(plain - written).max(axis=2) > 16
    rows, columns = changed.nonzero()
    assert rows.size > 100
    assert rows.max() < plain.shape[0] // 4 and columns.min() < plain.shape[1] // 10


def test_nothing_to_verify_is_told(watcher: Watcher) -> None:
    part = {"1": {"class_type": "FD2TalkVerify", "inputs": {}}}
    with pytest.raises(RuntimeError, match="either a video or images"):
        watcher.server.run(part)
