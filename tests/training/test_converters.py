"""Face models and autoencoders of others, in small files of the true layouts; hostile ones do nothing."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.torch import save_file
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, default_face_model
from training.converters.autoencoder import start_from_pretrained
from training.converters.face_model import MEDIAPIPE_OF_68, main
from training.converters.pickles import array_of, read_notes
from training.mouths import mouth_basis
from training.sources import face_model_of


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """A coarse head: MediaPipe's points of the face model that ships, and random bases."""
    shipped = default_face_model()
    points = shipped.landmarks(shipped.mean[None])[0]
    triangles = shipped.triangles[shipped.mediapipe_triangles][:, 0]
    faces = np.stack([np.arange(466), np.arange(466) + 1, np.arange(466) + 2], axis=1)
    assert len(triangles) == 468
    rng = np.random.default_rng(0)
    return {
        "mean": points.numpy().astype(np.float64) * 1.1 + 0.2,
        "faces": faces,
        "identity": rng.standard_normal((468 * 3, 80)) * 0.01,
        "expression": rng.standard_normal((468 * 3, 64)) * 0.01,
        "landmarks": np.array(MEDIAPIPE_OF_68),
    }


def check_points(model: FaceModel) -> None:
    """MediaPipe's points lie where they were put, and the mouth around the lips."""
    found = model.landmarks(model.mean[None])[0]
    assert float((found - model.mean[:468]).norm(dim=1).max()) < 0.02
    assert len(model.mouth_vertices) > 20 and model.inner_lip_pairs.tolist()[1] == [13, 14]


def test_basel_of_deep3d(head: dict[str, np.ndarray], tmp_path: Path) -> None:
    source, out = tmp_path / "BFM_model_front.mat", tmp_path / "bfm.safetensors"
    arrays = {
        "meanshape": head["mean"].reshape(1, -1).astype(np.float32),
        "idBase": head["identity"].astype(np.float32),
        "exBase": head["expression"].astype(np.float32),
        "meantex": np.zeros((1, 468 * 3)),
        "tri": head["faces"] + 1.0,
        "keypoints": head["landmarks"][None] + 1.0,
    }
    scipy.io.savemat(source, arrays, do_compression=True)
    assert main(["bfm09", str(source), "-o", str(out)]) == 0
    model = FaceModel.load(out)
    assert (model.name, model.identity_dim, model.expression_dim) == ("bfm09", 80, 64)
    centred = torch.from_numpy(head["mean"] - head["mean"].mean(axis=0)).float()
    torch.testing.assert_close(model.mean, centred, atol=1e-5, rtol=0)
    alpha, beta = torch.randn(1, 80), torch.randn(1, 64)
    expected = centred.flatten() + torch.from_numpy(head["identity"]).float() @ alpha[0]
    expected = expected + torch.from_numpy(head["expression"]).float() @ beta[0]
    torch.testing.assert_close(model(alpha, beta).flatten(), expected, atol=1e-4, rtol=0)
    check_points(model)
    # a configuration names it, and the stages take their sizes from it
    section = configs_section(tmp_path, out)
    assert mouth_basis(face_model_of(section)).shape[0] == 64
    assert face_model_of({"face_model": ""}) is default_face_model()


def configs_section(folder: Path, face_model: Path) -> dict:
    from training.trainer import load_section

    config = folder / "config.yaml"
    config.write_text(f"face_model: {face_model}\nmotion: {{frames: 25}}\n")
    return load_section(config, "motion")


