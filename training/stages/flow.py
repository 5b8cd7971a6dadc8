"""DAWN's flow diffusion learns how a portrait's latent moves through a clip (DAWN Sec. 3.3, Eq. 6, 7).

What it is shown are the flows and blocking maps that the latent flow generator reads off a video's frames.
First short clips that start from their first frame, then longer ones of random length, from any frame of the
video (Sec. 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.checks import check_choice, check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, apply_pose
from fd2talk_core.frames.correspondence import SMALLEST_VIEW, PortraitView
from fd2talk_core.frames.flow_denoising import face_mask, states_of
from fd2talk_core.imaging import averaged
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fd2talk_core.networks.diffusion import diffusion_loss, make_scheduler, sampling_timesteps
from fd2talk_core.networks.latent_flow import PLANES, FlowPredictor, LatentFlowUNet, moved_by_flow

from ..drawing import save_grid
from ..held_out import HeldOutVideo, VideoMeasures
from ..measures import psnr
from ..regions import mouth_and_eyes
from ..sources import PictureSet, VideoSet, face_model_of, load_videos, need_weights
from ..trainer import Stage, draw_timestep, seeded_network, stage_main, stage_options, subsection
from .conditions import load_autoencoder
from .latent_flow import NETWORK, encoded

NOISE_MODES = ("shared", "per_frame")


@dataclass(frozen=True)
class FlowOptions:
    """The section ``flow`` of a configuration.

    Attributes:
        frames: length of the clips of the first stage, whose portrait is their first frame (K' of DAWN).
        longer_from, longer_to: lengths between which that of each batch is drawn in the second stage, where
            the portrait is any frame of the video (K_min, K_max); 0 for no second stage.
        longer_after: samples before it.
        hears: whether the network is given the sound's features and, of the motion, pose and lids alone, as
            in DAWN; without, all of {β, p}.
        lip_weight: how much more the error counts on the lips (w_lip of Eq. 7).
        noise_mode: one noise map ``shared`` by all frames, as the frames of what ships have it, or one
            ``per_frame``, as in DAWN.
        steps: sampling steps that the checkpoint recommends and the validation takes.
        visited: part of the timesteps drawn from those that sampling visits; the rest are uniform.
        held_out_frames: of each held-out video, what the validation makes.
        held_out_videos: how many it makes.
    """

    frames: int = 20
    longer_from: int = 0
    longer_to: int = 0
    longer_after: int = 0
    hears: bool = True
    lip_weight: float = 1.0
    noise_mode: str = "shared"
    steps: int = 4
    visited: float = 0.5
    held_out_frames: int = 40
    held_out_videos: int = 8

    def __post_init__(self) -> None:
        check_choice(self.noise_mode, "noise_mode", NOISE_MODES)
        check_whole(self.frames, "frames", 2)
        check_whole(self.longer_after, "longer_after", 0)
        if self.longer_to and not 2 <= self.longer_from <= self.longer_to:
            raise FD2TalkError(
                f"Longer clips have {self.longer_from} to {self.longer_to} frames, but two numbers in order, "
                "at least 2, are needed."
            )


class FlowStage(Stage):
    """Eq. 7 over clips of talking videos.

    Args:
        network: is trained, and written as ``unet``.
        predictor: 𝓟, frozen; says what the frames' flows are.
        autoencoder: frozen; decodes for the validation.
        videos, held_out: with audio features.
        latents: of the videos' frames, ``[N, d, h, w]``.
    """

    name, score = "flow", "psnr"

    def __init__(
        self,
        network: LatentFlowUNet,
        predictor: FlowPredictor,
        autoencoder: FrameAutoencoder,
        videos: VideoSet,
        held_out: VideoSet,
        latents: Tensor,
        face_model: FaceModel,
        options: FlowOptions,
        seed: int,
    ) -> None:
        super().__init__({"unet": network})
        self.predictor = predictor.requires_grad_(False)
        self.autoencoder = autoencoder.requires_grad_(False)
        self.videos, self.held_out, self.latents = videos, held_out, latents
        self.face_model, self.options = face_model, options
        self.first = {video.clip.name: video.frames.start for video in videos.videos}
        size, pictures = latents.shape[-1], videos.pictures
        self.faces, self.lips = masks_of(pictures, face_model, size)
        coefficients = torch.cat([pictures.expression, pictures.pose], dim=1)
        self.states = states_of(coefficients, network, face_model)
        self.windows = videos.speech.windows(options.frames)
        self.scheduler = make_scheduler()
        self.visited = torch.tensor(sampling_timesteps(options.steps)[:-1])
        self.shown: list[tuple] | None = None
        self._set_statistics(seed)

    @torch.no_grad()
    def _set_statistics(self, seed: int, count: int = 256) -> None:
        """Of z^m over pairs of frames of the videos."""
        generator = torch.Generator().manual_seed(seed)
        pairs = [draw_frames(self.videos, generator) for _ in range(count)]
        planes = torch.cat(
            [
                self.predictor(self.latents[source].float()[None], self.latents[frame].float()[None])
                for source, frame in pairs
            ]
        )
        values = planes.transpose(0, 1).flatten(1)
        self.networks["unet"].set_statistics(values.mean(dim=1), values.std(dim=1))

    def is_longer(self, index: int) -> bool:
        """Whether a sample is of the second stage of Sec. 3.5."""
        return bool(self.options.longer_to) and index >= self.options.longer_after

    def batch(
        self, indices: Sequence[int], generator_of: Callable[[int], torch.Generator]
    ) -> dict[str, Tensor]:
        frames = self.options.frames
        if self.is_longer(indices[0]):
            lengths = (self.options.longer_from, self.options.longer_to + 1)
            frames = int(torch.randint(*lengths, (), generator=generator_of(indices[0])))
        if self.windows.frames != frames:
            self.windows = self.videos.speech.windows(frames)
        return super().batch(indices, generator_of)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        clip, start = self.windows.draw(generator)
        frames, first = self.windows.frames, self.first[clip.name]
        source = first + start
        if self.is_longer(index):
            source = first + int(torch.randint(clip.num_frames, (), generator=generator))
        part = slice(first + start, first + start + frames)
        shape = (PLANES, *self.latents.shape[-2:])
        if self.options.noise_mode == "shared":
            noise = torch.randn(shape, generator=generator).expand(frames, *shape)
        else:
            noise = torch.randn((frames, *shape), generator=generator)
        sample = {
            "frames": self.latents[part].float(),
            "source": self.latents[source].float(),
            "face": self.faces[source].float(),
            "change": self.states[part] - self.states[source],
            "lips": self.lips[part].float(),
            "noise": noise,
            "timestep": draw_timestep(self.visited, self.options.visited, generator),
        }
        if self.networks["unet"].hears:
            sample["heard"] = clip.features[start : start + frames].float()
        return sample

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, frames = self.networks["unet"], batch["frames"]
        with torch.no_grad():
            source = batch["source"][:, None].expand_as(frames)
            planes = self.predictor(source.flatten(0, 1), frames.flatten(0, 1)).float()
            clean = network.normalize(planes).unflatten(0, frames.shape[:2])

        def denoise(noisy: Tensor, timestep: Tensor) -> Tensor:
            return network(
                noisy, timestep, batch["change"], batch["source"], batch["face"], batch.get("heard")
            )

        error, guess, _ = diffusion_loss(
            denoise,
            clean,
            scheduler=self.scheduler,
            timesteps=batch["timestep"],
            noise=batch["noise"],
            weights=1 + self.options.lip_weight * batch["lips"],
            reduction="none",
        )
        flow, blocking = (guess - clean).detach().square().split([2, 1], dim=2)
        return {"loss": error.mean(), "flow_error": flow.mean(), "blocking_error": blocking.mean()}

    def _held_out(self) -> list[tuple]:
        """The videos that are made, their portraits, and how near decoding their own flows comes."""
        if self.shown is None:
            options, self.shown = self.options, []
            for number in range(min(options.held_out_videos, len(self.held_out.videos))):
                video, reference = HeldOutVideo.of(
                    self.held_out, number, options.held_out_frames, self.autoencoder, self.face_model
                )
                latent = reference.latent[None].to(self.autoencoder.device)
                best = []
                for some in video.truth.split(8):
                    planes = self.predictor(
                        latent.expand(len(some), -1, -1, -1), self.autoencoder.encode(some.to(latent))
                    )
                    best.append(self.autoencoder.decode(moved_by_flow(latent, planes), latent).cpu())
                self.shown.append((video, reference, torch.cat(best)))
        return self.shown

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        """``best_psnr`` is what the true flows give, through the same decoder."""
        measures: list[VideoMeasures] = []
        best, copied, rows = [], [], []
        for video, reference, known in self._held_out():
            made = video.made_by(
                self.networks["unet"], self.autoencoder, reference, self.face_model, detail=0
            )
            measures.append(video.measure(made))
            best.append(psnr(known, video.truth, video.face))
            copied.append(psnr(video.truth[:1].expand_as(made), video.truth, video.face))
            shown = torch.linspace(0, len(made) - 1, 5).round().long()
            rows += [video.truth[shown], made[shown]]
        if folder is not None:
            save_grid(rows[:12], folder / "videos.png")
        names = [field.name for field in fields(VideoMeasures)]
        means = {name: sum(getattr(one, name) for one in measures) / len(measures) for name in names}
        return {
            **means,
            "best_psnr": float(torch.cat(best).mean()),
            "copy_psnr": float(torch.cat(copied).mean()),
        }

    def export(self, weights: Path, trained_on: str) -> None:
        info = CheckpointInfo(
            face_model=self.face_model.name,
            native_fps=self.videos.speech.fps,
            resolution=self.videos.pictures.size,
            steps=self.options.steps,
            overlay=False,
            trained_on=trained_on,
        )
        save_checkpoint(self.networks["unet"], weights / "unet.safetensors", info)


def draw_frames(videos: VideoSet, generator: torch.Generator) -> tuple[int, int]:
    """The numbers of two frames of one video."""
    frames = videos.videos[int(torch.randint(len(videos.videos), (), generator=generator))].frames
    first, second = torch.randint(len(frames), (2,), generator=generator).tolist()
    return frames[first], frames[second]


@torch.no_grad()
def masks_of(
    pictures: PictureSet, face_model: FaceModel, size: int, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Where pictures show face and lips, ``[N, 1, size, size]`` float16 in 0..1 each."""
    faces, lips = [], []
    for numbers in torch.arange(len(pictures)).split(batch):
        labels = (pictures.identity[numbers], pictures.expression[numbers], pictures.pose[numbers])
        posed = apply_pose(face_model(*labels[:2]), labels[2])
        view = PortraitView.of_mesh(face_model, posed, labels[2], SMALLEST_VIEW)
        faces.append(face_mask(view, size).half())
        mouths, _ = mouth_and_eyes(face_model, *labels, 4 * size)
        lips.append(averaged(mouths.float(), size).half())
    return torch.cat(faces), torch.cat(lips)


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[FlowStage, str]:
    """The stage from its configuration, a data folder and the networks of a weights folder."""
    options = stage_options(section, FlowOptions())
    face_model = face_model_of(section)
    autoencoder = load_autoencoder(weights)
    predictor = load_checkpoint(need_weights(weights, NETWORK, "training.latent_flow"), FlowPredictor)
    train, held_out, words = load_videos(data, face_model)
    audio_dim = 0
    if options.hears:
        encoder = AudioEncoder.from_pretrained(
            need_weights(weights, "audio_encoder", "training.audio_encoder")
        )
        train, held_out = (videos.with_features(encoder, folder) for videos in (train, held_out))
        audio_dim = encoder.feature_dim
    latents = encoded(train.pictures, autoencoder, folder / "latents")
    arguments = {
        **subsection(section, "network"),
        "latent_channels": autoencoder.config.latent_channels,
        "sample_size": latents.shape[-1],
        "expression_dim": face_model.expression_dim,
        "states": "pose_and_blinks" if options.hears else "motion",
        "audio_dim": audio_dim,
    }
    network = seeded_network(LatentFlowUNet, arguments, seed, "flow")
    stage = FlowStage(network, predictor, autoencoder, train, held_out, latents, face_model, options, seed)
    return stage, words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("flow", build, __doc__.splitlines()[0], arguments)
