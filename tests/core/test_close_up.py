"""Close-ups against a head that is drawn flat, each of its parts in a colour of its own."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES, EYE_PARTS, MOUTH_PARTS
from fd2talk_core.face.rasterizer import rasterize
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.close_ups import CloseUps
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference

SIZE = 480
SKIN, EYES, MOUTH = (0.8, 0.5, 0.4), (0.9, 0.9, 1.0), (0.2, 0.05, 0.05)


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


def motion(turned: float = 0.0, **coefficients: float) -> tuple[Tensor, Tensor]:
    expression, pose = torch.zeros(1, len(ARKIT_NAMES)), torch.zeros(1, 6)
    for name, value in coefficients.items():
        expression[0, ARKIT_NAMES.index(name)] = value
    pose[0, 1] = turned
    return expression, pose


def names(face: FaceModel, expression: Tensor, pose: Tensor) -> Tensor:
    """``[S, S]``: the part that is seen, by its place in ``part_names``, -1 for none."""
    vertices = apply_pose(face(torch.zeros(1, face.identity_dim), expression), pose)
    raster = rasterize(project(vertices, face.camera), face.triangles, SIZE, cull_back_faces=True)
    return torch.where(raster.covered, face.triangle_parts[raster.triangle.clamp_min(0)], -1)[0]


def parts(face: FaceModel, expression: Tensor, pose: Tensor) -> Tensor:
    """``[S, S]``: 0 skin, 1 eyes, 2 the mouth's inside, -1 nothing."""
    table = [1 if n in EYE_PARTS else 2 if n in MOUTH_PARTS else 0 for n in face.part_names]
    return torch.tensor([*table, -1])[names(face, expression, pose)]


def flat(face: FaceModel, expression: Tensor, pose: Tensor) -> Tensor:
    """``[S, S, 3]``: the head in three colours before black."""
    return torch.tensor([SKIN, EYES, MOUTH, (0.0, 0.0, 0.0)])[parts(face, expression, pose)]


def portrait(face: FaceModel, crop: Tensor, expression: Tensor, pose: Tensor) -> Reference:
    size = len(crop)
    transform = CropTransform.of_square(size / 2, size / 2, size, size)
    identity = torch.zeros(face.identity_dim)
    state = FaceState(identity, expression[0], pose[0], face.name)
    return Reference(torch.zeros(4, 8, 8), state, crop, transform, crop, True)


def draw(close_ups: CloseUps, frames: Tensor, expression: Tensor, pose: Tensor, **options: float) -> Tensor:
    """The frames ``[F, S, S, 3]`` with the close-ups of a motion."""
    motion = PortraitMotion(close_ups.reference.face, expression, pose, close_ups.face_model)
    return close_ups.add_to(frames, motion.mesh(range(len(pose))), pose, **options)


@pytest.fixture(scope="module")
def still(face: FaceModel) -> Reference:
    return portrait(face, flat(face, *motion()), *motion())


def inside(mask: Tensor) -> Tensor:
    """Without the edges, where colours mix."""
    return -F.max_pool2d(-mask[None].float(), 3, stride=1, padding=1)[0] > 0