class Ch:
    """Stands for chumpy's class, which a FLAME file names and which is not installed."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_flame_is_read_without_being_executed(
    head: dict[str, np.ndarray], tmp_path: Path, protocol: int
) -> None:
    source, out, marks = tmp_path / "flame.pkl", tmp_path / "flame.safetensors", tmp_path / "marks.json"
    shapes = np.concatenate([head["identity"], np.zeros((468 * 3, 220)), head["expression"]], axis=1)
    shapes = np.concatenate([shapes, np.zeros((468 * 3, 36))], axis=1).reshape(468, 3, 400)
    held = {
        "v_template": head["mean"] / 10,
        "shapedirs": Ch(shapes),
        "f": head["faces"].astype(np.uint32),
        "J_regressor": scipy.sparse.csc_matrix(np.eye(5, 468)),
        "bs_type": "lrotmin",
    }
    source.write_bytes(pickle.dumps(held, protocol))
    marks.write_text(json.dumps(head["landmarks"].tolist()))
    assert main(["flame", str(source), "-o", str(out), "--landmarks", str(marks)]) == 0
    model = FaceModel.load(out)
    assert (model.name, model.identity_dim, model.expression_dim) == ("flame", 300, 100)
    jaw = torch.from_numpy(shapes[..., 300]).float() * 10
    torch.testing.assert_close(model.expression_basis[0], jaw, atol=1e-5, rtol=0)
    check_points(model)
    joints = array_of(read_notes(source.read_bytes())["J_regressor"], "J_regressor")
    assert np.array_equal(joints, np.eye(5, 468))


def test_a_hostile_pickle_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return exec, (f"open({str(tmp_path / 'touched')!r}, 'w')",)

    source = tmp_path / "flame.pkl"
    marks = tmp_path / "marks.json"
    marks.write_text("[0]")
    line = ["flame", str(source), "-o", str(tmp_path / "out.safetensors"), "--landmarks", str(marks)]
    for content in (
        pickle.dumps({"v_template": Hostile(), "shapedirs": Hostile(), "f": Hostile()}),
        pickle.dumps(Hostile()),
        pickle.dumps({"v_template": np.array([Hostile()], dtype=object)}),
        pickle.dumps({"v_template": np.eye(3)})[:-20],
        b"no pickle",
        b"",
    ):
        source.write_bytes(content)
        assert main(line) == 2
        assert "is no FLAME model" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


def test_ict_facekit(head: dict[str, np.ndarray], tmp_path: Path) -> None:
    folder, out = tmp_path / "FaceXModel", tmp_path / "ict.safetensors"
    folder.mkdir()

    def write(name: str, vertices: np.ndarray) -> None:
        lines = ["v {:.6f} {:.6f} {:.6f}".format(*row) for row in vertices * 10]
        lines += ["f " + " ".join(f"{corner + 1}/1" for corner in face) for face in head["faces"]]
        (folder / name).write_text("\n".join(lines))

    write("generic_neutral_mesh.obj", head["mean"])
    for number in range(3):
        write(f"identity{number:03d}.obj", head["mean"] + head["identity"][:, number].reshape(-1, 3))
    for number, name in enumerate(("eyeBlink_L", "jawOpen")):
        write(f"{name}.obj", head["mean"] + head["expression"][:, number].reshape(-1, 3))
    numbers = {"idx_to_landmark_verts": head["landmarks"].tolist()}
    (folder / "vertex_indices.json").write_text(json.dumps(numbers))
    assert main(["ict", str(folder), "-o", str(out)]) == 0
    model = FaceModel.load(out)
    assert model.expression_names == ("eyeBlinkLeft", "jawOpen") and model.identity_dim == 3
    opened = torch.from_numpy(head["expression"][:, 1].reshape(-1, 3)).float()
    torch.testing.assert_close(model.expression_basis[1], opened, atol=1e-5, rtol=0)
    check_points(model)


# ---- autoencoders ------------------------------------------------------------------------------------------

SMALL = {"block_out_channels": (16, 32), "layers_per_block": 1, "latent_channels": 3, "norm_num_groups": 8}


def trained(kind: str):
    """A small autoencoder of diffusers with random weights everywhere."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    model = AutoencoderKL(**SMALL, **blocks) if kind == "kl" else VQModel(**SMALL, **blocks)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return model.eval()


def ours():
    network = {"latent_channels": 3, "block_out_channels": [16, 32], "norm_num_groups": 8}
    blocks = {"encoder_blocks": [1, 1], "decoder_blocks": [1, 1], "architecture": "kl", "patch_size": 1}
    return configs.build("autoencoder", "base", 0, **network, **blocks)


def in_words_of_latent_diffusion(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as CompVis's files have them, attention as 1 × 1 convolutions."""
    turned = {}
    for name, value in weights.items():
        if "attentions.0.to_" in name and value.ndim == 2:
            value = value[:, :, None, None]
        for pattern, replacement in (
            (r"mid_block\.resnets\.0", "mid.block_1"),
            (r"mid_block\.resnets\.1", "mid.block_2"),
            (r"attentions\.0\.group_norm", "attentions.0.norm"),
            (r"attentions\.0\.to_([qkv])\.", r"attentions.0.\1."),
            (r"attentions\.0\.to_out\.0\.", "attentions.0.proj_out."),
            (r"mid_block\.attentions\.0", "mid.attn_1"),
            (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
            (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
            (r"up_blocks\.0\.resnets", "up.1.block"),
            (r"up_blocks\.1\.resnets", "up.0.block"),
            (r"up_blocks\.0\.upsamplers\.0", "up.1.upsample"),
            (r"conv_norm_out", "norm_out"),
            (r"conv_shortcut", "nin_shortcut"),
        ):
            name = re.sub(pattern, replacement, name)
        turned[f"first_stage_model.{name}"] = value.contiguous()
    return turned


@pytest.mark.parametrize("layout", ["kl", "vq", "latent diffusion"])
@torch.no_grad()
def test_a_pretrained_autoencoder_is_the_start(layout: str, tmp_path: Path) -> None:
    theirs = trained("vq" if layout == "vq" else "kl")
    path = tmp_path / "vae.safetensors"
    weights = theirs.state_dict()
    save_file(in_words_of_latent_diffusion(weights) if layout == "latent diffusion" else weights, path)
    network = ours()
    start_from_pretrained(network, path)
    image, portrait = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    if layout == "vq":
        latent = theirs.post_quant_conv(theirs.encode(image * 2 - 1).latents)
    else:
        latent = theirs.post_quant_conv(theirs.encode(image * 2 - 1).latent_dist.mean)
    torch.testing.assert_close(network.encode(image), latent, atol=1e-4, rtol=1e-4)
    decoded = (theirs.decoder(latent) + 1) / 2
    found = network.decode(network.encode(image), network.encode(portrait), clamp=False)
    torch.testing.assert_close(found, decoded, atol=1e-4, rtol=1e-4)
    # and what is widened can be learned
    assert network.decoder.conv_in.weight.shape[1] == 6 and network.decoder.conv_in.weight.requires_grad


def test_an_autoencoder_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save_file(trained("kl").state_dict(), path)
    with pytest.raises(FD2TalkError, match="no autoencoder of this network's size"):
        start_from_pretrained(configs.build("autoencoder", "base", 0, block_out_channels=[32, 64, 64]), path)
    with pytest.raises(FD2TalkError, match="needs an autoencoder of the architecture 'kl'"):
        start_from_pretrained(configs.build("autoencoder", "tiny", 0), path)
    with pytest.raises(FD2TalkError, match="no safetensors file"):
        start_from_pretrained(ours(), tmp_path / "vae.ckpt")
