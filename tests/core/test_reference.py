"""The portrait is framed alike wherever and however large it stands, and goes back where it came from."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.background import Background
from fd2talk_core.frames.compositing import head_mask, paste_back
from fd2talk_core.frames.correspondence import reference_flow, warp_reference
from fd2talk_core.frames.reference import (
    PortraitCrop,
    Reference,
    crop_portrait,
    encode_reference,
    latent_preview,
)
from fd2talk_core.imaging import resample
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint

PORTRAIT = Path(__file__).parents[2] / "example_inputs" / "portrait.png"


@lru_cache
def landmarker() -> FaceLandmarker:
    return FaceLandmarker.load()


@lru_cache
def face_model() -> FaceModel:
    return default_face_model()


@lru_cache
def portrait() -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(PORTRAIT), dtype=np.float32) / 255)


@lru_cache
def cropped() -> PortraitCrop:
    return crop_portrait(portrait(), landmarker(), face_model())


def crop(image: torch.Tensor, **options) -> PortraitCrop:
    return crop_portrait(image, landmarker(), face_model(), **options)


def resized(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    planes = image.movedim(-1, 0)[None]
    return (
        F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)[0]
        .clamp(0, 1)
        .movedim(0, -1)
    )


@lru_cache
def with_two_faces() -> torch.Tensor:
    """1080p: the portrait at 0.9 on the left, at 0.4 on the right."""
    canvas = torch.full((1080, 1920, 3), 0.4)
    canvas[300:761, 200:661] = resized(portrait(), 461, 461)
    canvas[200:405, 1300:1505] = resized(portrait(), 205, 205)
    return canvas


def reference(picture: torch.Tensor, x: float, y: float, side: float, size: int = 256) -> Reference:
    """A reference whose crop is given, for what needs no face."""
    transform = CropTransform.of_square(x, y, side, size)
    shown = transform.to_crop(picture).clamp(0, 1)
    return Reference(
        latent=torch.zeros(4, size // 8, size // 8),
        face=FaceState(torch.zeros(80), torch.zeros(52), torch.zeros(6), "none"),
        crop=shown,
        crop_transform=transform,
        picture=picture,
        face_found=True,
    )


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float(((a - b) ** 2).mean()) + 1e-12)


class HalvingEncoder(torch.nn.Module):
    """Stands for an autoencoder: pictures in, latents of an eighth of the size out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return torch.einsum("dc,bchw->bdhw", self.weight, F.avg_pool2d(image, 8))


