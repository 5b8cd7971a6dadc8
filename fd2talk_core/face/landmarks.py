"""Finding faces in a picture: 478 landmarks and the ARKit expression scores of each (MediaPipe Face
Landmarker).

The model file, ``weights/face_landmarker.task``, is a zip of three TensorFlow Lite networks that run one
after the other: BlazeFace finds faces (Bazarevsky et al. 2019), Face Mesh V2 places 478 landmarks in a square
turned upright around each (Grishchenko et al. 2020), and Blendshape V2 reads 52 expression scores from 146 of
them. They run straight from memory by ``ai-edge-litert``; the rules between them are those of MediaPipe's
``face_detector_graph``, ``face_landmarks_detector_graph`` and ``face_blendshapes_graph``.

Picture coordinates are continuous pixels: x to the right in [0, W], y down in [0, H]; the centre of the first
pixel is at (0.5, 0.5).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_amount, check_tensor
from ..errors import FD2TalkError
from ..files import check_input, reason_of
from ..imaging import MAX_PIXELS
from ..progress import Callback
from .names import ARKIT_NAMES
from .tflite import load_network

NUM_LANDMARKS = 478
FaceOrder = Literal["largest", "left_to_right", "top_to_bottom"]
FACE_ORDERS = {
    "largest": "largest first",
    "left_to_right": "left to right",
    "top_to_bottom": "top to bottom",
}
"""How faces can be counted, and what a message calls it."""
MODEL_PATH = Path(__file__).parent.parent / "weights" / "face_landmarker.task"

_DETECTOR_SIZE, _MESH_SIZE = 128, 256
_DETECTION_SCORE = 0.5
_PRESENCE_SCORE = 0.5
_PRESENCE_SCORE_UNDETECTED = 0.9  # landmarks that no detection supports have to be surer
_SUPPRESSION_IOU = 0.3
_ROI_SCALE = 1.5
_SMALLEST_TILE = 160  # pixels: the detector sees faces down to about 1/5 of its input, so about 32 px here
_MODEL_BYTES = 64 << 20
_FINEST = 25  # tiles along a side: in larger pictures, faces too small for a portrait would take minutes
_EYE_CORNERS = (33, 263)  # outer corners, the person's right and left
_RESCAN_EVERY = 12  # frames: how often a lost face is looked for in the whole picture while tracking

# fmt: off
_BLENDSHAPE_LANDMARKS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
_MEDIAPIPE_BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)
# fmt: on
# The network has a "_neutral" score that ARKit has not, and no tongueOut, which therefore stays 0.
_ARKIT_FROM_MEDIAPIPE = [
    (arkit, _MEDIAPIPE_BLENDSHAPES.index(name))
    for arkit, name in enumerate(ARKIT_NAMES)
    if name in _MEDIAPIPE_BLENDSHAPES
]


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a picture.

    Attributes:
        box_xyxy: left, top, right, bottom of the landmarks, in pixels.
        landmarks: ``[478, 3]`` float32, x and y in pixels, z in the same scale (smaller is nearer the
            viewer).
        blendshapes: ``[52]`` scores in 0..1 in the order of
            :data:`~fd2talk_core.face.names.ARKIT_NAMES`.
        score: probability that this is a face, 0..1.
    """

    box_xyxy: tuple[float, float, float, float]
    landmarks: Tensor
    blendshapes: Tensor
    score: float

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        left, top, right, bottom = self.box_xyxy
        return (right - left) * (bottom - top)

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box_xyxy
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Square:
    """A square of a picture: centre and side in pixels, ``angle`` in radians, clockwise as seen."""

    x: float
    y: float
    side: float
    angle: float = 0.0


