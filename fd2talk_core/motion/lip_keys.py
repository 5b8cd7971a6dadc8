"""An animator's lip keys: a sparse 2-D lip track in, a whole expression out (FaceTalk Sec. A).

FaceTalk trains another network on landmarks. Here the face model itself is solved for each key: its landmarks
are linear in β (FD2Talk Eq. 1), so the mouth that meets a key and otherwise stays closest to the one that the
voice wants is a small least-squares problem with bounds. What it adds to the voice's mouth is then blended in
time, so that the voice rules away from the keys.

A key says where points of the lips lie, seen from the front, as offsets from the shut mouth at rest: x to the
picture's right, y up, in units of the mouth's width. They are the same for every face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_amount, check_choice, check_fields, check_number, checked
from ..errors import FD2TalkError
from ..face.model import FaceModel, apply_pose, project, unpose
from ..face.names import ARKIT_NAMES
from ..imaging import smoothstep
from ..progress import Callback
from .coefficients import CoefficientSequence, mouth_mask
from .defaults import BETWEEN, REACH, Between
from .pose_curve import monotone_cubic
from .tracking import FaceFitter, FaceTrack

LIP_POINTS = {
    "left": 61,
    "right": 291,
    "upper": 13,
    "lower": 14,
    "upper_outer": 0,
    "lower_outer": 17,
    "upper_left": 39,
    "upper_right": 269,
    "lower_left": 181,
    "lower_right": 405,
}
"""Names of points and MediaPipe's numbers of them. Left and right are the picture's; upper and lower are the
middle of the lips' inner edges, which touch in a shut mouth; the others lie on the outer edge."""
CORNERS = (LIP_POINTS["left"], LIP_POINTS["right"])

FARTHEST = 2.0
"""Mouth's widths from rest: nothing of a face moves so far."""
MET = 0.01
"""Mouth's widths; a key that is missed by less is met."""
MAX_KEYS = 200_000

_PRECISION = 1e-5
"""How much a key's miss counts less than its square: the smaller, the closer keys are met."""
_ROUNDS = 60
_SOLVED_TOGETHER = 2048
_SHUTTEST = 0.1
"""Of a recorded singer's frames, how many are taken for the mouth at rest."""


@dataclass(frozen=True, eq=False)
class LipKeys:
    """Where points of the lips are at some moments.

    Attributes:
        times: ``[K]`` seconds, rising.
        points: P names of :data:`LIP_POINTS`.
        offsets: ``[K, P, 2]`` from rest, in mouth's widths; not a number where a key says nothing.

    Raises:
        FD2TalkError: when the three do not fit each other, or a key says nothing at all or something absurd.
    """

    times: tuple[float, ...]
    points: tuple[str, ...]
    offsets: Tensor

    def __post_init__(self) -> None:
        check_fields(self)
        check_amount(len(self.times), MAX_KEYS, "The lip track has {} keys", "cut it")
        unknown = [name for name in self.points if name not in LIP_POINTS]
        if unknown or not self.points or len(set(self.points)) != len(self.points):
            raise FD2TalkError(
                f"Lip keys are of {', '.join(LIP_POINTS)}, each once, not "
                f"{', '.join(unknown or self.points) or 'of nothing'}."
            )
        if not self.times or self.offsets.shape != (len(self.times), len(self.points), 2):
            raise FD2TalkError(
                f"{len(self.times)} lip keys of {len(self.points)} points do not fit offsets of the shape "
                f"{list(self.offsets.shape)}."
            )
        for time in self.times:
            check_number(time, "The time of a lip key", 0)
        late = [time for before, time in zip(self.times, self.times[1:], strict=False) if time <= before]
        if late:
            raise FD2TalkError(f"The lip keys are not in the order of time, at {late[0]:g} s.")
        offsets = self.offsets.detach().to("cpu", torch.float64)
        for number in (offsets.isnan().flatten(1).all(dim=1)).nonzero()[:1, 0].tolist():
            raise FD2TalkError(f"The lip key at {self.times[number]:g} s says nothing of any point.")
        far = (offsets.nan_to_num().abs() > FARTHEST) | offsets.isinf()
        for number, point in far.any(dim=-1).nonzero()[:1].tolist():
            raise FD2TalkError(
                f"The lip key at {self.times[number]:g} s puts {self.points[point]!r} more than {FARTHEST:g} "
                "mouth's widths from rest: are its numbers pixels? Then say where the points rest."
            )
        object.__setattr__(self, "offsets", offsets)