class TestFraming:
    def test_the_fitted_head_stands_where_the_camera_looks(self) -> None:
        portrait = cropped()
        assert portrait.crop.shape == (256, 256, 3) and portrait.found is not None
        assert portrait.face.pose[3:].abs().max() < 0.05
        assert portrait.face.pose[:3].abs().max() < math.radians(25)
        assert portrait.face.identity.shape == (80,) and portrait.face.expression.shape == (52,)

    def test_the_fitted_mesh_lies_on_the_landmarks(self) -> None:
        portrait, model = cropped(), face_model()
        vertices = model(portrait.face.identity[None], portrait.face.expression[None])
        u, v, _ = project(apply_pose(vertices, portrait.face.pose[None]), model.camera).unbind(-1)
        landmarks = portrait.crop_transform.points_to_crop(portrait.found.landmarks[:, :2]) / 128 - 1
        for axis, screen in enumerate((u, v)):
            middle = (landmarks[:, axis].min() + landmarks[:, axis].max()) / 2
            assert screen.min() < landmarks[:, axis].min() + 0.1
            assert screen.max() > landmarks[:, axis].max() - 0.1
            assert screen.min() < middle < screen.max()

    def test_a_mirrored_portrait_turns_the_other_way(self) -> None:
        mirrored = crop(portrait().flip(1))
        plain, other = cropped().face.pose, mirrored.face.pose
        assert other[0] == pytest.approx(float(plain[0]), abs=math.radians(4))
        assert other[1] == pytest.approx(-float(plain[1]), abs=math.radians(4))
        assert other[2] == pytest.approx(-float(plain[2]), abs=math.radians(3))
        box, mirrored_box = cropped().crop_transform.box, mirrored.crop_transform.box
        assert 512 - mirrored_box[2] == pytest.approx(box[0], abs=0.03 * (box[2] - box[0]))

    @pytest.mark.parametrize(("scale", "shift"), [(2.0, (0, 0)), (0.6, (40, 90)), (1.0, (301, 57))])
    def test_the_crop_moves_and_grows_with_the_face(self, scale: float, shift: tuple[int, int]) -> None:
        side = round(512 * scale)
        canvas = torch.full((side + 200, side + 400, 3), 0.4)
        canvas[shift[1] : shift[1] + side, shift[0] : shift[0] + side] = resized(portrait(), side, side)
        moved = crop(canvas)
        expected = [edge * scale + shift[i % 2] for i, edge in enumerate(cropped().crop_transform.box)]
        width = expected[2] - expected[0]
        assert moved.crop_transform.box == pytest.approx(expected, abs=0.03 * width)
        assert (moved.face.pose[:3] - cropped().face.pose[:3]).abs().max() < math.radians(3)

    def test_margin_widens_the_view_around_the_same_middle(self) -> None:
        wide = crop(portrait(), margin=1.5)
        left, top, right, bottom = cropped().crop_transform.box
        wide_left, wide_top, wide_right, wide_bottom = wide.crop_transform.box
        assert wide_right - wide_left == pytest.approx(1.5 * (right - left))
        assert (wide_left + wide_right) / 2 == pytest.approx((left + right) / 2)
        assert (wide_top + wide_bottom) / 2 == pytest.approx((top + bottom) / 2)
        # seen from the same camera, a head that is drawn smaller stands farther away
        assert wide.face.pose[5] == pytest.approx(-0.5 * face_model().camera.distance, rel=0.1)

    def test_size_is_the_crops_side(self) -> None:
        assert crop(portrait(), size=128).crop.shape == (128, 128, 3)