def check_picture(image: Tensor, name: str = "image") -> Tensor:
    """One picture as ``[H, W, 3]`` float32 in 0..1 on the CPU.

    Args:
        image: ``[H, W, C]`` or ``[1, H, W, C]``, float in 0..1 or uint8; C is 1 (grey), 3 (RGB) or 4 (alpha
            dropped).
        name: what the message calls it.

    Raises:
        FD2TalkError: on another shape, a batch of several, a side under 64 pixels, or values that are not
            numbers.
    """
    shape = tuple(check_tensor(image, f"The {name}").shape)
    if len(shape) == 4 and shape[0] > 1:
        raise FD2TalkError(
            f"The {name} is a batch of {shape[0]} pictures, but one is needed: pick one of them."
        )
    if len(shape) not in (3, 4) or 0 in shape or shape[-1] not in (1, 3, 4):
        raise FD2TalkError(f"The {name} has shape {shape}, but [height, width, 3] is needed.")
    if min(shape[-3:-1]) < 64:
        raise FD2TalkError(f"The {name} is {shape[-2]} x {shape[-3]} pixels, but at least 64 x 64 is needed.")
    pixels = f"The {name} has {{}} pixels"
    check_amount(shape[-2] * shape[-3], MAX_PIXELS, pixels, "make it smaller, or crop it around the face")
    image = image.detach().reshape(shape[-3:]).cpu()[..., :3]
    if image.dtype == torch.uint8:
        image = image.float().div_(255)
    elif not image.is_floating_point():
        raise FD2TalkError(f"The {name} is of type {image.dtype}, but floats in 0..1 or uint8 are needed.")
    image = image.float()
    low, high = image.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise FD2TalkError(
            f"The {name} holds values that are not numbers (NaN or infinity): check what made it."
        )
    if low < 0 or high > 1:
        image = image.clamp(0, 1)
    return image.expand(-1, -1, 3).contiguous()


def sample_square(picture: Tensor, square: Square, size: int, padding: str = "border") -> Tensor:
    """A square of a picture, resampled without aliasing.

    Args:
        picture: ``[C, H, W]``.
        square: which part; it may reach outside the picture.
        size: side of the result in pixels.
        padding: what lies outside, as in ``grid_sample``: ``"border"``, ``"reflection"`` or ``"zeros"``.

    Returns:
        ``[C, size, size]``: bilinear, area-averaged where the picture is shrunk.
    """
    scale = square.side / size
    origin, region = _surroundings(picture, square)
    reduction = max(1, int(scale / 2))
    if reduction > 1:  # most of a strong reduction is cheapest as a plain average
        height, width = region.shape[-2:]
        excess = (0, -width % reduction, 0, -height % reduction)
        region = F.avg_pool2d(F.pad(region[None], excess, mode="replicate"), reduction)[0]
    oversampling = math.ceil(scale / reduction - 1e-6)
    ticks = (torch.arange(size * max(1, oversampling)) + 0.5) / (size * max(1, oversampling)) - 0.5
    across, down = ticks * square.side, ticks[:, None] * square.side
    cos, sin = math.cos(square.angle), math.sin(square.angle)
    x = (square.x + across * cos - down * sin - origin[0]) / (reduction * region.shape[-1])
    y = (square.y + across * sin + down * cos - origin[1]) / (reduction * region.shape[-2])
    grid = torch.stack([x, y], dim=-1) * 2 - 1
    sampled = F.grid_sample(region[None], grid[None].to(region), "bilinear", padding, align_corners=False)
    return F.avg_pool2d(sampled, oversampling)[0] if oversampling > 1 else sampled[0]


def _surroundings(picture: Tensor, square: Square) -> tuple[tuple[int, int], Tensor]:
    """The part of the picture that a square can touch, so that a large one costs no more than its face."""
    height, width = picture.shape[-2:]
    reach = square.side * (abs(math.cos(square.angle)) + abs(math.sin(square.angle))) / 2 + 4
    left = min(max(0, math.floor(square.x - reach)), width - 1)
    top = min(max(0, math.floor(square.y - reach)), height - 1)
    right = max(left + 1, min(width, math.ceil(square.x + reach)))
    bottom = max(top + 1, min(height, math.ceil(square.y + reach)))
    return (left, top), picture[:, top:bottom, left:right]


