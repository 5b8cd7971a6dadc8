"""A portrait in motion: what is computed once a clip is computed once, and no frame depends on its batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.face.rasterizer import rasterize
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames import correspondence, portrait_motion
from fd2talk_core.frames.close_ups import CloseUps
from fd2talk_core.frames.correspondence import reference_flow
from fd2talk_core.frames.decoding import iter_decoded_frames
from fd2talk_core.frames.denoising import iter_latents
from fd2talk_core.frames.portrait_motion import FIELD_SIZE, FIELDS_KEPT, MESHES_KEPT, PortraitMotion
from fd2talk_core.frames.reference import Reference

FRAMES = 5


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


@pytest.fixture(scope="module")
def state(face: FaceModel) -> FaceState:
    generator = torch.Generator().manual_seed(0)
    return FaceState(
        0.5 * torch.randn(face.identity_dim, generator=generator),
        0.2 * torch.rand(face.expression_dim, generator=generator),
        torch.tensor([0.05, -0.1, 0.02, 0.0, 0.0, 0.0]),
        face.name,
    )


def motion(state: FaceState, face: FaceModel, frames: int = FRAMES) -> PortraitMotion:
    generator = torch.Generator().manual_seed(1)
    expression = 0.5 * torch.rand(frames, face.expression_dim, generator=generator)
    return PortraitMotion(state, expression, 0.1 * torch.randn(frames, 6, generator=generator), face)


@pytest.fixture(scope="module")
def clip(face: FaceModel, state: FaceState) -> tuple:
    """A UNet and an autoencoder from a seed, a reference, and a motion."""
    unet, autoencoder = (configs.build(name, "tiny", seed=0) for name in ("unet", "autoencoder"))
    crop = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        latent = autoencoder.encode(crop.movedim(-1, 0)[None])[0]
    transform = CropTransform.of_square(128.0, 128.0, 256.0, 256)
    return unet, autoencoder, Reference(latent, state, crop, transform, crop, True)


def test_the_correspondence_is_that_of_the_coefficients(face: FaceModel, state: FaceState) -> None:
    """The one that training computes from coefficients, for any selection of frames."""
    moving = motion(state, face)
    flow = moving.correspondence([3, 1], 32, 2)
    coefficients = (state.identity, state.expression, state.pose)
    wanted = reference_flow(face, *coefficients, moving.expression[[3, 1]], moving.pose[[3, 1]], 32)
    for name in ("grid", "masks", "hidden_mouth"):
        torch.testing.assert_close(getattr(flow, name), getattr(wanted, name), atol=1e-4, rtol=0)


def test_a_mesh_does_not_depend_on_its_batch(face: FaceModel, state: FaceState) -> None:
    together = motion(state, face).mesh(range(FRAMES))
    alone = [motion(state, face).mesh([frame])[0] for frame in range(FRAMES)]
    assert torch.equal(together, torch.stack(alone))


def test_meshes_of_a_long_clip_are_forgotten(face: FaceModel, state: FaceState) -> None:
    moving = motion(state, face, MESHES_KEPT + 3)
    first = moving.mesh([0])
    for frame in range(moving.num_frames):
        moving.mesh([frame])
    assert len(moving._meshes) == MESHES_KEPT and 0 not in moving._meshes
    assert torch.equal(moving.mesh([0]), first)


def test_a_field_that_is_asked_for_twice_is_made_once(
    face: FaceModel, state: FaceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = motion(state, face, FIELDS_KEPT + 3)
    fresh = [moving.field([frame]) for frame in range(3)]
    assert not moving._fields  # not worth keeping
    made = []
    monkeypatch.setattr(
        portrait_motion,
        "correspond",
        lambda *given, **options: made.append(len(given[2])) or correspondence.correspond(*given, **options),
    )
    first = moving.field([0, 1], again=True)
    mixed = moving.field([2, 1])
    assert made == [2, 1] and list(moving._fields) == [0]
    for name in ("grid", "masks", "hidden_mouth", "edges", "onward", "turned"):
        alone = [getattr(flow, name) for flow in fresh]
        assert torch.equal(getattr(first, name), torch.cat(alone[:2]))
        assert torch.equal(getattr(mixed, name), torch.cat([alone[2], alone[1]]))
    for frame in range(moving.num_frames):
        moving.field([frame], again=True)
    assert len(moving._fields) == FIELDS_KEPT


def test_the_portrait_is_drawn_once_a_resolution_and_each_mesh_posed_once(
    face: FaceModel, state: FaceState, clip: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole clip, denoised in batches of two and decoded one by one."""
    unet, autoencoder, reference = clip
    moving = motion(state, face)
    views, posed = [], []

    def counted(vertices: Tensor, triangles: Tensor, size: int, **options: bool) -> object:
        if torch.equal(vertices[:1], portrait):
            views.append(size)
        return rasterize(vertices, triangles, size, **options)

    portrait = correspondence.project(moving.portrait_view(16).points, face.camera)
    pose = PortraitMotion._posed
    monkeypatch.setattr(correspondence, "rasterize", counted)
    monkeypatch.setattr(
        PortraitMotion, "_posed", lambda self, frame: posed.append(frame) or pose(self, frame)
    )
    latents = iter_latents(unet, reference, moving, seed=0, steps=1, frames_per_batch=2)
    frames = list(iter_decoded_frames(autoencoder, latents, reference, motion=moving, frames_per_batch=1))
    assert len(frames) == FRAMES
    assert views == [FIELD_SIZE]
    assert posed == list(range(FRAMES))