class TestChoosing:
    def test_the_largest_face_is_taken_unless_an_index_or_a_box_says_otherwise(self) -> None:
        picture = with_two_faces()
        assert crop(picture).found.centre[0] < 700
        assert crop(picture, face_index=1).found.centre[0] > 1300
        assert crop(picture, box=(1350, 200, 1450, 300)).found.centre[0] > 1300

    def test_faces_are_counted_in_the_order_that_was_asked_for(self) -> None:
        picture = with_two_faces().flip(1)  # the large face on the right, below the small one
        assert crop(picture, face_order="left_to_right").found.centre[0] < 700
        assert crop(picture, face_order="top_to_bottom", face_index=1).found.centre[0] > 1200
        with pytest.raises(FD2TalkError, match=r"has 2 \(0 to 1, left to right\)"):
            crop(picture, face_order="left_to_right", face_index=2)
        with pytest.raises(FD2TalkError, match="order of faces is 'random'"):
            crop(picture, face_order="random")

    def test_a_mask_says_which_face(self) -> None:
        picture = with_two_faces()
        mask = torch.zeros(1080, 1920)
        mask[230:290, 1380:1420] = 1  # a stroke over the small face
        assert crop(picture, mask=mask[None]).found.centre[0] > 1300
        with pytest.raises(FD2TalkError, match="No face lies under the mask; faces were found at"):
            crop(picture, mask=mask.flip(0))
        with pytest.raises(FD2TalkError, match="The mask is empty: paint over the face"):
            crop(picture, mask=torch.zeros(64, 64))
        with pytest.raises(FD2TalkError, match="mask is 64 x 64 pixels, but the portrait is 1920 x 1080"):
            crop(picture, mask=torch.ones(64, 64))
        with pytest.raises(FD2TalkError, match="only one of them can"):
            crop(picture, mask=mask, box=(0, 0, 100, 100))
        with pytest.raises(FD2TalkError, match="batch of 2"):
            crop(picture, mask=mask.expand(2, -1, -1))
        empty = crop(portrait()[250:], no_face="whole_image", mask=torch.ones(262, 512))
        assert empty.found is None and empty.crop_transform.box == (0.0, -125.0, 512.0, 387.0)

    def test_what_is_not_there_is_said_with_what_is(self) -> None:
        picture = with_two_faces()
        with pytest.raises(
            FD2TalkError, match=r"Face 2 was asked for, but the portrait has 2 \(0 to 1, largest"
        ):
            crop(picture, face_index=2)
        with pytest.raises(
            FD2TalkError, match=r"No face lies in the box \(0, 900, 150, 1080\); faces were found"
        ):
            crop(picture, box=(0, 900, 150, 1080))

    def test_no_face_is_an_error_that_says_what_to_do(self) -> None:
        with pytest.raises(FD2TalkError, match="No face was found in the 512 x 262 portrait: .*whole_image"):
            crop(portrait()[250:])

    def test_whole_image_goes_on_without_a_face(self) -> None:
        empty = portrait()[250:]
        found = encode_reference(empty, HalvingEncoder(), landmarker(), face_model(), no_face="whole_image")
        assert not found.face_found
        assert not found.face.pose.any() and not found.face.expression.any() and not found.face.identity.any()
        assert found.crop_transform.box == (0.0, -125.0, 512.0, 387.0)
        pasted = paste_back(found.crop[None], found)[0]
        assert pasted.shape == empty.shape and psnr(pasted, empty) > 24
        boxed = crop(empty, no_face="whole_image", box=(100.0, 50.0, 300.0, 200.0))
        assert boxed.found is None and boxed.crop_transform.box == (100.0, 25.0, 300.0, 225.0)

    def test_whole_image_still_takes_a_face_that_is_there(self) -> None:
        found = crop(portrait(), no_face="whole_image")
        assert found.found is not None
        # a fit's rounding depends on where its numbers lie in memory: translations of 1e-14
        torch.testing.assert_close(found.face.pose, cropped().face.pose, atol=1e-9, rtol=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"margin": 0.1}, "margin is 0.1"),
            ({"margin": math.nan}, "margin is nan"),
            ({"face_index": -1}, "index is -1"),
            ({"face_index": 1.5}, "index is 1.5"),
            ({"face_index": "0"}, "index is '0'"),
            ({"margin": "1"}, "margin is '1'"),
            ({"size": 1 << 20}, "pixels is 1048576, but a whole number from 32 to 2048"),
            ({"size": "256"}, "size is '256'"),
            ({"box": (0, 0, 1e7, 1e7)}, "but the picture has"),
            ({"box": (5000, 10, 5100, 90)}, "but the picture has"),
            ({"box": (1, 2, 3)}, "box is"),
            ({"box": 7}, "box is 7"),
            ({"box": ("a", "b", "c", "d")}, "box is"),
            ({"no_face": "skip"}, "'skip'"),
            ({"size": 8}, "size in pixels is 8"),
            ({"box": (10, 10, 5, 20)}, r"box is \(10, 10, 5, 20\)"),
            ({"box": (10, 10, math.nan, 20)}, "box is"),
        ],
    )
    def test_choices_out_of_range_are_named(self, options: dict, message: str) -> None:
        with pytest.raises(FD2TalkError, match=message):
            crop(portrait(), **options)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (torch.full((128, 128, 3), math.inf), "portrait holds values that are not numbers"),
            (torch.zeros(40, 128, 3), "portrait is 128 x 40 pixels"),
            (torch.zeros(2, 128, 128, 3), "portrait is a batch of 2"),
            (torch.zeros(128, 128), "portrait has shape"),
        ],
    )
    def test_bad_pictures_are_named(self, image: torch.Tensor, message: str) -> None:
        with pytest.raises(FD2TalkError, match=message):
            crop(image)

    def test_alpha_is_dropped(self) -> None:
        see_through = torch.cat([portrait(), torch.zeros(512, 512, 1)], dim=-1)
        assert torch.equal(crop(see_through).crop, cropped().crop)