@pytest.mark.parametrize(
    "moved",
    [
        {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
        {"eyeWideLeft": 1.0, "eyeWideRight": 1.0},
        {"turned": 0.2, "eyeBlinkLeft": 1.0},
    ],
)
def test_parts_are_where_the_mesh_has_them(
    face: FaceModel, still: Reference, moved: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lids that close take the skin's colour, and eyes that open the eyes', in their lids' shadow."""
    truth = flat(face, *motion(**moved))
    before = flat(face, *motion(turned=moved.get("turned", 0.0)))
    shaded = draw(CloseUps(still, face), before[None], *motion(**moved))[0]
    monkeypatch.setattr(f"{CloseUps.__module__}.LID_SHADOW", (1.0, 20))
    made = draw(CloseUps(still, face), before[None], *motion(**moved))[0]
    kind = parts(face, *motion(**moved))
    opened = inside((truth != before).any(dim=-1)) & (kind == 1)
    assert (shaded <= made + 1e-6).all() and (not opened.any() or (made - shaded)[opened].mean() > 0.02)
    changed = inside((truth != before).any(dim=-1)) & (kind != 2)
    assert changed.sum() > 10
    assert (made - truth)[changed].abs().mean() < 0.04 < 0.1 < (before - truth)[changed].abs().mean()


def test_the_mouth_is_dark_within_and_teeth_are_bright(face: FaceModel, still: Reference) -> None:
    lowered = dict.fromkeys(("mouthLowerDownLeft", "mouthLowerDownRight"), 1.0)
    moved = motion(jawOpen=0.6, mouthStretchLeft=0.8, mouthStretchRight=0.8, **lowered)
    grey = torch.full((1, SIZE, SIZE, 3), 0.5)
    made = draw(CloseUps(still, face), grey, *moved)[0]
    seen = names(face, *moved)
    teeth, tongue = (made[inside(seen == face.part_names.index(name))] for name in ("lower_teeth", "tongue"))
    assert min(len(teeth), len(tongue)) > 100
    assert tongue.mean() < 0.8 * teeth.mean()
    assert (tongue[:, 0] - tongue[:, 1]).mean() > 0.1, "flesh is red"
    assert made[seen == face.part_names.index("mouth_interior")].amin() < 0.3 * teeth.mean()


def test_what_is_drawn_covers_what_the_crop_is_pasted_into(face: FaceModel, still: Reference) -> None:
    """And the rest covers it as far as it did."""
    moved = motion(jawOpen=0.6)
    frames = torch.cat([flat(face, *moved), torch.full((SIZE, SIZE, 1), 0.3)], dim=-1)[None]
    close_ups = CloseUps(still, face)
    made = draw(close_ups, frames, *moved)
    torch.testing.assert_close(made[..., :3], draw(close_ups, frames[..., :3], *moved))
    cover = made[0, ..., 3]
    assert cover[inside(parts(face, *moved) == 2)].min() > 0.9
    assert cover.min() == cover[0, 0] == pytest.approx(0.3) and (cover > 0.31).float().mean() < 0.2


def test_a_grey_portrait_has_a_grey_mouth(face: FaceModel, still: Reference) -> None:
    moved = motion(jawOpen=0.7)
    mouth = inside(parts(face, *moved) == 2)
    grey = replace(still, crop=still.crop.mean(dim=-1, keepdim=True).expand(-1, -1, 3))
    made = draw(CloseUps(grey, face), grey.crop[None], *moved)[0][mouth]
    assert (made.amax(dim=1) - made.amin(dim=1)).max() < 1e-5


def test_a_hat_does_not_darken_the_mouth_below_it(face: FaceModel, still: Reference) -> None:
    moved = motion(jawOpen=0.7)
    hat = still.crop.clone()
    hat[: SIZE * 2 // 5] = 0.02
    bare, worn = (
        draw(CloseUps(replace(still, crop=crop), face), still.crop[None], *moved)[0]
        for crop in (still.crop, hat)
    )
    mouth = inside(parts(face, *moved) == 2)
    assert (bare[mouth] - worn[mouth]).abs().max() < 0.02


def test_teeth_that_the_portrait_shows_are_its_own(face: FaceModel) -> None:
    own = motion(jawOpen=0.5, mouthStretchLeft=0.8, mouthStretchRight=0.8)
    green = flat(face, *own)
    green[parts(face, *own) == 2] = torch.tensor([0.1, 0.9, 0.1])
    smiling = portrait(face, green, *own)
    moved = motion(turned=0.1, jawOpen=0.4, mouthStretchLeft=0.8, mouthStretchRight=0.8)
    made = draw(CloseUps(smiling, face), green[None], *moved)[0][inside(parts(face, *moved) == 2)]
    assert (made[:, 1] - made[:, 0]).mean() > 0.6


@pytest.mark.parametrize(
    ("colour", "followed"), [((0.95, 0.9, 0.8), True), ((0.9, 0.5, 0.5), False), ((0.2, 0.2, 0.18), False)]
)
def test_teeth_that_it_hides_are_like_those_it_shows(
    face: FaceModel, still: Reference, colour: tuple[float, float, float], followed: bool
) -> None:
    """A little of a mouth is seen: if it is bright and hardly coloured, it is teeth."""
    own = motion(jawOpen=0.2)
    crop = flat(face, *own)
    crop[parts(face, *own) == 2] = torch.tensor(colour)
    moved = motion(turned=0.3, jawOpen=0.5, mouthLowerDownLeft=1.0, mouthLowerDownRight=1.0)
    seen = inside(names(face, *moved) == face.part_names.index("lower_teeth"))
    grey = torch.full((1, SIZE, SIZE, 3), 0.5)
    made = draw(CloseUps(portrait(face, crop, *own), face), grey, *moved)[0]
    plain = draw(CloseUps(still, face), grey, *moved)[0]
    typical = [picture[seen].mean(dim=1).median() for picture in (made, plain)]
    assert seen.sum() > 100
    if followed:
        assert typical[0] > typical[1] + 0.04
    else:
        assert abs(typical[0] - typical[1]) < 0.02


@pytest.mark.parametrize("brightness", [0.45, 0.9])
def test_teeth_in_the_shadow_of_a_lip_are_brighter_in_the_light(face: FaceModel, brightness: float) -> None:
    """But no brighter than the face, unless they are so in its own picture."""
    own = motion(jawOpen=0.2)
    crop = flat(face, *own)
    crop[parts(face, *own) == 2] = brightness * torch.tensor([1.0, 0.97, 0.9])
    grown = motion(jawOpen=0.5, mouthLowerDownLeft=1.0, mouthLowerDownRight=1.0)
    seen = inside(names(face, *grown) == face.part_names.index("lower_teeth"))
    grey = torch.full((1, SIZE, SIZE, 3), 0.5)
    made = draw(CloseUps(portrait(face, crop, *own), face), grey, *grown)[0][seen].mean(dim=1)
    skin = sum(SKIN) / 3
    brightest = float(made.quantile(0.95))
    assert brightest < max(skin, brightness) + 0.02
    if brightness < skin:
        assert brightest > brightness + 0.05


def with_lower_teeth(face: FaceModel, drop: float) -> FaceModel:
    """The same faces, but their upper teeth reach further down."""
    other = copy(face)
    mean = face.mean.clone()
    mean[face.triangles[face.triangle_parts == face.part_names.index("upper_teeth")].unique(), 1] -= drop
    other._buffers = {**face._buffers, "mean": mean}
    return other


@pytest.mark.parametrize("drop", [0.0, 0.03, 0.06])
def test_upper_teeth_reach_as_far_down_as_the_portrait_s(face: FaceModel, drop: float) -> None:
    """They are neither left on the tongue when the jaw drops nor taken from the lips."""
    own = motion(jawOpen=0.25, mouthUpperUpLeft=0.5, mouthUpperUpRight=0.5)
    person = with_lower_teeth(face, drop)
    crop = flat(person, *own)
    crop[names(person, *own) == face.part_names.index("upper_teeth")] = torch.tensor([0.95, 0.93, 0.9])
    close_ups = CloseUps(portrait(face, crop, *own), face)
    assert close_ups.teeth_drop == pytest.approx(drop, abs=0.011)
    moved = motion(jawOpen=0.7, mouthUpperUpLeft=0.5, mouthUpperUpRight=0.5)
    made = draw(close_ups, crop[None], *moved)[0]
    seen = names(person, *moved)
    teeth, tongue = (made[inside(seen == face.part_names.index(n))] for n in ("upper_teeth", "tongue"))
    assert min(len(teeth), len(tongue)) > 100
    assert teeth.mean() > 0.75 and tongue.mean(dim=1).quantile(0.95) < 0.6


def test_a_slit_between_lips_lends_no_colour_to_what_is_behind(face: FaceModel) -> None:
    own, moved = motion(jawOpen=0.03), motion(jawOpen=0.6)
    crop = flat(face, *own)
    slit = parts(face, *own) == 2
    assert 20 < slit.sum() < 2000
    small = SIZE // 8  # the slit is a row of pixels here
    crop[slit] = torch.tensor([0.0, 1.0, 0.0])
    crop = F.interpolate(crop.movedim(-1, 0)[None], size=small, mode="area")[0].movedim(0, -1)
    made = draw(CloseUps(portrait(face, crop, *own), face), torch.full((1, SIZE, SIZE, 3), 0.5), *moved)[0]
    mouth = made[inside(parts(face, *moved) == 2)]
    assert (mouth[:, 1] - mouth[:, 0]).max() < 0.05


def test_eyes_that_are_slits_in_the_portrait_stay_as_they_are(face: FaceModel) -> None:
    own = motion(eyeBlinkLeft=0.35, eyeBlinkRight=0.35)
    crop, eyes = flat(face, *own), parts(face, *own) == 1
    assert 50 < eyes.sum() < 3000
    small = SIZE // 8  # slits are a row of pixels here
    crop, share = (
        F.interpolate(plane.movedim(-1, 0)[None], size=small, mode="area")[0].movedim(0, -1)
        for plane in (crop, eyes[..., None].float())
    )
    made = draw(CloseUps(portrait(face, crop, *own), face), crop[None], *own)[0]
    assert (made - crop)[share[..., 0] > 0.3].abs().mean() < 0.1


@pytest.mark.parametrize("shut", ["both", "one"])
def test_eyes_that_the_portrait_does_not_show_are_eyes(face: FaceModel, shut: str) -> None:
    """As the other one, or with a dark iris and a pale white; black holes before."""
    own = motion(eyeBlinkLeft=1.0, eyeBlinkRight=1.0 if shut == "both" else 0.0)
    close_ups = CloseUps(portrait(face, flat(face, *own), *own), face)
    open_eyes = motion()
    drawn = draw(close_ups, torch.full((1, SIZE, SIZE, 3), 0.5), *open_eyes)[0]
    seen = names(face, *open_eyes)
    left = torch.tensor([face.part_names.index(f"left_{part}") for part in ("eye", "iris")])
    white, iris = (drawn[inside(seen == number)] for number in left)
    assert len(white) > 20 and len(iris) > 50
    if shut == "one":
        assert (white.median(dim=0).values - torch.tensor(EYES)).abs().max() < 0.2
    else:
        assert white.mean() > 0.4 and 0.05 < iris.mean() < 0.6 * white.mean()


def test_lashes_of_an_open_eye_do_not_stay_where_it_was(face: FaceModel) -> None:
    """Where the picture has them above the mesh's lid, which takes them along: a ring around the shut eye."""
    rest, shut = motion(), motion(eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    picture, seen = flat(face, *rest), parts(face, *rest)
    within_8, within_11 = (
        torch.stack([F.pad(seen == 1, (0, 0, 0, rows))[rows:] for rows in range(most + 1)]).any(dim=0)
        for most in (8, 11)
    )
    lashes = within_11 & ~within_8 & (seen == 0)
    skin = torch.tensor(SKIN)
    picture[lashes] = 0.3 * skin
    drawn = draw(CloseUps(portrait(face, picture, *rest), face), picture[None], *shut)[0]
    assert lashes.sum() > 100
    assert drawn[lashes].mean() > 0.55 * skin.mean()  # 0.46 where they stay


def test_lashes_are_no_streaks_on_a_lid_that_closes(face: FaceModel) -> None:
    rest, shut = motion(), motion(eyeBlinkLeft=0.8, eyeBlinkRight=0.8)
    picture, seen = flat(face, *rest), parts(face, *rest)
    eye = seen == 1
    above = torch.stack([F.pad(eye, (0, 0, 0, rows))[rows:] for rows in range(9)]).any(dim=0) & (seen == 0)
    picture[above & (torch.arange(picture.shape[1]) % 4 < 2)] *= 0.3
    drawn = draw(CloseUps(portrait(face, picture, *rest), face), picture[None], *shut)[0]
    rows = eye.any(dim=1).nonzero()[:, 0]
    middle = rows[0] + (rows[-1] - rows[0]) // 4  # of the eye that was open, where the lid's skin is now
    lid = drawn[rows[0] : middle].mean(dim=(0, 2))[eye[middle]]
    assert above.sum() > 100
    assert (lid[2:] - lid[:-2]).abs().mean() < 0.004  # 0.011 where what is stretched to twice its size shows


def test_an_eye_that_turns_shows_its_white_where_the_portrait_hid_it(face: FaceModel) -> None:
    """An iris that lids cut above and below must not be continued over the white beside it."""
    dark = torch.tensor([0.2, 0.1, 0.05])
    rest = motion(eyeBlinkLeft=0.1, eyeBlinkRight=0.1)
    picture = flat(face, *rest)
    picture[torch.isin(names(face, *rest), _numbers(face, "iris", "pupil"))] = dark
    close_ups = CloseUps(portrait(face, picture, *rest), face)
    away = motion(eyeLookOutLeft=0.9, eyeLookInRight=0.9, eyeLookUpLeft=0.6, eyeLookUpRight=0.6)
    drawn = draw(close_ups, picture[None], *away)[0]
    seen = names(face, *away)
    white = inside(torch.isin(seen, _numbers(face, "eye")))
    iris = inside(torch.isin(seen, _numbers(face, "iris", "pupil")))
    assert white.sum() > 100 and iris.sum() > 100
    assert (drawn[white].mean(dim=-1) > 0.75).float().mean() > 0.9
    assert (drawn[iris].mean(dim=-1) < 0.4).float().mean() > 0.8


def _numbers(face: FaceModel, *kinds: str) -> Tensor:
    wanted = [f"{side}_{kind}" for side in ("left", "right") for kind in kinds]
    return torch.tensor([face.part_names.index(name) for name in wanted])


def test_a_dark_portrait_has_a_dark_mouth(face: FaceModel, still: Reference) -> None:
    moved = motion(jawOpen=0.7)
    mouth = inside(parts(face, *moved) == 2)
    dark = replace(still, crop=still.crop * 0.25)
    bright, dim = (draw(CloseUps(r, face), r.crop[None], *moved)[0][mouth].mean() for r in (still, dark))
    assert 0.4 * bright < dim < 0.75 * bright


def test_the_portrait_itself_stays_as_it_is(face: FaceModel) -> None:
    """With the portrait's own motion every colour comes from its own place."""
    crop = torch.rand(12, 12, 3, generator=torch.Generator().manual_seed(0))
    crop = F.interpolate(crop.movedim(-1, 0)[None], size=SIZE, mode="bicubic")[0].movedim(0, -1).clamp(0, 1)
    own = motion(turned=-0.15, mouthClose=0.1)
    made = draw(CloseUps(portrait(face, crop, *own), face), crop[None], *own)[0]
    apart = parts(face, *own) != 2
    assert (made - crop)[apart].abs().max() < 0.2
    assert (made - crop)[apart].abs().mean() < 1e-3


def test_only_mouth_and_eyes_change_and_by_the_strength(face: FaceModel, still: Reference) -> None:
    moved, frame = motion(jawOpen=0.6, eyeBlinkLeft=0.8), torch.full((1, SIZE, SIZE, 3), 0.5)
    close_ups = CloseUps(still, face)
    none, half, whole = (draw(close_ups, frame, *moved, strength=s) for s in (0.0, 0.5, 1.0))
    assert torch.equal(none, frame)
    torch.testing.assert_close(half - frame, (whole - frame) / 2)
    changed = (whole != frame).any(dim=-1)[0]
    assert 0.005 < changed.float().mean() < 0.1
    rows, _ = changed.nonzero(as_tuple=True)
    assert rows.min() > SIZE / 4 and rows.max() < SIZE * 0.75


def test_frames_do_not_depend_on_those_drawn_with_them(face: FaceModel, still: Reference) -> None:
    steps = [motion(jawOpen=0.1 * i, turned=0.05 * i, eyeBlinkLeft=0.2 * i) for i in range(4)]
    expression, pose = (torch.cat(part) for part in zip(*steps, strict=True))
    frames = torch.rand(4, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    close_ups = CloseUps(still, face)
    together = draw(close_ups, frames, expression, pose)
    alone = [draw(close_ups, frames[i : i + 1], *steps[i]) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-4, rtol=0)


def test_large_pictures_and_faces_at_the_edge(face: FaceModel, still: Reference) -> None:
    crop = F.interpolate(still.crop.movedim(-1, 0)[None], size=640)[0].movedim(0, -1)
    expression, pose = motion(jawOpen=0.7)
    pose[0, 3] = 1.6  # the face is half out of the picture
    for shift in (0.0, 1.6):
        pose[0, 3] = shift
        made = draw(CloseUps(portrait(face, crop, *motion()), face), crop[None], expression, pose)
        assert made.shape == (1, 640, 640, 3) and made.isfinite().all()
        assert (made != crop).any()


def test_without_a_face_or_named_parts_frames_stay(face: FaceModel, still: Reference) -> None:
    frame = torch.full((1, SIZE, SIZE, 3), 0.5)
    moved = motion(jawOpen=0.7)
    assert torch.equal(draw(CloseUps(replace(still, face_found=False), face), frame, *moved), frame)
    unnamed = copy(face)
    unnamed.part_names = ()
    assert torch.equal(draw(CloseUps(still, unnamed), frame, *moved), frame)


def test_a_mouth_as_the_portrait_has_it_is_the_portrait_s(
    face: FaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the mesh holds its inside for, dark where it has teeth or bright where it has none."""
    own = motion(jawOpen=0.25, mouthSmileLeft=0.6, mouthSmileRight=0.6, mouthLowerDownLeft=0.4)
    crop = flat(face, *own)
    mouth = parts(face, *own) == 2
    rows = torch.arange(SIZE)[:, None].expand(SIZE, SIZE)
    bright = mouth & (rows > rows[mouth].float().median())  # teeth where the mesh has the tongue
    crop = torch.where(bright[..., None], torch.tensor([0.85, 0.8, 0.75]), crop)
    close_ups = CloseUps(portrait(face, crop, *own), face)
    grey = torch.full((1, SIZE, SIZE, 3), 0.5)
    same = draw(close_ups, grey, *own)[0]
    assert (same - crop)[inside(mouth)].abs().mean() < 0.01
    monkeypatch.setattr(f"{CloseUps.__module__}.SAME_SHAPE", (-2.0, -1.0))
    assert (draw(close_ups, grey, *own)[0] - crop)[inside(mouth)].abs().mean() > 0.05, "it would be painted"


def test_shut_lids_show_nothing_of_the_eye_between_them(face: FaceModel) -> None:
    """Where they meet, half a displacement is an eyeball's place in the portrait."""
    eyes = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
    crop = flat(face, *motion())
    still = portrait(face, crop, *motion())
    made = draw(CloseUps(still, face), crop[None], *motion(**eyes))[0]
    eye = parts(face, *motion()) == 1
    blue = (made[..., 2] - made[..., 0])[eye]
    assert eye.sum() > 200
    assert blue.amax() < 0, "skin and lashes are red, eyes blue"
