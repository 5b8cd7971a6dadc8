"""Motion as an animated GLB: opens in Blender, in game engines and in the host's 3D viewer.

One mesh with a morph target for every expression coefficient, by its name, and two bones: ``head``, which
turns and moves with the pose, and ``shoulders``, which stay. Written after the glTF 2.0 specification
(Khronos) with numpy alone. Lengths are metres, as it asks; a face-model unit is a tenth of one. Morph targets
are linear as Eq. 1 is, so lids that a blink drives past each other do that here, too.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import checked
from ..face.model import FaceModel
from ..face.palette import preview_colours
from ..face.rasterizer import vertex_normals
from ..face.skinning import head_weight
from ..face.smoothing import smooth_deformations
from ..files import replacing
from ..motion.coefficients import CoefficientSequence
from ..motion.preview import whole_motion

METRES = 0.1
"""A face-model unit."""
HEAD, SHOULDERS = "head", "shoulders"

_FLOAT, _UINT32, _UINT16, _UINT8 = 5126, 5125, 5123, 5121
_COMPONENTS = {"float32": _FLOAT, "uint32": _UINT32, "uint16": _UINT16, "uint8": _UINT8}
_SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_VERTICES, _INDICES = 34962, 34963
STILL = 1e-7
"""Units; a vertex that a blendshape moves less is left out of its sparse table."""


@checked
def write_glb(
    path: Path | str,
    face_model: FaceModel,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    *,
    identity: Tensor | None = None,
    smoothing: float = 0.0,
) -> None:
    """The face model, moving.

    Frame i lies at i / fps, as in the preview's video, so that a program at the same frame rate has every
    frame on one of its own.

    Args:
        path: of the file to be written.
        expression: F frames of β, or None for a resting face.
        pose: F frames of p, or None for a still head.
        identity: ``[D_α]`` of a portrait, or None for the mean face.
        smoothing: of deformations away from lips and eyes, see
            :func:`~fd2talk_core.face.smoothing.smooth_deformations`.

    Raises:
        FD2TalkError: when there is no motion, the two differ in length or rate, or are of another face model.
    """
    motion, alpha, _, _ = whole_motion(face_model, expression, pose, identity)
    file = _Glb()
    mesh = _write_mesh(file, smooth_deformations(face_model, smoothing), alpha)
    times = file.add(np.arange(motion.num_frames, dtype=np.float32) / np.float32(motion.fps), bounds=True)
    channels = []
    if expression is not None:
        channels.append((0, "weights", file.add(expression.values.reshape(-1).numpy())))
    if pose is not None:
        channels.append((2, "rotation", file.add(quaternions(pose.values[:, :3]).numpy())))
        channels.append((2, "translation", file.add((pose.values[:, 3:] * METRES).numpy())))
    file.content |= {
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"name": "face", "mesh": 0, "skin": 0},
            {"name": SHOULDERS, "children": [2]},
            {"name": HEAD},
        ],
        "skins": [{"joints": [1, 2], "skeleton": 1}],
        "meshes": [mesh],
        "materials": [
            {
                "name": "clay",
                "pbrMetallicRoughness": {
                    # darker than the preview, whose light is weaker than what a viewer sets up
                    "baseColorFactor": [0.6, 0.6, 0.6, 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.8,
                },
            }
        ],
        "animations": [
            {
                "name": "motion",
                "samplers": [{"input": times, "output": values} for _, _, values in channels],
                "channels": [
                    {"sampler": index, "target": {"node": node, "path": moved}}
                    for index, (node, moved, _) in enumerate(channels)
                ],
                "extras": {"fps": motion.fps},
            }
        ],
    }
    with replacing(path) as partial:
        partial.write_bytes(file.to_bytes())


@torch.no_grad()
def _write_mesh(file: _Glb, face_model: FaceModel, alpha: Tensor) -> dict[str, Any]:
    rest = face_model(alpha[None], torch.zeros(1, face_model.expression_dim))
    triangles = face_model.triangles
    normals = vertex_normals(rest, triangles)[0]
    source, corners, colors = _split_by_paint(triangles, preview_colours(face_model), len(rest[0]))
    head = head_weight(face_model)[source]
    none = torch.zeros_like(head)
    attributes = {
        "POSITION": file.add(_metres(rest[0][source]), bounds=True, target=_VERTICES),
        "NORMAL": file.add(normals[source].numpy(), target=_VERTICES),
        # glTF's vertex colours are linear, those of the preview are what a screen shows
        "COLOR_0": file.add(_bytes(colors**2.2), target=_VERTICES, normalized=True),
        "JOINTS_0": file.add(np.tile(np.array([0, 1, 0, 0], np.uint8), (len(source), 1)), target=_VERTICES),
        "WEIGHTS_0": file.add(torch.stack([1 - head, head, none, none], 1).numpy(), target=_VERTICES),
    }
    targets = []
    for offsets in face_model.expression_basis:
        turned = vertex_normals(rest + offsets, triangles)[0] - normals
        targets.append(
            {
                "POSITION": file.add_sparse(_metres(offsets[source]), STILL * METRES, bounds=True),
                "NORMAL": file.add_sparse(turned[source].numpy(), 1e-4),
            }
        )
    indices = file.add(corners.reshape(-1).numpy().astype(np.uint32), target=_INDICES)
    return {
        "name": face_model.name,
        "primitives": [{"attributes": attributes, "indices": indices, "targets": targets, "material": 0}],
        "weights": [0.0] * face_model.expression_dim,
        "extras": {"targetNames": list(face_model.expression_names)},
    }


def _split_by_paint(triangles: Tensor, colors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """A vertex for each colour that meets in it, since a vertex has one colour.

    Returns:
        ``[V']`` which vertex each is a copy of (the first V are the vertices themselves), ``[T, 3]`` corners
        among them, and ``[V', 3]`` their colours.
    """
    paints, paint = colors.unique(dim=0, return_inverse=True)
    pairs, pair = (triangles * len(paints) + paint[:, None]).unique(return_inverse=True)
    vertex, painted = pairs // len(paints), pairs % len(paints)
    # pairs are sorted, so the first of each vertex stands where the vertex changes
    first = torch.cat([torch.ones(1, dtype=torch.bool), vertex.diff() > 0])
    place = torch.empty_like(vertex)
    place[first] = vertex[first]
    place[~first] = count + torch.arange(int((~first).sum()))
    source = torch.cat([torch.arange(count), vertex[~first]])
    chosen = torch.zeros(len(source), dtype=torch.long)
    chosen[place] = painted
    return source, place[pair], paints[chosen]


def _metres(places: Tensor) -> np.ndarray:
    return (places * METRES).float().numpy()


def _bytes(colors: Tensor) -> np.ndarray:
    opaque = torch.cat([colors, torch.ones(len(colors), 1)], dim=1)
    return (opaque * 255).round().to(torch.uint8).numpy()


def quaternions(angles: Tensor) -> Tensor:
    """``[F, 3]`` pitch, yaw, roll to ``[F, 4]`` (x, y, z, w) of Rx Ry Rz, along the shortest way in time."""
    (cx, cy, cz), (sx, sy, sz) = (angles / 2).cos().unbind(-1), (angles / 2).sin().unbind(-1)
    turns = torch.stack(
        [
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
            cx * cy * cz - sx * sy * sz,
        ],
        dim=-1,
    )
    # q and -q are one rotation; a player that blends linearly must find neighbours on one side
    flips = torch.where((turns[1:] * turns[:-1]).sum(-1) < 0, -1.0, 1.0).cumprod(0)
    return turns * torch.cat([torch.ones(1), flips])[:, None]


class _Glb:
    """A GLB file in the making: numbers go into its binary chunk, what they mean into its JSON."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.content: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "FD2Talk"},
            "bufferViews": [],
            "accessors": [],
        }

    def add(
        self, values: np.ndarray, *, bounds: bool = False, target: int | None = None, normalized: bool = False
    ) -> int:
        """``[N]`` or ``[N, C]`` as an accessor; returns its number."""
        accessor = {"bufferView": self._view(values, target), **self._describe(values, bounds)}
        return self._append(accessor | ({"normalized": True} if normalized else {}))

    def add_sparse(self, values: np.ndarray, threshold: float, *, bounds: bool = False) -> int:
        """As :meth:`add`, but only the rows that are non-zero are stored."""
        rows = (np.abs(values).max(axis=1) > threshold).nonzero()[0]
        rows = rows if len(rows) else np.zeros(1, dtype=np.int64)
        kept = np.zeros_like(values)
        kept[rows] = values[rows]
        indices = rows.astype(np.uint16 if len(values) < 1 << 16 else np.uint32)
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": self._view(indices), "componentType": _COMPONENTS[indices.dtype.name]},
            "values": {"bufferView": self._view(values[rows])},
        }
        return self._append({**self._describe(kept, bounds), "sparse": sparse})

    def _append(self, accessor: dict[str, Any]) -> int:
        self.content["accessors"].append(accessor)
        return len(self.content["accessors"]) - 1

    def _describe(self, values: np.ndarray, bounds: bool) -> dict[str, Any]:
        rows = values.reshape(len(values), -1)
        described = {
            "componentType": _COMPONENTS[values.dtype.name],
            "count": len(rows),
            "type": _SHAPES[rows.shape[1]],
        }
        if bounds:
            described |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return described

    def _view(self, values: np.ndarray, target: int | None = None) -> int:
        piece = np.ascontiguousarray(values).tobytes()
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(piece)}
        self.data += piece + b"\0" * (-len(piece) % 4)
        self.content["bufferViews"].append(view | ({"target": target} if target else {}))
        return len(self.content["bufferViews"]) - 1

    def to_bytes(self) -> bytes:
        """The file: a header and two chunks, each padded to four bytes."""
        self.content["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(self.content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.data)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, length),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self.data), b"BIN\0"),
                bytes(self.data),
            ]
        )
