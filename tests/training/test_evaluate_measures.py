"""Each measure of the papers' tables against an independent one, or on a case whose answer is known."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from training.evaluate.files import FILES, SYNCNET, fill, read_state
from training.evaluate.i3d import I3DNetwork
from training.evaluate.networks import (
    ARCFACE_POINTS,
    EYES,
    MOUTH,
    NOSE,
    Hopenet,
    InceptionFeatures,
    Lpips,
    arcface_chips,
    similarity,
)
from training.evaluate.scoring import Instruments
from training.evaluate.syncnet import SIZE, SyncNet, face_squares, mfcc, sync_scores
from training.measures import (
    blink_rate,
    expression_diversity,
    frechet_distance,
    lip_error,
    lip_vertex_error,
    psnr,
    ssim,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# ---- plain functions ---------------------------------------------------------------------------------------


def test_the_frechet_distance_is_torchmetrics_and_that_of_known_normals(generator: torch.Generator) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(nn.Module):
        num_features = 12

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).float() / 255

    pictures = torch.randint(0, 256, (70, 3, 2, 2), generator=generator, dtype=torch.uint8)
    others = torch.randint(0, 128, (50, 3, 2, 2), generator=generator, dtype=torch.uint8)
    judge = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    judge.update(pictures, real=True)
    judge.update(others, real=False)
    own = frechet_distance(pictures.flatten(1) / 255, others.flatten(1) / 255)
    assert own == pytest.approx(float(judge.compute()), rel=1e-6)
    a = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    # the same cloud, moved by 3 and twice as wide: 9 and Σ (σ - 2σ)²
    wide = a * 2 + torch.tensor([3.0, 0, 0, 0]) - a.mean(dim=0)
    assert frechet_distance(a, wide) == pytest.approx(9 + float(a.var(dim=0).sum()), rel=1e-9)
    # fewer samples than features: what torch's matrix root may answer with a complex number
    assert frechet_distance(torch.randn(5, 2048), torch.randn(7, 2048)) > 0
    with pytest.raises(FD2TalkError, match="two samples and more, not 1 and 400"):
        frechet_distance(a[:1], a)


def test_psnr_and_ssim_are_those_of_torchmetrics(generator: torch.Generator) -> None:
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    truth = torch.rand(2, 3, 48, 48, generator=generator)
    frames = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    for number in range(2):
        pair = frames[number : number + 1], truth[number : number + 1]
        judge = float(peak_signal_noise_ratio(*pair, data_range=1.0))
        assert float(psnr(*pair)) == pytest.approx(judge, rel=1e-5)
        # at the border they differ in how they go on
        inner = float(structural_similarity_index_measure(*pair, data_range=1.0))
        assert float(ssim(*pair)) == pytest.approx(inner, abs=0.01)


def test_diversity_of_expressions_is_equation_20() -> None:
    codes = torch.zeros(2, 5, 4)
    codes[1, :, 0] = 0.3
    # K = 2 and one pair, counted both ways: (0.3 + 0.3) / 2
    assert expression_diversity(codes) == pytest.approx(0.3)
    three = torch.cat([codes, codes[:1]])
    assert expression_diversity(three) == pytest.approx(4 * 0.3 / 3)
    with pytest.raises(FD2TalkError, match="at least two"):
        expression_diversity(codes[:1])


def test_lip_vertex_error_is_the_largest_distance_of_a_frame() -> None:
    truth, mouth = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)
    mouth[0, 1] = torch.tensor([3.0, 4.0, 0.0])
    mouth[0, 2] = torch.tensor([1.0, 0.0, 0.0])
    mouth[1, 0, 2] = -1.0
    assert lip_vertex_error(mouth, truth) == pytest.approx((5 + 1) / 2)
    assert lip_error(truth, mouth, truth[0]) == pytest.approx(1)


def test_blinks_are_counted_where_the_lid_shuts() -> None:
    lid = torch.zeros(100)
    lid[20:24], lid[60:63] = 1.0, 0.8
    assert blink_rate(lid, 25) / 60 == pytest.approx(2 / 4)


# ---- SyncNet -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [-3, 0, 4])
def test_the_offset_of_shifted_embeddings_is_found(late: int, generator: torch.Generator) -> None:
    mouths = torch.randn(80, 16, generator=generator)
    # sound i belongs to mouth i + late
    sound = torch.randn(80, 16, generator=generator)
    for i in range(80):
        if 0 <= i + late < 80:
            sound[i] = mouths[i + late]
    scores = sync_scores(mouths, sound)
    assert scores.offset == late
    unrelated = sync_scores(mouths, torch.randn(80, 16, generator=generator))
    assert scores.confidence > 5 * unrelated.confidence and scores.distance < 0.5 < unrelated.distance


def test_the_arithmetic_is_that_of_the_authors(generator: torch.Generator) -> None:
    """Their calc_pdist, written out: a distance by frame and offset; the median less the smallest."""
    mouths, sound = (torch.randn(40, 8, generator=generator) for _ in range(2))
    padded = torch.cat([torch.zeros(15, 8), sound, torch.zeros(15, 8)])
    table = torch.tensor(
        [[float((mouths[i] - padded[i + k] + 1e-6).norm()) for i in range(40)] for k in range(31)]
    ).mean(dim=1)
    scores = sync_scores(mouths, sound)
    assert scores.offset == 15 - int(table.argmin())
    assert scores.distance == pytest.approx(float(table.min()), rel=1e-5)
    assert scores.confidence == pytest.approx(float(table.sort().values[15] - table.min()), rel=1e-4)


def test_syncnet_has_the_published_layers_and_scores_a_clip(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = SyncNet().eval()
    state = network.state_dict()
    # names and shapes of syncnet_v2.model
    expected = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netfcaud.3.weight": (1024, 512),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfclip.0.weight": (512, 512),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    faces = torch.rand(9, 3, SIZE, SIZE, generator=generator)
    sound = 0.1 * torch.randn(round(9 / 25 * SAMPLE_RATE), generator=generator)
    assert network.embed_mouths(faces).shape == (4, 1024)
    assert network.embed_sound(sound, 4).shape[1] == 1024
    scores = network.score(faces, sound)
    assert scores.distance > 0 and abs(scores.offset) <= 15
    with pytest.raises(FD2TalkError, match="5 frames at a time, but the clip has 5"):
        network.score(faces[:5], sound)


def test_the_coefficients_of_sound_follow_the_frames() -> None:
    """Twenty steps of 10 ms a window and four a frame; a click shows in the steps around it."""
    sound = torch.zeros(SAMPLE_RATE)
    sound[SAMPLE_RATE // 2] = 1.0
    steps = mfcc(sound)
    assert steps.shape[0] == 13 and abs(steps.shape[1] - 100) <= 1
    changed = (steps[1:] - steps[1:, :1]).abs().sum(dim=0) > 1e-3
    assert set(changed.nonzero().flatten().tolist()) <= {47, 48, 49, 50}


def test_the_crop_has_the_face_in_its_upper_middle() -> None:
    """As run_pipeline.py cuts: a box's centre lies in the middle, and CROP half boxes above it."""
    frame = torch.zeros(20, 3, 200, 200)
    frame[:, :, 90:110, 90:110] = 1
    boxes = torch.tensor([80.0, 80.0, 120.0, 120.0]).expand(20, 4)
    crop = face_squares(frame, boxes)
    assert crop.shape == (20, 3, SIZE, SIZE)
    rows, columns = (crop[0, 0] > 0.5).nonzero().double().mean(dim=0)
    scale = SIZE / (40 * 1.4)
    assert float(columns) == pytest.approx(SIZE / 2, abs=2)
    assert float(rows) == pytest.approx(SIZE / 2 - 20 * 0.4 * scale, abs=2)