@dataclass(frozen=True)
class _Level:
    """A picture shrunk so that a tile of it fills the detector, and the overlapping tiles that cover it.

    Attributes:
        size: height and width in pixels.
        rows, columns: of the tiles, which begin every :attr:`STEP` pixels.
    """

    STEP: ClassVar[int] = _DETECTOR_SIZE // 2
    size: tuple[int, int]
    rows: int
    columns: int

    @classmethod
    def of(cls, sides: tuple[int, int], tile: float) -> _Level:
        """For a picture of a height and width, and tiles of its pixels."""
        height, width = (max(1, round(side * _DETECTOR_SIZE / tile)) for side in sides)
        rows, columns = (
            max(0, math.ceil((side - _DETECTOR_SIZE) / cls.STEP)) + 1 for side in (height, width)
        )
        return cls((height, width), rows, columns)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def spare(self) -> tuple[int, int]:
        """Pixels of height and width by which the tiles reach beyond the picture."""
        height, width = (
            (tiles - 1) * self.STEP + _DETECTOR_SIZE - side
            for tiles, side in zip((self.rows, self.columns), self.size, strict=True)
        )
        return height, width


class FaceLandmarker:
    """MediaPipe's Face Landmarker on ``ai-edge-litert``: detector, landmarks and expression scores.

    An instance belongs to one thread at a time (the interpreters hold their tensors).
    """

    def __init__(self, path: Path | str = MODEL_PATH) -> None:
        detector, mesh, blendshapes = _read_networks(path)
        self._detector, self._mesh, self._blendshapes = (
            load_network(network, "The face landmark model") for network in (detector, mesh, blendshapes)
        )
        self._anchors = _anchors()

    @classmethod
    def load(cls, path: Path | str | None = None) -> FaceLandmarker:
        """The landmarker that ships with the package, or another ``.task`` file of the same three networks.

        Raises:
            FD2TalkError: when ai-edge-litert is not installed, or the file is missing or not such a file.
        """
        return cls(MODEL_PATH if path is None else path)

    def detect(self, image: Tensor, callback: Callback | None = None) -> list[Face]:
        """Every face of a picture, the largest first.

        Args:
            image: ``[H, W, 3]`` in 0..1, as :func:`check_picture` takes it.
            callback: ``(done, total, None)`` after each look at a part of the picture.

        Raises:
            FD2TalkError: when the image is not one.
        """
        # in planes, which every size of the picture is made from
        picture = check_picture(image).movedim(-1, 0).contiguous()
        for smallest in (_SMALLEST_TILE, _SMALLEST_TILE // 2):  # the finest tiles only when all else failed
            faces = []
            for roi in self._scan(picture, smallest, callback):
                faces += filter(None, [self._settle(picture, roi)])
                if callback is not None:
                    callback(99, 100, None)  # nearly done: each face takes a moment
            if faces := _distinct(faces):
                break
        if callback is not None:
            callback(1, 1, None)
        return order_faces(faces)

    def detect_in_box(self, image: Tensor, box: tuple[float, float, float, float]) -> Face | None:
        """The face in a box that someone drew, even where the detector sees none there.

        Args:
            image: ``[H, W, 3]`` in 0..1, as :func:`check_picture` takes it.
            box: left, top, right, bottom in pixels, around a face or a head.
        """
        picture = check_picture(image).movedim(-1, 0)
        left, top, right, bottom = box
        for share in (1.0, 1.5):
            side = share * max(right - left, bottom - top)
            face = self._settle(picture, Square((left + right) / 2, (top + bottom) / 2, side))
            inside = face is not None and _intersection(face.box_xyxy, box) > 0.5 * face.area
            if inside and face.score >= _PRESENCE_SCORE_UNDETECTED:
                return face
        return None

    def detect_video(
        self,
        frames: Iterable[Tensor],
        *,
        face_index: int = 0,
        box: tuple[float, float, float, float] | None = None,
        callback: Callback | None = None,
    ) -> Iterator[Face | None]:
        """One face followed through a video, frame by frame; ``None`` where it is not to be seen.

        The landmarks of a frame say where to look in the next, so that the detector runs only when the face
        is lost.

        Args:
            frames: pictures ``[H, W, 3]`` in 0..1, one at a time.
            face_index: which face to follow, 0 for the largest, in the first frame that has so many.
            box: left, top, right, bottom in pixels: the face that overlaps it most is followed instead.
            callback: as that of :meth:`detect`, while a face is looked for in a whole frame.
        """
        last: Face | None = None
        lost, alone = 0, False
        for frame in frames:
            picture = check_picture(frame, "video frame").movedim(-1, 0)
            face = self._place(picture, _roi_of(last.landmarks)) if last is not None and lost == 0 else None
            if face is None and lost % _RESCAN_EVERY == 0:
                found = self.detect(frame, callback)
                if last is not None:
                    face = nearest_face(found, last, alone and len(found) == 1)
                elif found:
                    face, alone = pick_face(found, face_index, box), len(found) == 1
            elif face is None and last is not None:
                face = self._place(picture, _roi_of(last.landmarks))
            lost = 0 if face else lost + 1
            last = face or last
            yield face

    def _scan(self, picture: Tensor, smallest: float, callback: Callback | None = None) -> list[Square]:
        """Squares that may hold a face, from a picture seen at every size that the detector needs.

        The detector takes 128 pixels and knows faces from about a fifth to all of them: it sees the picture
        with a margin (a face that fills it), the whole picture, and overlapping tiles of a half, a quarter,
        ...
        """
        longest = max(picture.shape[-2:])
        smallest = max(smallest, longest / _FINEST)
        tiles = [2.0 * longest]
        while tiles[-1] > longest or tiles[-1] >= 2 * smallest:
            tiles.append(tiles[-1] / 2)
        levels = [_Level.of(picture.shape[-2:], tile) for tile in tiles]
        total, done = sum(level.count for level in levels), 0
        boxes, keypoints, scores = [], [], []
        for level in levels:
            for found in self._scan_tiles(picture, level):
                done += 1
                if callback is not None:
                    callback(done, total + 1, None)  # what is found has still to be looked at closely
                if len(found[2]):
                    boxes.append(found[0])
                    keypoints.append(found[1])
                    scores.append(found[2])
        if not boxes:
            return []
        return _suppress(np.concatenate(boxes), np.concatenate(keypoints), np.concatenate(scores))

    def _scan_tiles(
        self, picture: Tensor, level: _Level
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Boxes ``[n, 4]``, keypoints ``[n, 6, 2]`` and scores ``[n]`` in picture pixels, tile by tile."""
        height, width = picture.shape[-2:]
        shrunk = F.interpolate(
            picture[None], size=level.size, mode="bilinear", antialias=True, align_corners=False
        )
        spare = level.spare
        top, left = spare[0] // 2, spare[1] // 2
        shrunk = F.pad(shrunk, (left, spare[1] - left, top, spare[0] - top))[0] * 2 - 1
        scale = np.array([width / level.size[1], height / level.size[0]], dtype=np.float32)
        for row in range(level.rows):
            for column in range(level.columns):
                y, x = row * _Level.STEP, column * _Level.STEP
                window = shrunk[:, y : y + _DETECTOR_SIZE, x : x + _DETECTOR_SIZE].movedim(0, -1)
                points, scores = self._decode(window)
                points = (points + np.array([x - left, y - top], dtype=np.float32)) * scale
                yield points[:, :2].reshape(-1, 4), points[:, 2:], scores

    def _decode(self, window: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Corners and six keypoints ``[n, 8, 2]`` in detector pixels, scores ``[n]``, where high."""
        regression, logits = _run(self._detector, window)
        scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1).astype(np.float64), -100, 100)))
        keep = scores >= _DETECTION_SCORE
        raw = regression.reshape(-1, 8, 2)[keep]
        centre = raw[:, :1] + self._anchors[keep][:, None]
        points = raw[:, 2:] + self._anchors[keep][:, None]
        return np.concatenate([centre - raw[:, 1:2] / 2, centre + raw[:, 1:2] / 2, points], axis=1), scores[
            keep
        ]

    def _settle(self, picture: Tensor, roi: Square) -> Face | None:
        """Landmarks found twice: what the first pass finds says better than the detector where to look."""
        first = self._place(picture, roi, blendshapes=False)
        return None if first is None else self._place(picture, _roi_of(first.landmarks))

    def _place(self, picture: Tensor, roi: Square, blendshapes: bool = True) -> Face | None:
        crop = sample_square(picture, roi, _MESH_SIZE).clamp(0, 1).movedim(0, -1)
        points, presence, _ = _run(self._mesh, crop)
        score = float(1 / (1 + np.exp(-np.clip(presence.item(), -100.0, 100.0))))
        if score < _PRESENCE_SCORE:
            return None
        local = torch.from_numpy(points.reshape(NUM_LANDMARKS, 3).copy()) / _MESH_SIZE
        cos, sin = math.cos(roi.angle), math.sin(roi.angle)
        x, y = local[:, 0] - 0.5, local[:, 1] - 0.5
        turned = torch.stack([x * cos - y * sin, x * sin + y * cos, local[:, 2]], dim=1)
        landmarks = turned * roi.side + torch.tensor([roi.x, roi.y, 0.0])
        low, high = landmarks[:, :2].amin(dim=0), landmarks[:, :2].amax(dim=0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return Face(box, landmarks, self._scores(landmarks) if blendshapes else torch.zeros(52), score)

    def _scores(self, landmarks: Tensor) -> Tensor:
        (raw,) = _run(self._blendshapes, landmarks[list(_BLENDSHAPE_LANDMARKS), :2])
        scores = torch.zeros(len(ARKIT_NAMES))
        for arkit, mediapipe in _ARKIT_FROM_MEDIAPIPE:
            scores[arkit] = float(raw.reshape(-1)[mediapipe])
        return scores.clamp(0, 1)


def order_faces(faces: list[Face], order: FaceOrder = "largest") -> list[Face]:
    """Faces as they are counted: from the largest, from the left, or from the top.

    Raises:
        FD2TalkError: for another order.
    """
    if order not in FACE_ORDERS:
        raise FD2TalkError(f"The order of faces is {order!r}, but one of {tuple(FACE_ORDERS)} is needed.")
    key = {
        "largest": lambda face: (-face.area, face.box_xyxy),
        "left_to_right": lambda face: face.centre,
        "top_to_bottom": lambda face: face.centre[::-1],
    }[order]
    return sorted(faces, key=key)


def pick_face(
    faces: list[Face], face_index: int = 0, box: tuple[float, float, float, float] | None = None
) -> Face | None:
    """The face that was asked for, or None when there is none such.

    Args:
        faces: as :meth:`FaceLandmarker.detect` or :func:`order_faces` returns them.
        face_index: 0 is the first, of those that count (see :func:`counted_faces`).
        box: left, top, right, bottom in pixels; when given, the face that overlaps it most, whatever its
            index.
    """
    if box is not None:
        overlaps = [_intersection(face.box_xyxy, box) for face in faces]
        best = max(overlaps, default=0.0)
        return faces[overlaps.index(best)] if best > 0 else None
    counted = counted_faces(faces)
    return counted[face_index] if 0 <= face_index < len(counted) else None


def counted_faces(faces: list[Face]) -> list[Face]:
    """Those that are surely faces, or all where none is: what only resembles one shifts no one's number."""
    return [face for face in faces if face.score >= _PRESENCE_SCORE_UNDETECTED] or faces


def nearest_face(faces: list[Face], to: Face, anywhere: bool = False) -> Face | None:
    """The face closest to where one was last seen.

    Args:
        anywhere: however far away. Otherwise within two faces' width: who is farther off is someone else.
    """
    face = min(faces, key=lambda face: math.dist(face.centre, to.centre), default=None)
    if face is None or anywhere:
        return face
    return face if math.dist(face.centre, to.centre) <= 2 * math.sqrt(to.area) else None


def _read_networks(path: Path | str) -> list[bytes]:
    names = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")
    path = check_input(path, "face landmark model")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [archive.getinfo(name) for name in names]
            unpacked = sum(info.file_size for info in infos)
            check_amount(unpacked, _MODEL_BYTES, f"{path} unpacks to {{}} bytes", "take the one that ships")
            return [archive.read(info) for info in infos]
    except FD2TalkError:
        raise
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, RuntimeError, ValueError) as error:
        raise FD2TalkError(f"{path} is not a MediaPipe Face Landmarker file ({reason_of(error)}).") from error


