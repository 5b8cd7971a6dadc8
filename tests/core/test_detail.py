"""Detail moves with the surface, and stays away where the frame shows something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.correspondence import Correspondence
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.detail import PortraitDetail
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.imaging import pixel_centers
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.unet import MASK_NAMES

SIZE = 32


@pytest.fixture(scope="module")
def autoencoder() -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(4, (8, 8), (1, 1), (1, 1), patch_size=1).train(False)


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


def detail_of(autoencoder: FrameAutoencoder, reference: Reference, fine: bool = True) -> PortraitDetail:
    return PortraitDetail.of(autoencoder, reference, default_face_model(), 1.0, fine)


def test_a_frame_that_is_the_portrait_becomes_the_portrait(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    shown = reconstruction(autoencoder, reference)
    coarse = detail_of(autoencoder, reference, fine=False).add_to(shown, flow())
    torch.testing.assert_close(coarse[0], reference.crop.clamp(0, 1), atol=1e-5, rtol=0)
    fine = detail_of(autoencoder, reference)
    assert fine.reference.crop.shape == (64, 64, 3)
    made = fine.add_to(shown, flow())[0]  # enlarging and reducing again is nearly, not exactly, the same
    torch.testing.assert_close(made, reference.picture[:, :64], atol=5e-3, rtol=0)


def test_detail_moves_with_the_surface(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    cells = 4
    shown = reconstruction(autoencoder, reference)
    moved_frame = torch.roll(shown, -cells, dims=2)
    detail = detail_of(autoencoder, reference, fine=False)
    made = detail.add_to(moved_frame, flow(shift=2 * cells / SIZE))[0]
    inside = slice(0, SIZE - 3 * cells)  # beyond, the averaged difference sees the rolled edge
    wanted = torch.roll(reference.crop, -cells, dims=1)
    torch.testing.assert_close(made[:, inside], wanted[:, inside].clamp(0, 1), atol=1e-5, rtol=0)


def test_none_is_added_where_the_portrait_does_not_see_the_surface(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    shown = reconstruction(autoencoder, reference)
    detail = detail_of(autoencoder, reference, fine=False)
    hidden = detail.add_to(shown, flow(covered=1.0, visible=0.0))
    torch.testing.assert_close(hidden, shown)
    seen = detail.add_to(shown, flow(covered=1.0, visible=1.0))
    torch.testing.assert_close(seen[0], reference.crop.clamp(0, 1), atol=1e-5, rtol=0)


def test_what_was_repainted_a_little_gives_way_to_the_portrait(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    noise = 0.02 * torch.randn(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(4))
    frame = (reconstruction(autoencoder, reference) + noise).clamp(0, 1)
    made = detail_of(autoencoder, reference, fine=False).add_to(frame, flow())[0]
    portrait = reference.crop.clamp(0, 1)
    assert (made - portrait).abs().mean() < 0.1 * (frame[0] - portrait).abs().mean()


def test_a_cheek_that_was_turned_away_stays_clear_of_the_background(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    """Between jaw and shoulders the portrait's edge is not trusted once stretched; within it is."""
    detail = detail_of(autoencoder, reference, fine=False)
    rim = detail.rim[0, 0]
    upper, lower = rim.chunk(2)
    assert upper[: len(upper) * 3 // 4].max() == 0, "hair and hats"
    assert 0.02 < (lower > 0.5).float().mean() < 0.2
    middle = rim[len(rim) * 6 // 10, len(rim) // 2]
    assert middle == 0, "the mouth"
    shown = reconstruction(autoencoder, reference)
    squeezed = flow(covered=1.0, visible=1.0)
    squeezed.grid[..., 0] *= 0.7
    at_rim, within = (
        replace(detail, rim=torch.full_like(detail.rim, value)).add_to(shown, squeezed)
        for value in (1.0, 0.0)
    )
    still = replace(detail, rim=torch.ones_like(detail.rim)).add_to(shown, flow(covered=1.0, visible=1.0))
    torch.testing.assert_close(still[0], reference.crop.clamp(0, 1), atol=1e-5, rtol=0)
    assert (at_rim - shown).abs().mean() < 0.6 * (within - shown).abs().mean()


def test_eyes_that_the_portrait_hides_stay_clear_of_it(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    """A closed eye's lid must not be laid over the open eye, nor over what is next to it."""
    shown = reconstruction(autoencoder, reference)
    middle = SIZE // 2
    eye = flow(covered=1.0, visible=1.0)
    eye.masks[:, 1, middle - 1 : middle + 1, middle - 1 : middle + 1] = 0
    skin = Correspondence(eye.grid, eye.masks.clone(), eye.hidden_mouth)
    eye.masks[:, MASK_NAMES.index("eyes"), middle - 1 : middle + 1, middle - 1 : middle + 1] = 1
    detail = detail_of(autoencoder, reference, fine=False)
    inside = slice(middle - 1, middle + 1)
    changed = [(detail.add_to(shown, field) - shown)[0, inside, inside].abs().mean() for field in (eye, skin)]
    assert changed[0] < 1e-5 < changed[1]


def test_none_is_added_where_the_frame_shows_something_else(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    detail = detail_of(autoencoder, reference, fine=False)
    other = (reconstruction(autoencoder, reference) + 0.5) % 1
    assert (detail.add_to(other, flow()) - other).abs().max() < 1e-3


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