@dataclass(frozen=True, eq=False)
class KeyedMotion:
    """A motion that meets lip keys.

    Attributes:
        expression: F frames of β.
        misses: ``[K']``, how far each key that lies within the motion is missed, in mouth's widths.
        times: ``[K']`` seconds.
        left_out: keys after the motion's end, and all but the nearest of those that fall into one frame.
    """

    expression: CoefficientSequence
    misses: Tensor
    times: tuple[float, ...]
    left_out: int

    @property
    def report(self) -> str:
        """One or two sentences for the artist."""
        missed = (self.misses > MET).nonzero()[:, 0].tolist()
        told = f"{len(self.times) - len(missed)} of {len(self.times)} lip keys are met within 1 % of the "
        told += f"mouth's width, all within {float(self.misses.max()) * 100:.2g} %."
        if missed:
            worst = max(missed, key=lambda number: float(self.misses[number]))
            told += f" The worst lies at {self.times[worst]:.2f} s: no mouth of this face model looks so."
        if self.left_out:
            told += f" {self.left_out} keys lie after the motion's end, or share a frame with another."
        return told


@checked
def apply_lip_keys(
    expression: CoefficientSequence,
    keys: LipKeys,
    face_model: FaceModel,
    *,
    between: Between = "voice",
    reach: float = REACH,
) -> KeyedMotion:
    """An expression whose lips are where the keys want them.

    Args:
        expression: F frames, such as ExpDiT's. All but the mouth's coefficients stay.
        face_model: that the expression belongs to.
        between: ``"voice"``: a key fades over ``reach`` seconds, and sooner where another follows; between
            them the voice's mouth. ``"keys"``: a smooth curve leads from key to key, and the voice's mouth
            comes before the first and after the last.
        reach: seconds.

    Raises:
        FD2TalkError: when an argument is out of range, the expression is of another face model, or no key
            lies within it.
    """
    check_choice(between, "What rules between lip keys", BETWEEN)
    check_number(reach, "The reach of a lip key in seconds", 0, 60)
    if expression.kind != "expression" or expression.values.shape[1] != face_model.expression_dim:
        raise FD2TalkError(
            f"Lip keys move an expression of the face model {face_model.name!r}, not a {expression.kind} of "
            f"{expression.face_model!r}."
        )
    rows, frames = _frames_of(keys, expression)
    voice = expression.values.double()
    mouth = mouth_mask(expression.names, voice.shape[1])
    slopes, lips = lip_slopes(face_model, keys.points), _mouth_distances(face_model)
    solved = voice[frames].clone()
    # what nose and cheeks do to the lips stays as the voice has it
    wanted = keys.offsets[rows] - torch.einsum("pxd,kd->kpx", slopes[..., ~mouth], voice[frames][:, ~mouth])
    for part in range(0, len(frames), _SOLVED_TOGETHER):
        taken = slice(part, part + _SOLVED_TOGETHER)
        solved[taken, mouth] = _solve(
            slopes[..., mouth], wanted[taken], voice[frames[taken]][:, mouth], lips[mouth][:, mouth]
        )
    values = _blend(voice, frames, solved, mouth, expression.fps, between, reach)
    if set(expression.names) <= set(ARKIT_NAMES):
        values[:, mouth] = values[:, mouth].clamp(0, 1)
    keyed = expression.replace(values=values)
    reached = torch.einsum("pxd,kd->kpx", slopes, keyed.values[frames].double())
    misses = (reached - keys.offsets[rows]).nan_to_num().norm(dim=-1).amax(dim=1)
    times = tuple(keys.times[row] for row in rows.tolist())
    return KeyedMotion(keyed, misses, times, len(keys.times) - len(times))