class TestReference:
    def test_it_holds_the_latent_of_the_crop_and_the_fit(self) -> None:
        encoder = HalvingEncoder()
        found = encode_reference(portrait(), encoder, landmarker(), face_model())
        assert found.face_found and found.face_model == face_model().name
        assert torch.equal(found.crop, cropped().crop)
        # a sum's last bit may depend on where in memory its numbers lie
        torch.testing.assert_close(found.face.pose, cropped().face.pose, atol=1e-9, rtol=1e-6)
        assert torch.allclose(found.latent, encoder.encode(found.crop.movedim(-1, 0)[None])[0])
        assert not found.latent.requires_grad and torch.equal(found.picture, portrait())

    def test_it_refuses_what_does_not_fit(self) -> None:
        good = reference(portrait(), 226, 130, 240)
        for name, value in (("latent", torch.zeros(4, 32)), ("crop", torch.zeros(64, 64, 3))):
            with pytest.raises(FD2TalkError, match=f"reference's {name}"):
                replace(good, **{name: value})
        for name, value in (("pose", torch.zeros(5)), ("expression", torch.full((52,), math.nan))):
            with pytest.raises(FD2TalkError, match=f"face's {name}"):
                replace(good.face, **{name: value})


class TestTransform:
    @given(
        x=st.floats(-100, 600),
        y=st.floats(-100, 600),
        side=st.floats(40, 900),
        size=st.sampled_from([64, 256]),
    )
    @settings(max_examples=30, deadline=None)
    def test_points_go_there_and_back(self, x: float, y: float, side: float, size: int) -> None:
        transform = CropTransform.of_square(x, y, side, size)
        points = torch.rand(20, 2, dtype=torch.float64) * 500
        assert torch.allclose(transform.points_to_picture(transform.points_to_crop(points)), points)
        corners = torch.tensor([[x, y], [x - side / 2, y + side / 2]], dtype=torch.float64)
        expected = torch.tensor([[size / 2, size / 2], [0, size]], dtype=torch.float64)
        assert torch.allclose(transform.points_to_crop(corners), expected, atol=1e-6)

    @given(start=st.floats(2, 12), step=st.floats(0.2, 1))
    @settings(max_examples=30, deadline=None)
    def test_enlarging_reproduces_a_plane_exactly(self, start: float, step: float) -> None:
        y, x = torch.meshgrid(torch.arange(90) + 0.5, torch.arange(80) + 0.5, indexing="ij")
        plane = torch.stack([x, y, 0.3 * x - 0.7 * y], dim=-1)
        count = int((60 - start) / step)
        result = resample(plane, (start + 6, start), step, (count, count))[: count - 4, : count - 4]
        ticks = (torch.arange(count - 4) + 0.5) * step + start
        inside = (ticks - 2 * max(1, step) > 0.5) & (ticks + 2 * max(1, step) < 79.5)
        assert torch.allclose(result[:, inside, 0], ticks[inside].expand(count - 4, -1), atol=2e-3)
        assert torch.allclose(
            result[inside][..., 1], (ticks[inside] + 6)[:, None].expand(-1, count - 4), atol=2e-3
        )

    def test_resampling_by_one_is_the_identity_and_shrinking_does_not_alias(self) -> None:
        picture = portrait()
        same = resample(picture, (100.0, 50.0), 1.0, (64, 32))
        assert torch.allclose(same, picture[100:164, 50:82], atol=1e-5)
        stripes = (torch.arange(512) % 2).float()[None, :, None].expand(512, 512, 3)
        assert (resample(stripes, (0.0, 0.0), 5.3, (90, 90)) - 0.5)[4:-4, 4:-4].abs().max() < 0.02

    @pytest.mark.parametrize("side", [37.5, 200.0, 301.0])
    def test_it_agrees_with_pillow_in_any_subpixel_box(self, side: float) -> None:
        box = (101.3, 60.8, 101.3 + side, 60.8 + side)
        planes = [Image.fromarray(plane.numpy()) for plane in portrait().movedim(-1, 0).contiguous()]
        expected = [np.asarray(plane.resize((96, 96), Image.Resampling.BICUBIC, box)) for plane in planes]
        ours = resample(portrait(), (60.8, 101.3), side / 96, (96, 96)).movedim(-1, 0)
        difference = (ours - torch.from_numpy(np.stack(expected)))[:, 3:-3, 3:-3]
        assert difference.abs().max() < 1e-3  # but for the box's rim, beyond which Pillow does not look

    def test_beyond_the_picture_its_border_is_repeated(self) -> None:
        shown = CropTransform.of_square(0.0, 0.0, 256.0, 256).to_crop(portrait())
        assert torch.allclose(shown[:120, :120], portrait()[0, 0].expand(120, 120, 3), atol=1e-5)
        assert torch.allclose(shown[128:, 128:], portrait()[:128, :128], atol=1e-5)