# ---- the other networks ------------------------------------------------------------------------------------


def test_lpips_is_that_of_torchmetrics(tmp_path: Path, generator: torch.Generator) -> None:
    """AlexNet is random in both; the linear layers are the authors'."""
    from safetensors.torch import save_file
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    torch.manual_seed(0)
    backbone = alexnet(weights=None)
    save_file(backbone.state_dict(), tmp_path / "alexnet-owt-7be5be79.safetensors")
    own = Lpips.load(tmp_path)
    other = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    for number in range(1, 6):
        for name, layer in getattr(other.net, f"slice{number}").named_children():
            layer.load_state_dict(backbone.features[int(name)].state_dict())
    frames, truth = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    expected = other(frames, truth, normalize=True).flatten()
    torch.testing.assert_close(own(frames, truth), expected, rtol=1e-4, atol=1e-6)
    assert own(truth, truth).abs().max() < 1e-6


def test_i3d_has_the_published_layers_and_knows_a_video_from_another(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = I3DNetwork().eval()
    state = network.state_dict()
    expected = {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Mixed_3b.b1b.conv3d.weight": (128, 96, 3, 3, 3),
        "Mixed_5c.b3b.bn.running_mean": (128,),
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    # what the authors of I3D count for RGB
    assert sum(value.numel() for value in network.parameters()) == 12_697_264
    frames = torch.rand(19, 3, 32, 32, generator=generator)
    found = network.embed(frames, 9)
    assert found.shape == (2, 400) and (found[0] - found[1]).abs().max() > 0
    assert network.embed(frames[:8], 9).shape == (0, 400)


def test_hopenet_is_resnet_50_without_its_heads(tmp_path: Path, generator: torch.Generator) -> None:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    whole = resnet50(weights=None)
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith("fc.")}
    torch.save({**state, "fc_yaw.weight": torch.zeros(66, 2048)}, tmp_path / "hopenet_robust_alpha1.pkl")
    frames = torch.rand(2, 3, 64, 64, generator=generator)
    boxes = torch.tensor([[20.0, 20.0, 40.0, 44.0]]).expand(2, 4)
    found = Hopenet.load(tmp_path)(frames, boxes)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, Hopenet.load(tmp_path)(frames, boxes, batch=1), rtol=1e-3, atol=1e-3)


