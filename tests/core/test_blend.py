"""Frames are mixed of the moved portrait, the portrait as it stands, and what the latents show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fd2talk_core.face.matte as matte_module
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.matte import person_matte
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.blending import BlendedPortrait
from fd2talk_core.frames.correspondence import Correspondence
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.imaging import pixel_centers, read_image
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.blend import SOURCES, Blend, PortraitBlend, _shown_once
from fd2talk_core.networks.unet import MASK_NAMES

SIZE = 32
EXAMPLES = Path(__file__).parents[2] / "example_inputs"
BLEND = {"channels": (8, 8), "blocks": (1, 1)}


@pytest.fixture(scope="module")
def autoencoder() -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(4, (8, 8), (1, 1), (1, 1), patch_size=1, blend=BLEND).train(False)


@pytest.fixture(scope="module")
def reference(autoencoder: FrameAutoencoder) -> Reference:
    """The crop shows, at half the resolution, the left half of a picture."""
    picture = torch.rand(64, 128, 3, generator=torch.Generator().manual_seed(1))
    transform = CropTransform.of_square(32.0, 32.0, 64.0, SIZE)
    crop = transform.to_crop(picture)
    with torch.no_grad():
        latent = autoencoder.encode(crop.movedim(-1, 0)[None])[0]
    model = default_face_model()
    face = FaceState(
        torch.zeros(model.identity_dim), torch.zeros(model.expression_dim), torch.zeros(6), model.name
    )
    return Reference(latent, face, crop, transform, picture, True)


def flow(shift: float = 0.0, covered: float = 0.0, visible: float = 0.0, size: int = SIZE) -> Correspondence:
    """Every place comes from ``shift`` half widths further right."""
    grid = pixel_centers(size, torch.zeros(1))[None] + torch.tensor([shift, 0.0])
    masks = torch.zeros(1, len(MASK_NAMES), size, size)
    masks[:, 0], masks[:, 1] = covered, visible
    return Correspondence(grid, masks, torch.zeros(1, 4, size, size))


def reconstruction(autoencoder: FrameAutoencoder, reference: Reference) -> Tensor:
    with torch.no_grad():
        shown = autoencoder.decode(reference.latent[None], reference.latent[None])
    return shown.clamp(0, 1).movedim(1, -1)


def only(source: str, size: int = SIZE, **parts: Tensor) -> Blend:
    """All pixels from one source."""
    weights = torch.zeros(1, 3, size, size)
    weights[:, SOURCES.index(source)] = 1
    whole = {"weights": weights, "colours": torch.zeros(1, 3, size, size)}
    return Blend(**{**whole, **parts})


def displaced(shift: float = 0.0, size: int = SIZE) -> Tensor:
    return torch.tensor([shift, 0.0]).view(1, 2, 1, 1).expand(1, 2, size, size)


def test_each_source_is_shown_where_it_has_all_the_weight() -> None:
    portrait = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    colours = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    cells = 4
    displacement = displaced(2 * cells / SIZE)
    still = only("still").picture(portrait, displacement)
    torch.testing.assert_close(still, portrait)
    moved = only("moved").picture(portrait, displacement)
    inside = slice(0, 64 - 2 * cells)  # the portrait is twice as fine as the maps
    torch.testing.assert_close(
        moved[..., inside], portrait.roll(-2 * cells, dims=-1)[..., inside], atol=1e-5, rtol=0
    )
    made = only("made", colours=colours).picture(portrait, displacement)
    torch.testing.assert_close(made, F.interpolate(colours, size=64, mode="bilinear"))


def test_an_untrained_blend_believes_the_mesh(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    """The moved portrait where the portrait shows the surface, the latents' colours where it does not."""
    portrait = reference.crop.movedim(-1, 0)[None]
    made, matte = torch.rand(1, 3, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)
    for visible, most in ((1.0, "moved"), (0.0, "made")):
        masks = flow(covered=1.0, visible=visible).masks
        with torch.no_grad():
            blend = autoencoder.portrait_blend(portrait, matte, made, displaced(), masks)
        assert blend.weights.mean(dim=(0, 2, 3)).argmax() == SOURCES.index(most)
        torch.testing.assert_close(blend.weights.sum(dim=1), torch.ones(1, SIZE // 2, SIZE // 2))
        torch.testing.assert_close(blend.colours, made)


def test_no_ghost_stands_where_somebody_has_left() -> None:
    """A person on the left half of the portrait, who has gone to the right by an eighth of the picture."""
    size, gone = 128, 16
    portrait, made = torch.rand(1, 3, size, size), torch.rand(1, 3, size, size)
    matte = torch.zeros(1, 1, size, size)
    matte[..., : size // 2] = 1
    nowhere = flow(size=size).masks
    with torch.no_grad():
        blend = PortraitBlend(**BLEND)
        stays = blend(portrait, matte, made, displaced(size=size), nowhere)
        goes = blend(portrait, matte, made, displaced(2 * gone / size, size), nowhere)
    still = SOURCES.index("still")
    # half as fine as the picture
    before, after = stays.weights[0, still, size // 4], goes.weights[0, still, size // 4]
    edge = slice(size // 4 - gone // 4, size // 4)
    assert after[edge].max() < 0.1 * before[edge].min()
    torch.testing.assert_close(after[-size // 8 :], before[-size // 8 :])


def test_what_has_moved_is_not_also_shown_where_it_was() -> None:
    """A pearl in hair that goes along on one side of it, and stays on the other."""
    half, cells = SIZE // 2, 4
    weights = torch.zeros(1, 3, SIZE, SIZE)
    weights[:, 0, :, :half] = weights[:, 1, :, half:] = 1
    displacement = torch.zeros(1, 2, SIZE, SIZE)
    displacement[:, 0] = 2 * cells / SIZE
    person = torch.ones(1, 1, half, half)
    once = _shown_once(weights, displacement, person)
    torch.testing.assert_close(once.sum(dim=1), torch.ones(1, SIZE, SIZE))
    came_from = slice(half, half + cells)
    assert once[0, 1, :, came_from].max() < 0.01 and once[0, 2, :, came_from].min() > 0.99
    beyond = slice(half + cells + 3, SIZE)  # a cell is widened and softened
    assert torch.equal(once[..., beyond], weights[..., beyond])
    assert torch.equal(once[..., :half], weights[..., :half])
    for unchanged in (
        _shown_once(weights, displacement, 0 * person),  # a wall that is shown twice is a wall
        _shown_once(weights, displacement / 20, person),  # hardly moved, it is blurred at most
    ):
        torch.testing.assert_close(unchanged, weights)


@pytest.mark.parametrize("covered", [1.0, 0.0])
def test_no_lips_of_the_portrait_show_on_a_cheek_that_has_moved(covered: float) -> None:
    """Nor its hair in hair: where mesh or person lie elsewhere, little is of the portrait as it stands."""
    portrait, made = torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)
    matte, masks = torch.ones(1, 1, SIZE, SIZE), flow(covered=covered, visible=covered).masks
    with torch.no_grad():
        blend = PortraitBlend(**BLEND)
        stays, goes = (blend(portrait, matte, made, displaced(by), masks) for by in (0.0, 0.05))
    of_still = SOURCES.index("still")
    assert goes.weights[:, of_still].max() < 0.05 * stays.weights[:, of_still].min()


def test_a_portrait_is_looked_at_once_a_clip() -> None:
    blend = PortraitBlend(**BLEND)
    portrait, matte = torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 1, SIZE, SIZE)
    given = (torch.rand(2, 3, SIZE, SIZE), displaced(0.1), flow(covered=1.0).masks)
    given = tuple(part.expand(2, -1, -1, -1) for part in given)
    with torch.no_grad():
        torch.nn.init.normal_(blend.last.weight)
        once = blend(portrait, matte, *given, blend.look_at(portrait, matte))
        anew = blend(portrait, matte, *given)
    assert torch.equal(once.weights, anew.weights)
    assert once.weights.std() > 0.1


def test_a_blend_that_does_not_paint_shows_what_the_latents_show() -> None:
    torch.manual_seed(1)
    portrait, made, matte = (
        torch.rand(1, 3, SIZE, SIZE),
        torch.rand(1, 3, SIZE, SIZE),
        torch.ones(1, 1, SIZE, SIZE),
    )
    for paints in (True, False):
        blend = PortraitBlend(**BLEND, paints=paints)
        torch.nn.init.normal_(blend.last.weight)
        with torch.no_grad():
            shown = blend(portrait, matte, made, displaced(), flow(covered=1.0).masks)
        assert torch.equal(shown.colours, made) is not paints
        assert shown.shift is None


def test_a_shift_moves_what_lies_beside_the_mesh_and_nothing_of_the_mesh() -> None:
    size, reach = 64, 0.1
    blend = PortraitBlend(**BLEND, shift=reach)
    portrait, matte = torch.rand(1, 3, size, size), torch.ones(1, 1, size, size)
    masks = flow(visible=1.0, size=size).masks
    masks[..., : size // 2] = 1.0  # the mesh is on the left
    masks[:, 2:] = 0
    with torch.no_grad():
        still = blend(portrait, matte, portrait, displaced(size=size), masks)
        assert not still.shift.any()  # untrained
        blend.move.bias[:] = torch.tensor([100.0, 0.0])
        moved = blend(portrait, matte, portrait, displaced(size=size), masks)
    shift = F.interpolate(moved.shift, size=size, mode="bilinear")[0, 0]
    assert not shift[:, : size // 2 - 4].any()
    assert shift[:, : size // 2].abs().max() < 0.05 * reach
    assert shift[:, -8:] == pytest.approx(reach)
    only_moved = replace(moved, weights=only("moved", size).weights)
    shown = only_moved.picture(portrait, displaced(size=size))
    torch.testing.assert_close(shown[..., : size // 2 - 4], portrait[..., : size // 2 - 4])
    assert (shown - portrait)[..., size // 2 + 12 :].abs().mean() > 0.1


def test_the_portrait_is_taken_as_finely_as_the_picture_is(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    shown = reconstruction(autoencoder, reference)
    fine, coarse = (
        BlendedPortrait.of(autoencoder, reference, default_face_model(), 1.0, pasted)
        for pasted in (True, False)
    )
    assert fine.reference.crop.shape == (64, 64, 3) and coarse.reference is reference
    picture, cover = fine.add_to(shown, flow(covered=1.0, visible=1.0)).split([3, 1], dim=-1)
    assert picture.shape == (1, 64, 64, 3)
    truth = reference.picture[:, :64]
    pasted = torch.lerp(truth, picture[0], cover[0])
    smooth = F.interpolate(shown.movedim(-1, 1), size=64, mode="bilinear").movedim(1, -1)
    assert (pasted - truth).abs().mean() < 0.2 * (smooth[0] - truth).abs().mean()


def test_a_pasted_crop_and_what_it_is_pasted_into_make_the_blend_s_picture(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    shown = reconstruction(autoencoder, reference)
    field = flow(shift=0.001, covered=0.2, visible=0.1)
    whole = BlendedPortrait.of(autoencoder, reference, default_face_model(), 0.9, pasted=False).add_to(
        shown, field
    )
    assert whole[..., 3].min() == 1
    front = BlendedPortrait.of(autoencoder, reference, default_face_model(), 0.9, pasted=True)
    front = replace(front, portrait=front.coarse).add_to(shown, field)
    assert 0.05 < front[..., 3].mean() < 0.95
    pasted = torch.lerp(reference.crop, front[0, ..., :3], front[0, ..., 3:])
    torch.testing.assert_close(pasted, whole[0, ..., :3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pasted", [True, False])
def test_clothes_stay_as_they_are_whatever_the_blend_says(
    autoencoder: FrameAutoencoder, reference: Reference, pasted: bool
) -> None:
    field = flow(shift=0.1, covered=1.0, visible=0.5)
    head = torch.zeros(1, 1, SIZE, SIZE)
    head[:, :, : SIZE // 2, : SIZE // 2] = 1.0
    far = torch.zeros(1, 1, SIZE, SIZE)
    far[..., : SIZE // 2] = 1.0  # on the left there are none
    shown = torch.zeros(1, SIZE, SIZE, 3)
    portrait = BlendedPortrait.of(autoencoder, reference, default_face_model(), 1.0, pasted)
    portrait = replace(portrait, clothes=far, portrait=portrait.coarse)
    made = portrait.add_to(shown, replace(field, head=head))[0]
    picture = torch.lerp(reference.crop, made[..., :3], made[..., 3:])
    clothes = (slice(None), slice(SIZE // 2 + 5, None))  # a few pixels from the head
    torch.testing.assert_close(picture[clothes], reference.crop[clothes], atol=1e-5, rtol=0)
    assert (picture - reference.crop)[:, : SIZE // 4].abs().mean() > 0.05
    if pasted:
        assert made[clothes][..., 3].max() < 1e-5


def test_an_autoencoder_without_a_blend_shows_its_own_pictures(reference: Reference) -> None:
    torch.manual_seed(0)
    plain = FrameAutoencoder(4, (8, 8), (1, 1), (1, 1), patch_size=1).train(False)
    with pytest.raises(FD2TalkError, match="has no blend"):
        BlendedPortrait.of(plain, reference, default_face_model(), 1.0)


def test_a_person_is_told_from_what_is_behind() -> None:
    matte = person_matte(read_image(EXAMPLES / "portrait.png"))
    height, width = matte.shape
    assert matte[height // 2, width // 2] > 0.9 and matte[: height // 20, : width // 20].mean() < 0.2


def test_a_missing_segmentation_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matte_module, "MODEL_PATH", tmp_path / "gone.tflite")
    with pytest.raises(FD2TalkError, match=r"gone\.tflite is missing: install the package again"):
        person_matte(torch.rand(64, 64, 3))


def test_decoding_takes_the_motion_and_the_strength(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    model = default_face_model()
    still = [
        CoefficientSequence(kind, torch.zeros(1, width), 25.0, model.name)
        for kind, width in (("expression", model.expression_dim), ("pose", 6))
    ]
    motion = PortraitMotion.of(reference.face, *still)
    latents = reference.latent[None]
    crop = {"paste_back": False}
    plain = decode_frames(autoencoder, latents, reference, **crop)
    torch.testing.assert_close(
        decode_frames(autoencoder, latents, reference, motion=motion, detail=0, **crop), plain
    )
    error = [
        (
            decode_frames(autoencoder, latents, reference, motion=motion, detail=strength, **crop)[0]
            - reference.crop
        )
        .abs()
        .mean()
        for strength in (0, 0.5, 1.0)
    ]
    assert error[0] > error[1] > error[2]
    pasted = decode_frames(autoencoder, latents, reference, motion=motion, detail=1.0)
    assert pasted.shape == (1, 64, 128, 3) and torch.equal(pasted[0, :, 64:], reference.picture[:, 64:])
    with pytest.raises(FD2TalkError, match=r"detail is 1\.5"):
        decode_frames(autoencoder, latents, reference, motion=motion, detail=1.5)
    renamed = PortraitMotion.of(reference.face, *still, face_model=_renamed(model))
    with pytest.raises(FD2TalkError, match="'bfm'"):
        decode_frames(autoencoder, latents, reference, motion=renamed)


def _renamed(model: object) -> object:
    from copy import copy

    other = copy(model)
    other.name = "bfm"
    return other


@pytest.mark.parametrize("size", [32, 40, 64])
def test_a_blend_fits_pictures_of_any_size_and_the_host_s_half_precision(size: int) -> None:
    torch.manual_seed(0)
    blend = PortraitBlend((8, 8, 8), (1, 1, 1)).to(torch.bfloat16)
    portrait, matte = torch.rand(1, 3, size, size), torch.ones(1, 1, size, size)
    made, displacement = torch.rand(2, 3, size, size), torch.full((2, 2, 16, 16), 0.003)
    masks = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = blend(portrait, matte, made, displacement, masks)
        picture = found.picture(portrait, displacement)
    assert picture.shape == (2, 3, size, size) and picture.dtype == torch.float32
    # a displacement far finer than half precision has steps near the picture's edge still counts
    still = found.picture(portrait, torch.zeros_like(displacement))
    assert (picture - still).abs().mean() > 1e-4