class TestPasteBack:
    @pytest.mark.parametrize("side", [120.0, 200.0, 256.0])
    def test_the_unmoved_crop_gives_the_picture_back(self, side: float) -> None:
        whole = reference(portrait(), 226.3, 240.9, side)
        pasted = paste_back(whole.crop.expand(3, -1, -1, -1), whole)
        left, top, right, bottom = whole.crop_transform.covered(512, 512)
        outside = torch.ones(512, 512, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        for frame in pasted:
            assert torch.equal(frame[outside], portrait()[outside])
            assert psnr(frame[top:bottom, left:right], portrait()[top:bottom, left:right]) > 36

    def test_the_fitted_portrait_comes_back_too(self) -> None:
        fitted = cropped()
        whole = replace(
            reference(portrait(), 0, 0, 100), crop=fitted.crop, crop_transform=fitted.crop_transform
        )
        assert psnr(paste_back(fitted.crop[None], whole)[0], portrait()) > 38

    def test_frames_fill_the_middle_and_fade_out_without_a_seam(self) -> None:
        grey = torch.full((400, 600, 3), 0.2)
        whole = reference(grey, 300.5, 200.25, 180.0)
        white = torch.ones(1, 256, 256, 3)
        pasted = paste_back(white, whole, feather=0.1)[0]
        assert torch.allclose(pasted[150:250, 250:350], torch.ones(()), atol=1e-5)
        steps = torch.cat([pasted.diff(dim=0).abs().flatten(), pasted.diff(dim=1).abs().flatten()])
        assert (
            steps.max() < 0.8 * 2 / 18
        )  # no step is steeper than a smooth ramp over the feather's 18 pixels
        sharp = paste_back(white, whole, feather=0.0)[0]
        assert torch.allclose(sharp[115:285, 215:385], torch.ones(170, 170, 3), atol=1e-5)

    def test_no_feather_where_the_crop_meets_the_pictures_border(self) -> None:
        whole = reference(torch.full((300, 400, 3), 0.2), 80.0, 150.0, 200.0)
        pasted = paste_back(torch.ones(1, 256, 256, 3), whole)[0]
        assert torch.allclose(pasted[150, :100], torch.ones(100, 3), atol=1e-5)
        assert pasted[150, 179, 0] < 0.25 and pasted[51, 80, 0] < 0.25
        entire = reference(torch.full((300, 300, 3), 0.2), 150.0, 150.0, 300.0)
        assert torch.allclose(paste_back(torch.ones(1, 256, 256, 3), entire), torch.ones(()), atol=1e-5)

    def test_chunks_are_the_whole(self) -> None:
        whole = reference(portrait(), 226, 130, 240)
        frames = torch.rand(5, 256, 256, 3, generator=torch.Generator().manual_seed(1))
        together = paste_back(frames, whole)
        apart = torch.cat([paste_back(part, whole) for part in frames.split(2)])
        assert torch.allclose(together, apart, atol=1e-6)
        assert torch.equal(whole.picture, portrait())  # and the picture itself is not written to

    def test_two_portraits_in_one_picture_do_not_touch_each_other(self) -> None:
        picture = with_two_faces()
        first, second = (crop(picture, face_index=index) for index in (0, 1))
        pasted = picture
        for found, colour in ((first, 0.0), (second, 1.0)):
            left, top, _, _ = found.crop_transform.box
            whole = replace(
                reference(pasted, 100, 100, 100), crop=found.crop, crop_transform=found.crop_transform
            )
            pasted = paste_back(torch.full((1, 256, 256, 3), colour), whole)[0]
        for found, colour in ((first, 0.0), (second, 1.0)):
            x, y = (round(value) for value in found.found.centre)
            assert torch.allclose(pasted[y, x], torch.full((3,), colour), atol=1e-5)

    def test_frames_of_another_size_and_a_bad_feather_are_refused(self) -> None:
        whole = reference(portrait(), 226, 130, 240)
        with pytest.raises(FD2TalkError, match=r"\(1, 128, 128, 3\), but \[frames, 256, 256, 3\]"):
            paste_back(torch.zeros(1, 128, 128, 3), whole)
        with pytest.raises(FD2TalkError, match="feather is 0.9"):
            paste_back(whole.crop[None], whole, feather=0.9)


class TestHeadMask:
    def moving(self) -> tuple[Reference, torch.Tensor, torch.Tensor]:
        fitted = cropped()
        whole = replace(
            reference(portrait(), 0, 0, 100),
            crop=fitted.crop,
            crop_transform=fitted.crop_transform,
            face=fitted.face,
        )
        pose = fitted.face.pose.repeat(2, 1)
        pose[1, 3] += 0.5
        return whole, fitted.face.expression.repeat(2, 1), pose

    def mask(self, whole: Reference, expression: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        portrait = (whole.identity, whole.expression, whole.pose)
        return head_mask(whole, reference_flow(face_model(), *portrait, expression, pose, 48, supersample=1))

    def test_it_covers_the_head_where_it_was_and_where_it_is(self) -> None:
        whole, expression, pose = self.moving()
        model = face_model()
        still, moved = self.mask(whole, expression, pose)
        assert still.min() >= 0 and moved.max() <= 1
        points = model.landmarks(model(whole.identity[None], expression))
        before, after = project(apply_pose(points, pose), model.camera)[..., :2]
        assert (after - before)[:, 0].min() > 0.2

        def at(mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            cells = ((places + 1) / 2 * len(mask)).long().clamp(0, len(mask) - 1)
            return mask[cells[:, 1], cells[:, 0]]

        assert at(still, before).min() > 0.95
        assert at(moved, before).min() > 0.95 and at(moved, after).min() > 0.95
        assert at(still, after).min() < 0.5  # the cheek that moved is where only background was

    def test_a_portrait_without_a_face_may_change_anywhere(self) -> None:
        whole, expression, pose = self.moving()
        assert self.mask(replace(whole, face_found=False), expression, pose).min() == 1

    def test_the_background_keeps_its_own_pixels(self) -> None:
        whole, expression, pose = self.moving()
        mask = self.mask(whole, expression, pose)
        pasted = paste_back(torch.zeros(2, 256, 256, 3), whole, mask=mask)
        left, top, right, _ = whole.crop_transform.box
        corner = pasted[0, max(0, round(top)) : max(0, round(top)) + 12, round(right) - 12 : round(right)]
        same = portrait()[max(0, round(top)) : max(0, round(top)) + 12, round(right) - 12 : round(right)]
        assert torch.allclose(corner, same, atol=1e-3)
        x, y = (round(value) for value in cropped().found.centre)
        assert pasted[0, y, x].max() < 1e-3


class TestSmallFaceInALargePhoto:
    """1080p with the portrait at a third of its size: the head turns, the rest stays to the bit."""

    @staticmethod
    @lru_cache
    def photo() -> torch.Tensor:
        noise = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
        canvas = F.interpolate(noise, size=(1080, 1920), mode="bilinear")[0].movedim(0, -1) * 0.6 + 0.2
        canvas[600:771, 1400:1571] = resized(portrait(), 171, 171)
        canvas[500:671, 300:471] = resized(portrait().flip(1), 171, 171)
        return canvas.contiguous()

    @classmethod
    @lru_cache
    def speaker(cls, face_index: int) -> Reference:
        return encode_reference(
            cls.photo(),
            HalvingEncoder(),
            landmarker(),
            face_model(),
            face_index=face_index,
            face_order="left_to_right",
        )

    @classmethod
    @lru_cache
    def turned(cls, face_index: int, yaw: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops of the head as the mesh says that it turns, and their mask."""
        whole = cls.speaker(face_index)
        pose = whole.pose.repeat(3, 1)
        pose[:, 1] += torch.tensor([0.0, yaw / 2, yaw])
        portrait_ = (whole.identity, whole.expression, whole.pose)
        still = whole.expression.repeat(3, 1)
        fine = reference_flow(face_model(), *portrait_, still, pose, 256, supersample=1)
        crops = warp_reference(whole.crop.movedim(-1, 0)[None].expand(3, -1, -1, -1), fine.grid)
        flow = reference_flow(face_model(), *portrait_, still, pose, 96, supersample=1)
        return crops.movedim(1, -1).clamp(0, 1), head_mask(whole, flow)

    def test_the_head_moves_and_the_rest_stays(self) -> None:
        whole = self.speaker(1)
        crops, mask = self.turned(1, 0.35)
        pasted = paste_back(crops, whole, mask=mask)
        assert pasted.shape == (3, 1080, 1920, 3)
        assert psnr(pasted[0], self.photo()) > 45  # at rest it is the photo
        left, top, right, bottom = whole.crop_transform.covered(1080, 1920)
        changed = (pasted - self.photo()).abs().amax(dim=-1)
        outside = changed.clone()
        outside[:, top:bottom, left:right] = 0
        assert not outside.any()
        x, y = (left + right) // 2, (top + bottom) // 2
        assert changed[2, y - 20 : y + 20, x - 20 : x + 20].max() > 0.1  # and turned, it is not
        side = right - left
        around = (left + 0.25 * side, top + 0.15 * side, right - 0.25 * side, bottom - 0.25 * side)
        seen = [landmarker().detect_in_box(frame, around) for frame in pasted]
        nose = [float(face.landmarks[1, 0] - face.centre[0]) for face in seen]
        assert nose[0] < nose[1] < nose[2]

    def test_no_seam_shows_at_the_crops_edge_or_the_masks(self) -> None:
        whole = self.speaker(1)
        mask = self.turned(1, 0.35)[1]
        smooth = torch.full((1080, 1920, 3), 0.3)
        pasted = paste_back(torch.full((3, 256, 256, 3), 0.7), replace(whole, picture=smooth), mask=mask)
        step = max(pasted.diff(dim=1).abs().max(), pasted.diff(dim=2).abs().max())
        assert step < 0.2  # a hard edge would be 0.4, and the whole head is 60 pixels wide here
        assert pasted[2].max() == pytest.approx(0.7, abs=1e-3)

    def test_two_people_speak_in_one_picture(self) -> None:
        first, second = self.speaker(0), self.speaker(1)
        assert first.crop_transform.box[2] < second.crop_transform.box[0]
        one = paste_back(self.turned(0, -0.3)[0], first, mask=self.turned(0, -0.3)[1])
        crops, mask = self.turned(1, 0.35)
        both = paste_back(crops, second, mask=mask, background=one)
        alone = paste_back(crops, second, mask=mask)
        half = 900
        assert torch.equal(both[:, :, :half], one[:, :, :half])
        assert torch.equal(both[:, :, half:], alone[:, :, half:])
        still = paste_back(crops, second, mask=mask, background=one[:1])
        assert torch.equal(still[2, :, :half], one[0, :, :half])

    def test_a_background_of_another_size_or_length_is_told(self) -> None:
        whole = reference(portrait(), 226, 130, 240)
        frames = torch.zeros(3, 256, 256, 3)
        with pytest.raises(
            FD2TalkError, match="background is 2 pictures of 512 x 512, but 3 pictures of 512 x"
        ):
            paste_back(frames, whole, background=torch.zeros(2, 512, 512, 3))
        with pytest.raises(FD2TalkError, match="background is 3 pictures of 512 x 256"):
            paste_back(frames, whole, background=torch.zeros(3, 256, 512, 3))


class TestBackground:
    def test_pictures_come_in_order_and_can_be_taken_again(self) -> None:
        whole = reference(portrait(), 226, 130, 240)
        numbered = (torch.full((512, 512, 3), i, dtype=torch.uint8) for i in range(6))
        background = Background(numbered, whole, 6)
        for start, stop in ((0, 4), (0, 2), (2, 4), (4, 6)):
            taken = background.take(start, stop) * 255
            assert taken[:, 0, 0, 0].round().tolist() == list(range(start, stop))
        with pytest.raises(FD2TalkError, match="has 6 frames, but the clip has 6|has 6 frames"):
            background.take(6, 7)

    def test_wrong_lengths_and_sizes_are_told(self) -> None:
        whole = reference(portrait(), 226, 130, 240)
        with pytest.raises(FD2TalkError, match="background has 4 frames, but the clip has 6: make both"):
            Background(torch.zeros(4, 512, 512, 3), whole, 6)
        with pytest.raises(FD2TalkError, match="background has 2 frames, but the clip has 3"):
            Background(iter(torch.zeros(2, 512, 512, 3)), whole, 3).take(0, 3)
        with pytest.raises(
            FD2TalkError, match="background is 512 x 500 pixels, but the portrait's picture is"
        ):
            Background(torch.zeros(1, 500, 512, 3), whole, 3).take(0, 1)

    def test_one_picture_stands_behind_all_frames_and_an_even_video_behind_an_odd_picture(self) -> None:
        odd = replace(reference(portrait(), 226, 130, 240), picture=portrait()[:301, :333])
        assert Background(torch.zeros(1, 301, 333, 3), odd, 9).take(5, 9).shape == (4, 301, 333, 3)
        assert Background(iter(torch.zeros(2, 302, 334, 3)), odd, 2).take(0, 2).shape == (2, 301, 333, 3)


class TestSamePortrait:
    @staticmethod
    def encoded(image: torch.Tensor, **options: object) -> Reference:
        return encode_reference(image, HalvingEncoder(), landmarker(), face_model(), size=64, **options)

    def test_encoded_again_it_is_the_same(self) -> None:
        first, again = self.encoded(portrait()), self.encoded(portrait().clone())
        assert first is not again and first.same_portrait(again) and again.same_portrait(first)

    def test_another_crop_face_or_size_is_another(self) -> None:
        first = self.encoded(portrait())
        others = {
            "wider": self.encoded(portrait(), margin=1.5),
            "mirrored": self.encoded(portrait().flip(1)),
            "darker": replace(first, crop=first.crop * 0.9),
            "larger": encode_reference(portrait(), HalvingEncoder(), landmarker(), face_model(), size=128),
            "smiling": replace(first, face=replace(first.face, expression=first.expression + 0.1)),
            "of another face model": replace(first, face=replace(first.face, face_model="another")),
        }
        assert [name for name, other in others.items() if first.same_portrait(other)] == []


class TestSizeOfTheCrop:
    def test_it_is_that_of_the_autoencoders_checkpoint(self, tmp_path: Path) -> None:
        seeded = configs.build("autoencoder", "tiny", block_out_channels=[8, 8, 8])
        save_checkpoint(seeded, tmp_path / "small.safetensors", CheckpointInfo(resolution=128))
        small = load_checkpoint(tmp_path / "small.safetensors", FrameAutoencoder)
        found = encode_reference(portrait(), small, landmarker(), face_model())
        assert found.crop.shape == (128, 128, 3) and found.latent.shape[1:] == (16, 16)
        assert found.crop_transform.size == 128
        given = encode_reference(portrait(), small, landmarker(), face_model(), size=64)
        assert given.crop.shape == (64, 64, 3)

    def test_a_network_from_a_seed_takes_256(self) -> None:
        assert encode_reference(portrait(), HalvingEncoder(), landmarker(), face_model()).crop.shape[0] == 256


class TestLatentPreview:
    def test_colours_come_back_where_latents_are_linear_in_them(self) -> None:
        encoder = HalvingEncoder()
        found = encode_reference(portrait(), encoder, landmarker(), face_model())
        small = F.avg_pool2d(found.crop.movedim(-1, 0)[None], 8)[0].movedim(0, -1)
        assert psnr(latent_preview(found.latent[None], found)[0], small) > 35
        mirrored = latent_preview(found.latent[None].flip(-1), found)[0]
        assert psnr(mirrored, small.flip(1)) > 35

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(FD2TalkError, match=r"\(2, 3, 32, 32\), but \[frames, 4"):
            latent_preview(torch.zeros(2, 3, 32, 32), reference(portrait(), 226, 130, 240))
