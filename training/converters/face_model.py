"""``python -m training.converters.face_model KIND FILE -o face_model.safetensors``: others' models as ours.

The Basel model of Deep3D (``BFM_model_front.mat``), FLAME (``generic_model.pkl``) and ICT-FaceKit (its folder
of OBJ files) give the mean, the two bases and the triangles. What they do not say is derived from their 68
landmarks of Multi-PIE: where the lips are, and where MediaPipe's 468 points lie. Those are taken from the
face model that ships, bent by a thin-plate spline so that its landmarks fall on theirs, and dropped on the
nearest vertex.

The files may not be redistributed, nor what is made of them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import Camera, FaceModel, default_face_model
from fd2talk_core.files import check_input, check_output, reason_of, replacing, shown_path
from fd2talk_core.formats.deep3d import numeric_arrays
from fd2talk_core.terminal import run_command

from .pickles import array_of, read_notes

# fmt: off
MEDIAPIPE_OF_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)
# fmt: on
"""MediaPipe's point at each of Multi-PIE's 68 landmarks, the person's right first."""
INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Upper and lower landmarks across the lips' gap."""
MOUTH = slice(48, 68)
MOUTH_REACH = 0.18
"""Units (10 cm) from a landmark of the lips within which a vertex belongs to the mouth."""


@dataclass(frozen=True, eq=False)
class Source:
    """A face model as its file gives it, in units of 10 cm, x to the picture's right, y up, z to the viewer.

    Attributes:
        name: of the face model.
        mean: ``[V, 3]``. identity: ``[D_α, V, 3]`` for unit variance. expression: ``[D_β, V, 3]``.
        triangles: ``[T, 3]``, counted from 0.
        landmarks: ``[68]``, vertices of Multi-PIE's landmarks.
        names: of the expressions, or none.
    """

    name: str
    mean: Tensor
    identity: Tensor
    expression: Tensor
    triangles: Tensor
    landmarks: Tensor
    names: tuple[str, ...] = ()


def read_bfm09(path: Path, landmarks: Path | None) -> Source:
    """``BFM_model_front.mat`` of Deep3D: Basel 2009's first 80 and 64 of FaceWarehouse's expressions."""
    arrays = dict(numeric_arrays(check_input(path, "face model")))
    _need(arrays, ("meanshape", "idBase", "exBase", "tri", "keypoints"), path)
    mean = _vertices(arrays["meanshape"].reshape(-1), path)
    return Source(
        "bfm09",
        mean - mean.mean(dim=0),
        _basis(arrays["idBase"], len(mean), path),
        _basis(arrays["exBase"], len(mean), path),
        _numbers(arrays["tri"]) - 1,
        _numbers(arrays["keypoints"]).flatten() - 1 if landmarks is None else _landmarks(landmarks),
    )


def read_flame(path: Path, landmarks: Path | None) -> Source:
    """``generic_model.pkl``: 300 components of shape and 100 of expression, metres; the jaw's own joint is no
    part of Eq. 1 and is left out.
    """
    if landmarks is None:
        raise FD2TalkError("FLAME's file has no landmarks: give --landmarks with 68 vertex numbers as JSON.")
    try:
        held = read_notes(check_input(path, "face model").read_bytes())
        if not isinstance(held, dict):
            raise FD2TalkError("it holds no table")
        held = {key.decode("latin-1") if isinstance(key, bytes) else str(key): v for key, v in held.items()}
        mean, shapes, faces = (array_of(held[name], name) for name in ("v_template", "shapedirs", "f"))
    except (FD2TalkError, KeyError) as error:
        told = f"no {error.args[0]}" if isinstance(error, KeyError) else error
        raise FD2TalkError(f"{shown_path(path.name)} is no FLAME model ({told}).") from error
    if shapes.ndim != 3 or shapes.shape[:2] != mean.shape or shapes.shape[2] < 400:
        raise FD2TalkError(f"{shown_path(path.name)} has shapedirs of {shapes.shape}, but 400 are needed.")
    basis = torch.from_numpy(shapes).float().permute(2, 0, 1) * 10
    centred = torch.from_numpy(mean).float() * 10
    centre = centred.mean(dim=0)
    return Source(
        "flame", centred - centre, basis[:300], basis[300:400], _numbers(faces), _landmarks(landmarks)
    )


