"""The face model: a head's shape from identity, expression and pose (FD2Talk Eq. 1).

Units are decimetres (1 = 10 cm). The origin is the head's pivot between the ears; x points to the image's
right, y up and z toward the viewer. A pose is ``p = [pitch, yaw, roll, x, y, z]``, rotation ``R = Rx(pitch)
Ry(yaw) Rz(roll)`` in radians: positive pitch nods down, positive yaw turns the face to the image's right.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import FD2TalkError
from ..files import check_input, reason_of
from .rotations import rotation_matrix

SHIPPED_FILE = Path(__file__).parent.parent / "weights" / "face_model.safetensors"

_INTEGERS = ("triangles", "triangle_parts", "mouth_vertices", "inner_lip_pairs", "mediapipe_triangles")
_SPARSE = {"expression_counts", "expression_vertices", "expression_offsets"}
"""May stand in a file for ``expression_basis``: how many vertices each shape moves, which, and whereto."""
_FLOATS = ("mean", "identity_basis", "expression_basis", "uv", "mediapipe_barycentric")


@dataclass(frozen=True)
class Camera:
    """A pinhole at ``(0, 0, distance)`` that looks along -z.

    Attributes:
        focal: focal length in half widths of the square picture.
        distance: units from the origin, where the picture shows ``±distance / focal`` units.
    """

    focal: float = 12 / 1.8
    distance: float = 12.0


class FaceModel(nn.Module):
    """S = S̄ + B_id α + B_exp β (FD2Talk Eq. 1).

    Attributes:
        name: says whose coefficients are whose, see
            :class:`fd2talk_core.motion.coefficients.CoefficientSequence`.
        camera: the camera that frames a head at the origin.
        expression_names: one a coefficient; none where they mean nothing by themselves.
        part_names: what the numbers in ``triangle_parts`` mean.
        mean: ``[V, 3]``.
        identity_basis: ``[D_α, V, 3]``, scaled so that α of random people has unit variance.
        expression_basis: ``[D_β, V, 3]``.
        triangles: ``[T, 3]``, counter-clockwise seen from outside.
        triangle_parts: ``[T]``.
        uv: ``[T, 3, 2]``, texture coordinates of each triangle's corners.
        mouth_vertices: ``[M]``, the lips and what lies around them.
        inner_lip_pairs: ``[K, 2]``, upper and lower vertex across the lips' gap.
        mediapipe_triangles, mediapipe_barycentric: ``[468]`` and ``[468, 3]``, where MediaPipe's points lie.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    triangles: Tensor
    triangle_parts: Tensor
    uv: Tensor
    mouth_vertices: Tensor
    inner_lip_pairs: Tensor
    mediapipe_triangles: Tensor
    mediapipe_barycentric: Tensor

    def __init__(
        self,
        tensors: dict[str, Tensor],
        *,
        name: str,
        expression_names: tuple[str, ...],
        part_names: tuple[str, ...],
        camera: Camera,
    ) -> None:
        super().__init__()
        self.name = name
        self.camera = camera
        self.expression_names = tuple(expression_names)
        self.part_names = tuple(part_names)
        for key in _FLOATS:
            self.register_buffer(key, tensors[key].float())
        for key in _INTEGERS:
            self.register_buffer(key, tensors[key].long())

    @classmethod
    def load(cls, path: Path | str | None = None) -> FaceModel:
        """Read a face model file; without a path, the one that ships.

        Raises:
            FD2TalkError: naming the file and what is wrong with it.
        """
        path = check_input(SHIPPED_FILE if path is None else path, "face model file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
            header = json.loads(metadata["face_model"])
        except (OSError, SafetensorError) as error:
            raise FD2TalkError(
                f"{path.name} is not a readable safetensors file ({reason_of(error)})."
            ) from error
        except (KeyError, ValueError, RecursionError) as error:
            raise FD2TalkError(f"{path.name} is not a face model: its header has no face_model.") from error
        needed = {*_FLOATS, *_INTEGERS}
        if tensors.keys() >= _SPARSE:
            needed = needed - {"expression_basis"} | _SPARSE
        missing, unexpected = sorted(needed - tensors.keys()), sorted(tensors.keys() - needed)
        if missing or unexpected:
            raise FD2TalkError(
                f"{path.name} is not a whole face model: missing {missing or 'nothing'}, "
                f"unexpected {unexpected or 'nothing'}."
            )
        if needed >= _SPARSE:
            tensors["expression_basis"] = _dense_expressions(tensors, path)
        try:
            model = cls(
                tensors,
                name=str(header["name"]),
                expression_names=tuple(map(str, header["expression_names"])),
                part_names=tuple(map(str, header["part_names"])),
                camera=Camera(**header["camera"]),
            )
        except (KeyError, TypeError) as error:
            raise FD2TalkError(f"{path.name} has a broken face model header ({error}).") from error
        model._check(path)
        return model

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any number of Eq. 1: labels are true of one version only."""
        parts = (self.mean, self.identity_basis, self.expression_basis)
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()[:16]

    def _check(self, path: Path) -> None:
        vertices = self.mean.shape[0]
        shaped = (
            self.mean.shape[1:] == (3,)
            and self.identity_basis.shape[1:] == (vertices, 3)
            and self.expression_basis.shape[1:] == (vertices, 3)
            and len(self.expression_names) in (0, self.expression_dim)
            and self.triangles.shape[1:] == (3,)
            and self.uv.shape == (*self.triangles.shape, 2)
            and self.triangle_parts.shape == self.triangles.shape[:1]
        )
        indices = (self.triangles, self.mouth_vertices, self.inner_lip_pairs)
        inside = all(
            index.numel() and 0 <= int(index.min()) <= int(index.max()) < vertices for index in indices
        )
        if not shaped or not inside:
            raise FD2TalkError(f"{path.name} is a face model whose tensors do not fit each other.")
        if not all(torch.isfinite(getattr(self, key)).all() for key in _FLOATS):
            raise FD2TalkError(f"{path.name} is a face model with values that are not numbers.")

    def with_expressions(self, expression_basis: Tensor) -> FaceModel:
        """The same heads with another B_exp, ``[D_β, V, 3]``."""
        tensors = {key: getattr(self, key) for key in (*_FLOATS, *_INTEGERS)}
        return FaceModel(
            tensors | {"expression_basis": expression_basis},
            name=self.name,
            expression_names=self.expression_names,
            part_names=self.part_names,
            camera=self.camera,
        )

    def header(self) -> dict[str, str]:
        """The safetensors metadata that :meth:`load` reads."""
        fields = {
            "name": self.name,
            "expression_names": self.expression_names,
            "part_names": self.part_names,
            "camera": asdict(self.camera),
        }
        return {"class": "FaceModel", "face_model": json.dumps(fields)}

    @property
    def num_vertices(self) -> int:
        return self.mean.shape[0]

    @property
    def identity_dim(self) -> int:
        """D_α."""
        return self.identity_basis.shape[0]

    @property
    def expression_dim(self) -> int:
        """D_β."""
        return self.expression_basis.shape[0]

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Eq. 1: ``[B, D_α]`` and ``[B, D_β]`` (either may have batch 1) to vertices ``[B, V, 3]``."""
        return self._shape(identity, expression, slice(None))

    def mouth_vertices_of(self, identity: Tensor, expression: Tensor) -> Tensor:
        """The rows of Eq. 1 that belong to the mouth: ``[B, M, 3]``."""
        return self._shape(identity, expression, self.mouth_vertices)

    def _shape(self, identity: Tensor, expression: Tensor, rows: slice | Tensor) -> Tensor:
        mean = self.mean[rows]
        of_identity = identity @ self.identity_basis[:, rows].flatten(1)
        of_expression = expression @ self.expression_basis[:, rows].flatten(1)
        return mean + (of_identity + of_expression).unflatten(-1, mean.shape)

    def mouth_opening(self, vertices: Tensor) -> Tensor:
        """Mean gap between the inner lips, in units: ``[B, V, 3]`` to ``[B]``."""
        upper, lower = self.inner_lip_pairs.unbind(-1)
        return (vertices[:, upper] - vertices[:, lower]).norm(dim=-1).mean(dim=-1)

    def landmarks(self, vertices: Tensor) -> Tensor:
        """MediaPipe's 468 points on a shape: ``[B, V, 3]`` to ``[B, 468, 3]``."""
        corners = vertices[:, self.triangles[self.mediapipe_triangles]]
        return (corners * self.mediapipe_barycentric[..., None]).sum(dim=-2)


def _dense_expressions(tensors: dict[str, Tensor], path: Path) -> Tensor:
    """Take the sparse expression tensors out of a file's and make ``[D_β, V, 3]`` of them."""
    counts = tensors.pop("expression_counts").long()
    vertices, offsets = tensors.pop("expression_vertices").long(), tensors.pop("expression_offsets").float()
    size = len(tensors["mean"])
    fits = (
        counts.ndim == vertices.ndim == 1
        and offsets.shape == (len(vertices), 3)
        and bool((counts >= 0).all())
        and int(counts.sum()) == len(vertices)
        and bool(((vertices >= 0) & (vertices < size)).all())
    )
    if not fits:
        raise FD2TalkError(f"{path.name} is a face model whose expression tensors do not fit each other.")
    basis = torch.zeros(len(counts), size, 3)
    basis[torch.arange(len(counts)).repeat_interleave(counts), vertices] = offsets
    return basis


@lru_cache(maxsize=1)
def default_face_model() -> FaceModel:
    """The face model that ships, read once."""
    return FaceModel.load()


def apply_pose(vertices: Tensor, pose: Tensor) -> Tensor:
    """R v + t: vertices ``[B, V, 3]`` and poses ``[B, 6]`` to ``[B, V, 3]``."""
    return vertices @ rotation_matrix(pose[:, :3]).mT + pose[:, None, 3:]


def unpose(vertices: Tensor, pose: Tensor) -> Tensor:
    """Rᵀ (v - t), which undoes :func:`apply_pose`: vertices ``[B, V, 3]`` and poses ``[B, 6]``."""
    return (vertices - pose[:, None, 3:]) @ rotation_matrix(pose[:, :3])


def project(points: Tensor, camera: Camera) -> Tensor:
    """Points ``[..., 3]`` to (u, v, depth): u, v in -1..1 over the square picture, v down, depth in units."""
    x, y, z = points.unbind(-1)
    depth = camera.distance - z
    return torch.stack([camera.focal * x / depth, -camera.focal * y / depth, depth], dim=-1)


def projection_slopes(points: Tensor, camera: Camera) -> Tensor:
    """How (u, v) of points ``[..., 3]`` change as the points shift, ``[..., 2, 3]``."""
    x, y, z = points.unbind(-1)
    depth = camera.distance - z
    slope = camera.focal / depth
    zero = torch.zeros_like(slope)
    of_u = torch.stack([slope, zero, slope * x / depth], dim=-1)
    of_v = torch.stack([zero, -slope, -slope * y / depth], dim=-1)
    return torch.stack([of_u, of_v], dim=-2)
