"""The other networks that measures look through: Inception (FID), AlexNet (LPIPS), Hopenet (Diversity),
ArcFace (CSIM).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import Square, sample_square

from .files import ALEXNET, ARCFACE, HOPENET, INCEPTION, fill, read_state

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EYES, NOSE, MOUTH = (468, 473), 4, (61, 291)
"""MediaPipe's irises, tip of the nose and corners of the mouth; the right of the person first."""

ARCFACE_POINTS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where ArcFace's training pictures of 112 px have both eyes, nose and the mouth's corners (Deng et al.
2019).
"""


class InceptionFeatures:
    """The 2,048 features of Inception v3 as trained in 2015, by torch-fidelity's port, which FID is defined
    on.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @classmethod
    def load(cls, folder: Path) -> InceptionFeatures:
        """Raises FD2TalkError when the weights are missing."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = INCEPTION.need(folder)
        state = read_state(path)
        # its reader would execute what a pickle says, so it is given a file that holds these tensors and no
        # more
        with tempfile.TemporaryDirectory() as place:
            torch.save(state, Path(place) / "tensors.pth")
            return cls(FeatureExtractorInceptionV3("inception", ["2048"], str(Path(place) / "tensors.pth")))

    @torch.no_grad()
    def __call__(self, frames: Tensor, batch: int = 16) -> Tensor:
        """``[F, 3, H, W]`` in 0..1 to ``[F, 2048]``."""
        pixels = (frames.clamp(0, 1) * 255).round().byte()
        return torch.cat([self.network(part)[0] for part in pixels.split(batch)])


class Lpips:
    """LPIPS with AlexNet (Zhang et al. 2018), by the authors' package, whose linear layers come with it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @classmethod
    def load(cls, folder: Path) -> Lpips:
        """Raises FD2TalkError when AlexNet's weights are missing."""
        path = ALEXNET.need(folder)
        return cls.of(read_state(path), path)

    @classmethod
    def of(cls, state: dict[str, Tensor], path: Path) -> Lpips:
        """With torchvision's tensors of AlexNet."""
        from lpips import LPIPS
        from torchvision.models import alexnet

        backbone = fill(alexnet(weights=None), state, path)
        network = LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        slices = [getattr(network.net, f"slice{number}") for number in range(1, 6)]
        own = {name: layer for part in slices for name, layer in part.named_children()}
        for name, layer in own.items():
            layer.load_state_dict(backbone.features[int(name)].state_dict())
        return cls(network.eval().requires_grad_(False))

    @torch.no_grad()
    def __call__(self, frames: Tensor, truth: Tensor, batch: int = 8) -> Tensor:
        """Of each frame of ``[F, 3, H, W]`` in 0..1, ``[F]``."""
        pairs = zip(frames.split(batch), truth.split(batch), strict=True)
        return torch.cat([self.network(a, b, normalize=True).flatten() for a, b in pairs])


class Hopenet:
    """Embeddings of head pose: the pooled features of Hopenet's ResNet-50 (Ruiz et al. 2018)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @classmethod
    def load(cls, folder: Path) -> Hopenet:
        """Raises FD2TalkError when the weights are missing."""
        from torchvision.models import resnet50

        network = resnet50(weights=None)
        network.fc = nn.Identity()  # its own heads for yaw, pitch and roll are not needed
        path = HOPENET.need(folder)
        return cls(fill(network, read_state(path), path))

    @torch.no_grad()
    def __call__(self, frames: Tensor, boxes: Tensor, batch: int = 16) -> Tensor:
        """Frames ``[F, 3, H, W]`` in 0..1 and faces' boxes ``[F, 4]`` in pixels to ``[F, 2048]``.

        The crop is that of the authors' ``test_on_video_dlib.py``: half a width more on either side, three
        quarters of a height above and a quarter below, of which the middle square is taken.
        """
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        crops = []
        for frame, (left, top, right, bottom) in zip(frames, boxes.tolist(), strict=True):
            width, height = 2 * (right - left), 2 * (bottom - top)
            middle = ((left + right) / 2, (top + bottom) / 2 - (bottom - top) / 4)
            crops.append((sample_square(frame, Square(*middle, min(width, height)), 224) - mean) / std)
        return torch.cat(
            [self.network(torch.stack(crops[i : i + batch])) for i in range(0, len(crops), batch)]
        )


class ArcFace:
    """Who it is, by InsightFace's ArcFace (Deng et al. 2019), an ONNX file."""

    def __init__(self, path: Path) -> None:
        from onnxruntime import InferenceSession
        from onnxruntime.capi.onnxruntime_pybind11_state import (
            Fail,
            InvalidGraph,
            InvalidProtobuf,
            NoSuchFile,
        )

        try:
            self.session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except (Fail, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
            raise FD2TalkError(f"{path} cannot be read ({str(error)[:200]}); get it again.") from error

    @classmethod
    def load(cls, folder: Path) -> ArcFace:
        """Raises FD2TalkError when the file is missing or is no network."""
        return cls(ARCFACE.need(folder))

    def __call__(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Frames ``[F, 3, H, W]`` in 0..1 and MediaPipe's landmarks ``[F, 478, 2]`` in pixels to ``[F,
        512]``.
        """
        faces = (arcface_chips(frames, landmarks) * 255 - 127.5) / 127.5
        name = self.session.get_inputs()[0].name
        found = [self.session.run(None, {name: face[None].numpy().astype(np.float32)})[0] for face in faces]
        return torch.from_numpy(np.concatenate(found))


def arcface_chips(frames: Tensor, landmarks: Tensor, size: int = 112) -> Tensor:
    """Faces as ArcFace was trained on them, ``[F, 3, 112, 112]``: the similarity that brings five landmarks
    nearest to :data:`ARCFACE_POINTS` (Umeyama 1991).
    """
    right, left = landmarks[:, EYES[0]], landmarks[:, EYES[1]]
    places = torch.stack(
        [right, left, landmarks[:, NOSE], landmarks[:, MOUTH[0]], landmarks[:, MOUTH[1]]], dim=1
    )
    steps = torch.arange(size, dtype=torch.float32)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    targets = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    wanted = torch.tensor(ARCFACE_POINTS).expand(len(frames), -1, -1)
    turn, shift = similarity(wanted, places.float())
    pixels = targets @ turn.mT + shift[:, None]
    grid = (pixels + 0.5) * 2 / torch.tensor([frames.shape[-1], frames.shape[-2]]) - 1
    return F.grid_sample(frames, grid.reshape(-1, size, size, 2), align_corners=False)


def similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scale, turn and shift that bring points ``[n, m, 2]`` nearest to others: ``[n, 2, 2]``, ``[n, 2]``."""
    a, b = (points - points.mean(dim=1, keepdim=True) for points in (source, target))
    # in the plane a scaled turn is one complex number, whose least squares are a quotient
    spread = a.square().sum(dim=(1, 2)).clamp_min(1e-12)
    cosine = (a * b).sum(dim=(1, 2)) / spread
    sine = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(dim=1) / spread
    turn = torch.stack([torch.stack([cosine, -sine], dim=1), torch.stack([sine, cosine], dim=1)], dim=1)
    return turn, target.mean(dim=1) - (turn @ source.mean(dim=1)[..., None])[..., 0]