def read_ict(path: Path, landmarks: Path | None) -> Source:
    """The folder ``FaceXModel`` of ICT-FaceKit: a neutral mesh, identities and named expressions, in cm."""
    neutral, triangles = _obj(path / "generic_neutral_mesh.obj")
    identities = sorted(path.glob("identity*.obj"))
    shapes = [p for p in sorted(path.glob("*.obj")) if p not in identities and "neutral" not in p.name]
    if not identities or not shapes:
        raise FD2TalkError(f"{shown_path(path)} holds no identity*.obj, or no expressions.")
    if landmarks is None:
        landmarks = path / "vertex_indices.json"
    identity, expression = (
        torch.stack([_obj(p, len(neutral))[0] - neutral for p in paths]) / 10
        for paths in (identities, shapes)
    )
    mean = neutral / 10
    names = tuple(re.sub(r"_([LR])$", lambda side: _SIDES[side[1]], p.stem) for p in shapes)
    return Source(
        "ict", mean - mean.mean(dim=0), identity, expression, triangles, _landmarks(landmarks), names
    )


_SIDES = {"L": "Left", "R": "Right"}
KINDS: dict[str, Callable[[Path, Path | None], Source]] = {
    "bfm09": read_bfm09,
    "flame": read_flame,
    "ict": read_ict,
}


def face_model_from(source: Source) -> FaceModel:
    """A face model of ours.

    Raises:
        FD2TalkError: when the landmarks are none of its vertices.
    """
    vertices, marks = len(source.mean), source.landmarks
    if marks.shape != (68,) or not 0 <= int(marks.min()) <= int(marks.max()) < vertices:
        raise FD2TalkError(f"68 landmarks among {vertices} vertices are needed, not {list(marks.shape)}.")
    if not 0 <= int(source.triangles.min()) <= int(source.triangles.max()) < vertices:
        raise FD2TalkError(f"The triangles name a vertex that is none of the {vertices}.")
    triangles, barycentric = _mediapipe_points(source)
    pairs = torch.tensor([[int(marks[a]), int(marks[b])] for a, b in INNER_LIPS])
    lips = source.mean[marks[MOUTH]]
    near = torch.cdist(source.mean, lips).amin(dim=1) < MOUTH_REACH
    tensors = {
        "mean": source.mean,
        "identity_basis": source.identity,
        "expression_basis": source.expression,
        "uv": torch.zeros(*source.triangles.shape, 2),
        "mediapipe_barycentric": barycentric,
        "triangles": source.triangles,
        "triangle_parts": torch.zeros(len(source.triangles), dtype=torch.long),
        "mouth_vertices": torch.cat([near.nonzero()[:, 0], marks[MOUTH]]).unique(),
        "inner_lip_pairs": pairs,
        "mediapipe_triangles": triangles,
    }
    return FaceModel(
        tensors, name=source.name, expression_names=source.names, part_names=("skin",), camera=Camera()
    )


def _mediapipe_points(source: Source) -> tuple[Tensor, Tensor]:
    """``[468]`` triangles and ``[468, 3]`` weights: each point on the corner nearest to it."""
    shipped = default_face_model()
    points = shipped.landmarks(shipped.mean[None])[0].double()
    bent = bend(points, points[list(MEDIAPIPE_OF_68)], source.mean[source.landmarks].double())
    used = source.triangles.unique()
    nearest = used[torch.cdist(bent, source.mean[used].double()).argmin(dim=1)]
    corner = torch.full((len(source.mean),), -1, dtype=torch.long)
    corner[source.triangles.flatten()] = torch.arange(source.triangles.numel())
    place = corner[nearest]
    return place // 3, torch.nn.functional.one_hot(place % 3, 3).float()