def _run(interpreter: Any, image: Tensor) -> list[np.ndarray]:
    """All outputs, the largest first (a network's outputs of one size stay in its own order)."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.contiguous().numpy()[None])
    interpreter.invoke()
    outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return sorted(outputs, key=lambda output: -output.size)


def _anchors() -> np.ndarray:
    """Centres ``[896, 2]`` in detector pixels: 2 a cell of the 16 x 16 grid, then 6 of the 8 x 8."""
    grids = []
    for stride, repeat in ((8, 2), (16, 6)):
        ticks = (np.arange(_DETECTOR_SIZE // stride, dtype=np.float32) + 0.5) * stride
        x, y = np.meshgrid(ticks, ticks)
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2).repeat(repeat, axis=0))
    return np.concatenate(grids)


def _suppress(boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> list[Square]:
    """Weighted non-maximum suppression: boxes that overlap are averaged by score (BlazeFace)."""
    squares = []
    order = np.argsort(-scores, kind="stable")
    while len(order):
        overlap = _iou(boxes[order[0]], boxes[order])
        cluster, order = order[overlap > _SUPPRESSION_IOU], order[overlap <= _SUPPRESSION_IOU]
        weights = scores[cluster] / scores[cluster].sum()
        left, top, right, bottom = (weights[:, None] * boxes[cluster]).sum(axis=0)
        eyes = (weights[:, None, None] * keypoints[cluster, :2]).sum(axis=0)
        across = eyes[1] - eyes[0]
        side = _ROI_SCALE * max(right - left, bottom - top)
        angle = math.atan2(across[1], across[0])
        squares.append(Square(float((left + right) / 2), float((top + bottom) / 2), float(side), angle))
    return squares


def _roi_of(landmarks: Tensor) -> Square:
    """The upright-turned square around landmarks, enlarged as MediaPipe's tracking does."""
    points = landmarks[:, :2].double()
    across = points[_EYE_CORNERS[1]] - points[_EYE_CORNERS[0]]
    angle = math.atan2(float(across[1]), float(across[0]))
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    turned = points @ turn
    low, high = turned.amin(dim=0), turned.amax(dim=0)
    centre = turn @ ((low + high) / 2)
    side = float((high - low).max()) * _ROI_SCALE
    return Square(float(centre[0]), float(centre[1]), side, angle)


def _intersection(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, 0.0) * max(height, 0.0))


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of ``[n, 4]`` others."""
    shared = (
        (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(min=0).prod(axis=1)
    )
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    return shared / np.maximum(area + areas - shared, 1e-12)


def _distinct(faces: list[Face]) -> list[Face]:
    """One of each: several detections of a face, or of a part of it, settle on the same landmarks."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(
            _intersection(face.box_xyxy, other.box_xyxy) < 0.5 * min(face.area, other.area) for other in kept
        ):
            kept.append(face)
    return kept
