"""Motion as one mesh file a frame, PLY or OBJ: for tools that take no glTF, or want the vertices themselves.

Every file of a sequence has the same vertices in the same order, those of the face model, and the same
triangles. Lengths are metres, y is up and z toward the viewer, as in the GLB. Unlike the GLB's and the USD
file's blendshapes, which are linear, lids stop where they meet.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checks import check_amount, check_choice, checked
from ..face.lids import stop_lids
from ..face.model import FaceModel
from ..face.skinning import pose_on_body
from ..face.smoothing import smooth_deformations
from ..files import new_folder, replacing
from ..motion.coefficients import CoefficientSequence
from ..motion.preview import whole_motion
from ..progress import Callback
from .defaults import MESH_FILES, MeshFile
from .gltf import METRES

DESCRIPTION = "sequence.json"
"""Beside the frames: their rate, number and unit, which a mesh file cannot say."""
_FRAMES_AT_ONCE = 32


@checked
@torch.no_grad()
def write_mesh_sequence(
    folder: Path | str,
    face_model: FaceModel,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    *,
    identity: Tensor | None = None,
    files: MeshFile = "ply",
    smoothing: float = 0.0,
    callback: Callback | None = None,
) -> Path:
    """The face model in every frame, a file each: ``frame_00000.ply`` and so on. Memory does not grow with F.

    Args:
        folder: that does not exist yet, or is empty. It is there once all frames are.
        expression: F frames of β, or None for a resting face.
        pose: F frames of p, or None for a still head.
        identity: ``[D_α]`` of a portrait, or None for the mean face.
        files: ``"ply"`` (binary; positions and triangles) or ``"obj"`` (text; texture coordinates and parts
            as groups as well).
        smoothing: of deformations away from lips and eyes, see
            :func:`~fd2talk_core.face.smoothing.smooth_deformations`.
        callback: ``(done, total, None)`` after every few frames.

    Returns:
        the folder.

    Raises:
        FD2TalkError: when there is no motion, the two differ in length or rate or are of another face model,
            the folder holds something already, or the disk has no room for the sequence.
    """
    motion, alpha, betas, poses = whole_motion(face_model, expression, pose, identity)
    check_choice(files, "The kind of mesh file", MESH_FILES)
    frames = motion.num_frames
    moved = smooth_deformations(face_model, smoothing)
    encode = _WRITERS[files](face_model)
    digits = max(5, len(str(frames - 1)))
    with new_folder(folder) as partial:
        size = len(encode(np.zeros((face_model.num_vertices, 3), np.float32))) * frames
        check_amount(
            size / 1e6,
            shutil.disk_usage(partial).free / 1e6,
            "The sequence has {} MB",
            "the disk has no room for more; write a GLB, or a lower frame rate",
        )
        for start in range(0, frames, _FRAMES_AT_ONCE):
            part = slice(start, start + _FRAMES_AT_ONCE)
            shapes = stop_lids(moved, moved(alpha[None], betas[part]))
            posed = pose_on_body(face_model, shapes, poses[part], torch.zeros(1, 6)) * METRES
            for number, vertices in enumerate(posed.float().numpy(), start):
                (partial / f"frame_{number:0{digits}}.{files}").write_bytes(encode(vertices))
            if callback is not None:
                callback(min(start + _FRAMES_AT_ONCE, frames), frames, None)
        with replacing(partial / DESCRIPTION) as described:
            described.write_text(_description(face_model, motion), encoding="utf-8")
    return Path(folder)


def _description(face_model: FaceModel, motion: CoefficientSequence) -> str:
    told = {
        "software": "FD2Talk",
        "face_model": face_model.name,
        "fps": motion.fps,
        "frames": motion.num_frames,
        "vertices": face_model.num_vertices,
        "unit": "metre",
        "up": "y",
        "towards_viewer": "z",
    }
    return json.dumps(told, indent=1) + "\n"


Encoder = Callable[[np.ndarray], bytes]
"""Positions ``[V, 3]`` in metres to a file's content."""


def _ply(face_model: FaceModel) -> Encoder:
    """Binary PLY (Turk 1994), little-endian."""
    triangles = face_model.triangles.cpu().numpy()
    rows = np.empty(len(triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    rows["count"], rows["corners"] = 3, triangles
    faces = rows.tobytes()
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            "comment FD2Talk, metres",
            f"element vertex {face_model.num_vertices}",
            *(f"property float {axis}" for axis in "xyz"),
            f"element face {len(triangles)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
    ).encode()
    return lambda vertices: header + vertices.astype("<f4").tobytes() + faces


def _obj(face_model: FaceModel) -> Encoder:
    """Wavefront OBJ; what follows the positions is the same in every frame."""
    corners = face_model.uv.cpu().flatten(0, 1)
    places, place = corners.unique(dim=0, return_inverse=True)
    triangles = face_model.triangles.cpu().numpy() + 1
    textured = place.reshape(-1, 3).numpy() + 1
    parts = face_model.triangle_parts.cpu().numpy()
    lines = [f"vt {u:.5f} {v:.5f}" for u, v in places.tolist()]
    for part, name in enumerate(face_model.part_names):
        rows = (parts == part).nonzero()[0]
        lines += [f"g {name}"] if len(rows) else []
        lines += [
            "f " + " ".join(f"{v}/{t}" for v, t in zip(triangles[row], textured[row], strict=True))
            for row in rows
        ]
    rest = ("\n".join(lines) + "\n").encode()
    positions = "v %.6f %.6f %.6f\n" * face_model.num_vertices
    head = "# FD2Talk, metres\no head\n"
    return lambda vertices: (head + positions % tuple(vertices.ravel().tolist())).encode() + rest


_WRITERS: dict[str, Callable[[FaceModel], Encoder]] = {"ply": _ply, "obj": _obj}