def _frames_of(keys: LipKeys, expression: CoefficientSequence) -> tuple[Tensor, Tensor]:
    """``[K']`` which keys are taken, and their frames; of several in a frame the nearest to its instant."""
    times = torch.tensor(keys.times, dtype=torch.float64)
    place = times * expression.fps - 0.5
    frame = place.round().long().clamp(min=0)
    inside = (times <= expression.duration).nonzero()[:, 0]
    if not len(inside):
        raise FD2TalkError(
            f"All lip keys lie after the motion's end at {expression.duration:.2f} s; the first is at "
            f"{keys.times[0]:.2f} s."
        )
    frame = frame.clamp(max=expression.num_frames - 1)
    nearest: dict[int, int] = {}
    for row in inside.tolist():
        best = nearest.get(int(frame[row]))
        if best is None or abs(place[row] - frame[row]) < abs(place[best] - frame[row]):
            nearest[int(frame[row])] = row
    return torch.tensor(list(nearest.values())), torch.tensor(list(nearest))


def mouth_width(face_model: FaceModel) -> float:
    """From corner to corner at rest, in face-model units."""
    left, right = face_model.landmarks(face_model.mean[None])[0, list(CORNERS)]
    return float((left - right).norm())


def lip_slopes(face_model: FaceModel, points: Sequence[str]) -> Tensor:
    """``[P, 2, D_β]`` float64: how points of the lips move with β, from the front, in mouth's widths."""
    rows = [LIP_POINTS[name] for name in points]
    moved = face_model.landmarks(face_model.expression_basis)[:, rows, :2]
    return moved.double().permute(1, 2, 0) / mouth_width(face_model)


def _mouth_distances(face_model: FaceModel) -> Tensor:
    """``[D_β, D_β]``, whose quadratic form is the mean squared distance of two mouths in mouth's widths."""
    moved = face_model.expression_basis[:, face_model.mouth_vertices].double().flatten(1)
    moved = moved / mouth_width(face_model)
    distances = moved @ moved.T / len(face_model.mouth_vertices)
    # coefficients that hardly move the mouth, or cancel each other, are held too
    return distances + 1e-3 * distances.diagonal().mean() * torch.eye(len(moved), dtype=torch.float64)


def _solve(slopes: Tensor, wanted: Tensor, voice: Tensor, distances: Tensor) -> Tensor:
    """The mouths within 0..1 that meet keys and are closest to the voice's.

    Minimises ``|J β - u|² / precision + (β - β_voice)ᵀ G (β - β_voice)`` by projected Newton steps
    (Bertsekas 1982), over what each key says.

    Args:
        slopes: J ``[P, 2, n]``.
        wanted: u ``[K, P, 2]``; not a number where a key says nothing.
        voice: ``[K, n]``, which may lie outside of 0..1 where motion was recorded.
        distances: G ``[n, n]``.

    Returns:
        ``[K, n]``.
    """
    said = (~wanted.isnan()).double().flatten(1)
    jacobian = slopes.flatten(0, 1)
    hessian = torch.einsum("kr,rn,rm->knm", said, jacobian, jacobian) / _PRECISION + distances
    pull = (said * wanted.nan_to_num().flatten(1)) @ jacobian / _PRECISION + voice @ distances
    low, high = voice.clamp(max=0), voice.clamp(min=1)
    sizes = torch.tensor([0.5**power for power in range(12)], dtype=torch.float64)[:, None, None]
    beta = voice.clone()
    for _ in range(_ROUNDS):
        gradient = (hessian @ beta[..., None])[..., 0] - pull
        held = ((beta <= low) & (gradient > 0)) | ((beta >= high) & (gradient < 0))
        free = (~held).double()
        reduced = hessian * free[:, :, None] * free[:, None, :] + torch.diag_embed(held.double())
        step = torch.linalg.solve(reduced, gradient * free)
        tried = torch.minimum(torch.maximum(beta - sizes * step, low), high)
        energy = 0.5 * torch.einsum("skn,knm,skm->sk", tried, hessian, tried) - (tried * pull).sum(dim=-1)
        chosen = tried[energy.argmin(dim=0), torch.arange(len(beta))]
        moved = (chosen - beta).abs().max()
        beta = chosen
        if moved < 1e-9:
            break
    return beta