def test_inception_gives_the_features_that_fid_is_defined_on(
    tmp_path: Path, generator: torch.Generator
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        """As its constructor leaves it before it reads weights."""

        def load_state_dict(self, *_: object, **__: object) -> None:
            return None

    torch.save({}, tmp_path / "none.pth")
    network = Untrained("inception", ["2048"], str(tmp_path / "none.pth"))
    torch.save(network.state_dict(), tmp_path / "weights-inception-2015-12-05-6726825d.pth")
    frames = torch.rand(2, 3, 48, 48, generator=generator)
    found = InceptionFeatures.load(tmp_path)(frames)
    expected = network((frames * 255).round().byte())[0]
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, expected)


def test_the_similarity_is_that_of_scikit_image(generator: torch.Generator) -> None:
    from skimage.transform import SimilarityTransform

    source = torch.rand(3, 5, 2, generator=generator)
    target = torch.rand(3, 5, 2, generator=generator)
    turn, shift = similarity(source, target)
    for number in range(3):
        pair = (points[number].double().numpy() for points in (source, target))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its newer name is not in older versions
            judge = SimilarityTransform()
            assert judge.estimate(*pair)
        np.testing.assert_allclose(turn[number], judge.params[:2, :2], atol=1e-5)
        np.testing.assert_allclose(shift[number], judge.params[:2, 2], atol=1e-5)


def test_a_turned_face_comes_upright_to_arcface() -> None:
    wanted = torch.tensor(ARCFACE_POINTS)
    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    places = wanted @ turn.T + torch.tensor([250.0, 20.0])
    landmarks = torch.zeros(1, 478, 2)
    for number, place in zip((*EYES, NOSE, *MOUTH), places, strict=True):
        landmarks[0, number] = place
    frame = torch.zeros(1, 3, 300, 300)
    x, y = (int(value) for value in places[2])
    frame[:, :, y - 4 : y + 5, x - 4 : x + 5] = 1
    chip = arcface_chips(frame, landmarks)
    rows, columns = (chip[0, 0] > 0.5).nonzero().double().mean(dim=0)
    assert (float(columns), float(rows)) == pytest.approx(ARCFACE_POINTS[2], abs=1)


# ---- what is not at hand -----------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    found = Instruments.load(tmp_path)
    assert not found.networks
    for file in FILES:
        assert f"needs {file.name} from {file.source}" in found.missing.values()
    assert set(found.missing) == {
        *("lse_c", "lse_d", "offset", "confidence", "fid", "lpips", "fvd16", "fvd32", "diversity", "csim")
    }


def test_a_weights_file_that_would_execute_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "syncnet_v2.model"
    torch.save({"a": Path("x")}, path)  # an object of a class, which reading would have to build
    with pytest.raises(FD2TalkError, match="cannot be read"):
        read_state(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(FD2TalkError, match="something else than tensors by name"):
        read_state(path)
    torch.save({"netcnnaud.0.weight": torch.zeros(1)}, path)
    with pytest.raises(FD2TalkError, match="lacks .*, or has it of another shape"):
        SyncNet.load(tmp_path)
    assert SYNCNET.need(tmp_path) == path
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(FD2TalkError, match=r"does not read safely: update torch to 2\.6"):
        read_state(path)
    with pytest.raises(FD2TalkError, match="lacks weight"):
        fill(nn.Linear(1, 2), {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, path)