def bend(points: Tensor, anchors: Tensor, places: Tensor, stiffness: float = 1e-6) -> Tensor:
    """Points ``[N, 3]`` moved by the thin-plate spline (U = r) that takes anchors ``[K, 3]`` to places.

    Raises:
        FD2TalkError: when the anchors lie in a plane.
    """

    def lifted(at: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(at), 1, dtype=at.dtype), at], dim=1)

    count = len(anchors)
    system = torch.zeros(count + 4, count + 4, dtype=anchors.dtype)
    system[:count, :count] = torch.cdist(anchors, anchors) + stiffness * torch.eye(count, dtype=anchors.dtype)
    system[:count, count:] = lifted(anchors)
    system[count:, :count] = lifted(anchors).T
    wanted = torch.cat([places, torch.zeros(4, 3, dtype=places.dtype)])
    try:
        factors = torch.linalg.solve(system, wanted)
    except torch.linalg.LinAlgError as error:
        raise FD2TalkError("The landmarks lie in one plane: they are none of a face.") from error
    return torch.cdist(points, anchors) @ factors[:count] + lifted(points) @ factors[count:]


def _need(arrays: dict[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise FD2TalkError(
            f"{shown_path(path.name)} has no {missing[0]}: is it BFM_model_front.mat of Deep3D?"
        )


def _vertices(flat: np.ndarray, path: Path) -> Tensor:
    if len(flat) % 3:
        raise FD2TalkError(
            f"{shown_path(path.name)} has a mean of {len(flat)} numbers, which no vertices have."
        )
    return torch.from_numpy(flat.reshape(-1, 3).astype(np.float32))


def _basis(columns: np.ndarray, vertices: int, path: Path) -> Tensor:
    """``[3 V, D]`` to ``[D, V, 3]``."""
    if columns.ndim != 2 or columns.shape[0] != 3 * vertices:
        raise FD2TalkError(f"{shown_path(path.name)} has a basis of {columns.shape} for {vertices} vertices.")
    return torch.from_numpy(np.array(columns.T, dtype=np.float32, order="C")).unflatten(1, (vertices, 3))


def _numbers(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _landmarks(path: Path) -> Tensor:
    """68 vertex numbers: a list, or what ICT-FaceKit's ``vertex_indices.json`` calls its landmarks."""
    try:
        held = json.loads(check_input(path, "list of landmarks").read_text(encoding="utf-8"))
        held = held["idx_to_landmark_verts"] if isinstance(held, dict) else held
        return torch.tensor([int(number) for number in held])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FD2TalkError(f"{shown_path(path.name)} is no list of vertices ({reason_of(error)}).") from error


def _obj(path: Path, expected: int = 0) -> tuple[Tensor, Tensor]:
    """Vertices ``[V, 3]`` and triangles ``[T, 3]`` of a Wavefront file; polygons are cut into fans."""
    vertices, triangles = [], []
    try:
        with open(check_input(path, "mesh"), encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if words[:1] == ["v"]:
                    vertices.append([float(word) for word in words[1:4]])
                elif words[:1] == ["f"]:
                    corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
                    triangles += [(corners[0], a, b) for a, b in pairwise(corners[1:])]
    except (OSError, ValueError) as error:
        raise FD2TalkError(f"{shown_path(path.name)} is no mesh ({reason_of(error)}).") from error
    if not vertices or (expected and len(vertices) != expected):
        raise FD2TalkError(
            f"{shown_path(path.name)} has {len(vertices)} vertices, but {expected} are needed."
        )
    return torch.tensor(vertices), torch.tensor(triangles)


def save(model: FaceModel, path: Path) -> None:
    """Write a file that :meth:`~fd2talk_core.face.model.FaceModel.load` reads."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial, model.header())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.converters.face_model", description="Make a face model file of another's."
    )
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("source", type=Path, help="the .mat, the .pkl, or the folder of OBJ files")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--landmarks", type=Path, help="68 vertex numbers as JSON, where the source has none")
    given = parser.parse_args(arguments)

    def work() -> str:
        out = check_output(given.out, (".safetensors",), [given.source] if given.source.is_file() else [])
        model = face_model_from(KINDS[given.kind](given.source, given.landmarks))
        save(model, out)
        model = FaceModel.load(out)
        return (
            f"{out}: {model.num_vertices} vertices, {model.identity_dim} of identity, "
            f"{model.expression_dim} of expression; set face_model in a configuration to it"
        )

    return run_command(work, prefix="error: ")


if __name__ == "__main__":
    sys.exit(main())