def _blend(
    voice: Tensor,
    frames: Tensor,
    solved: Tensor,
    mouth: Tensor,
    fps: float,
    between: Between,
    reach: float,
) -> Tensor:
    """Keys' mouths ``[K', D]`` among the voice's ``[F, D]``, exactly at their own frames."""
    all_frames = torch.arange(len(voice))
    after = torch.searchsorted(frames, all_frames).clamp(max=len(frames) - 1)
    before = (torch.searchsorted(frames, all_frames, right=True) - 1).clamp(min=0)
    since, until = (all_frames - frames[before]) / fps, (frames[after] - all_frames) / fps
    added = solved - voice[frames]

    def fade(away: Tensor, room: Tensor) -> Tensor:
        """1 at a key, 0 where its reach ends or the next key stands."""
        length = torch.minimum(room, torch.full_like(room, reach)).clamp(min=1e-9)
        return smoothstep(1 - away / length)[:, None]

    gap = torch.where(before == after, torch.inf, (frames[after] - frames[before]) / fps)
    # before the first key and after the last there is one side only
    left = torch.where((since < 0)[:, None], 0.0, fade(since.abs(), gap))
    right = torch.where((until < 0)[:, None], 0.0, fade(until.abs(), gap))
    right = torch.where(((before == after) & (since >= 0))[:, None], 0.0, right)
    values = voice + left * added[before] + right * added[after]
    if between == "keys" and len(frames) > 1:
        inside = slice(int(frames[0]), int(frames[-1]) + 1)
        time = all_frames[inside].double()
        for column in mouth.nonzero()[:, 0].tolist():
            curve = torch.stack([frames.double(), solved[:, column]], dim=1)
            values[inside, column] = monotone_cubic(curve, time)
    return torch.where(mouth, values, voice)


@checked
def lip_keys_of_curve(points: Sequence[tuple[float, float]], duration: float) -> LipKeys:
    """Keys of how far the lips part: the simplest track.

    Args:
        points: time as a share of the clip, 0..1, and the gap between the lips in mouth's widths.
        duration: seconds of the clip.
    """
    if not points:
        raise FD2TalkError("The curve has no points.")
    placed = sorted((check_number(time, "A curve's time", 0, 1), gap) for time, gap in points)
    gaps = torch.tensor([[[0.0], [-gap]] for _, gap in placed], dtype=torch.float64)
    free = torch.full_like(gaps, torch.nan)
    times = tuple(time * duration for time, _ in placed)
    return LipKeys(times, ("upper", "lower"), torch.cat([free, gaps], dim=-1))


@checked
@torch.no_grad()
def lip_keys_of_track(
    track: FaceTrack, fps: float, face_model: FaceModel, callback: Callback | None = None
) -> LipKeys:
    """A recorded person's lips as keys, one a frame that shows the face.

    Each point is brought to the front by the fitted pose. Rest is where the lips lie in the tenth of the
    frames in which they are closest to each other.

    Raises:
        FD2TalkError: when no frame shows the face.
    """
    if not track.found.any():
        raise FD2TalkError("The recorded person's face is in no frame.")
    fitter = FaceFitter(track, face_model)
    expression, pose = fitter.fit(track, callback)
    rows = list(LIP_POINTS.values())
    shapes = face_model(fitter.identity[None], expression)
    depth = project(apply_pose(face_model.landmarks(shapes)[:, rows], pose), face_model.camera)[..., 2]
    seen = fitter.transform.points_to_ndc(track.landmarks)[:, rows]
    camera = face_model.camera
    posed = torch.stack(
        [seen[..., 0] * depth / camera.focal, -seen[..., 1] * depth / camera.focal, camera.distance - depth],
        dim=-1,
    )
    front = unpose(posed, pose)[..., :2]
    names = list(LIP_POINTS)
    gap = (front[:, names.index("upper")] - front[:, names.index("lower")]).norm(dim=-1)
    rest = front[gap.argsort()[: max(1, round(_SHUTTEST * len(gap)))]].mean(dim=0)
    width = (rest[names.index("left")] - rest[names.index("right")]).norm()
    times = ((track.found.nonzero()[:, 0].double() + 0.5) / fps).tolist()
    return LipKeys(tuple(times), tuple(names), ((front - rest) / width).clamp(-FARTHEST, FARTHEST))