@pytest.mark.parametrize("paste_back", [True, False])
def test_still_frames_are_made_once(
    face: FaceModel, state: FaceState, clip: tuple, paste_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded, detailed, drawn close and pasted once; still so where a batch begins within the pause."""
    _, autoencoder, reference = clip
    order = torch.tensor([0, 1, 1, 1, 1, 2])
    moving = motion(state, face)
    moving = PortraitMotion(state, moving.expression[order], moving.pose[order], face)
    latents = reference.latent + 0.1 * torch.arange(3.0).view(3, 1, 1, 1)
    drawn, draw = [], CloseUps.add_to

    def counted(self: CloseUps, frames: Tensor, *args: object) -> Tensor:
        drawn.append(len(frames))
        return draw(self, frames, *args)

    monkeypatch.setattr(CloseUps, "add_to", counted)
    options = {"motion": moving, "paste_back": paste_back, "frames_per_batch": 2}
    made = torch.cat(list(iter_decoded_frames(autoencoder, latents[order], reference, **options)))
    assert sum(drawn) == 3
    for frame in (2, 3, 4):
        assert torch.equal(made[frame], made[1])
    assert (made[1] - made[0]).abs().max() > 1e-3 and (made[5] - made[4]).abs().max() > 1e-3


def test_a_still_speaker_in_a_moving_background_moves_with_it(
    face: FaceModel, state: FaceState, clip: tuple
) -> None:
    _, autoencoder, reference = clip
    moving = motion(state, face)
    moving = PortraitMotion(state, moving.expression[[0, 0]], moving.pose[[0, 0]], face)
    latents = reference.latent.expand(2, -1, -1, -1)
    behind = torch.stack([torch.zeros(256, 256, 3), torch.ones(256, 256, 3)])
    options = {"motion": moving, "background": behind}
    made = torch.cat(list(iter_decoded_frames(autoencoder, latents, reference, **options)))
    still = (made[0] - made[1]).abs().amax(dim=-1)
    assert still.max() > 0.9 and still.min() < 0.01


def test_a_mesh_of_another_face_model_is_refused(face: FaceModel, state: FaceState, clip: tuple) -> None:
    other = FaceState(state.identity, state.expression, state.pose, "flame")
    moving = PortraitMotion(other, torch.zeros(1, face.expression_dim), torch.zeros(1, 6), face)
    with pytest.raises(FD2TalkError, match="'flame'"):
        moving.mesh([0])
    unet, autoencoder, reference = clip
    with pytest.raises(FD2TalkError, match="'flame'"):
        iter_latents(unet, reference, moving, seed=0)
    with pytest.raises(FD2TalkError, match="'flame'"):
        iter_decoded_frames(autoencoder, reference.latent[None], reference, motion=moving)


def test_the_checkpoint_says_whether_detail_is_laid_over() -> None:
    """The paper's plain form makes whole frames; a file may say otherwise."""
    drawn, plain = configs.build("unet", "tiny"), configs.build("unet", "tiny", reference_alignment="none",
        reference_encoder=None, alignment_channels=0)  # fmt: skip
    assert drawn.takes_overlay and not plain.takes_overlay
