"""What the pixel mark stands, measured on a video: attack by attack, with its cost and its false alarms."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..formats.video import VideoWriter
from ..formats.video_frames import VideoFrames
from .detection import MarkFinding, find_mark, whole_picture_chances
from .payload import MarkPayload
from .pixels import CHIPS, PixelMark

Attack = Callable[[Tensor, Path], Tensor]
"""Frames ``[F, H, W, 3]`` in 0..1 and a folder to work in, to frames as they are after the attack."""


def compressed(crf: int) -> Attack:
    """H.264 at a constant rate factor."""

    def attack(frames: Tensor, folder: Path) -> Tensor:
        path = folder / "attack.mp4"
        with VideoWriter(path, 25, crf=crf) as writer:
            writer.write(frames)
        return torch.stack([frame.float() / 255 for frame in VideoFrames(path)])

    return attack


def resized(factor: float) -> Attack:
    """Smaller or larger, as a player or a platform does it."""

    def attack(frames: Tensor, folder: Path) -> Tensor:
        size = [max(round(side * factor / 2), 1) * 2 for side in frames.shape[1:3]]
        planes = F.interpolate(
            frames.movedim(-1, 1), size=size, mode="bilinear", antialias=factor < 1, align_corners=False
        )
        return planes.movedim(1, -1)

    return attack


def cropped(down: float, across: float, top: float = 0.5, left: float = 0.5) -> Attack:
    """A part of the picture, given as shares of its sides; ``top`` and ``left`` say where, 0..1."""

    def attack(frames: Tensor, folder: Path) -> Tensor:
        height, width = (round(n * s) for n, s in zip(frames.shape[1:3], (down, across), strict=True))
        y, x = round((frames.shape[1] - height) * top), round((frames.shape[2] - width) * left)
        return frames[:, y : y + height, x : x + width]

    return attack


def brightened(frames: Tensor, folder: Path) -> Tensor:
    """Contrast, brightness and saturation changed by about a fifth."""
    grey = frames.mean(dim=-1, keepdim=True)
    return ((grey + (frames - grey) * 0.8) ** 0.9 * 0.9 + 0.08).clamp(0, 1)


def turned(degrees: float) -> Attack:
    """Turned about the centre."""

    def attack(frames: Tensor, folder: Path) -> Tensor:
        angle, (height, width) = math.radians(degrees), frames.shape[1:3]
        along, skew = math.cos(angle), math.sin(angle)
        matrix = torch.tensor([[along, -skew * height / width, 0], [skew * width / height, along, 0]])
        planes = frames.movedim(-1, 1)
        grid = F.affine_grid(matrix.expand(len(frames), 2, 3), list(planes.shape), align_corners=False)
        moved = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
        return moved.movedim(1, -1)

    return attack


def in_turn(*attacks: Attack) -> Attack:
    """One after the other."""

    def attack(frames: Tensor, folder: Path) -> Tensor:
        for each in attacks:
            frames = each(frames, folder)
        return frames

    return attack


ATTACKS: dict[str, Attack] = {
    "none, 8 bits": lambda frames, folder: (frames * 255).round() / 255,
    "H.264 CRF 18": compressed(18),
    "H.264 CRF 23": compressed(23),
    "H.264 CRF 28": compressed(28),
    "resized to 0.5, CRF 18": in_turn(resized(0.5), compressed(18)),
    "resized to 0.75, CRF 18": in_turn(resized(0.75), compressed(18)),
    "resized to 1.5, CRF 18": in_turn(resized(1.5), compressed(18)),
    "resized to 2, CRF 18": in_turn(resized(2.0), compressed(18)),
    "cropped to 70 %, centre, CRF 18": in_turn(cropped(0.7, 0.7), compressed(18)),
    "cropped to 70 %, corner, CRF 18": in_turn(cropped(0.7, 0.7, 0.0, 1.0), compressed(18)),
    "cropped to 72 % by 90 %, CRF 18": in_turn(cropped(0.9, 0.72, 0.3, 0.1), compressed(18)),
    "cropped to 80 %, CRF 23": in_turn(cropped(0.8, 0.8, 0.2, 0.6), compressed(23)),
    "CRF 23, then CRF 26": in_turn(compressed(23), compressed(26)),
    "colours changed, CRF 23": in_turn(brightened, compressed(23)),
}
"""What the mark is to stand."""
HARDER: dict[str, Attack] = {
    "cropped to 70 %, CRF 28": in_turn(cropped(0.7, 0.7), compressed(28)),
    "resized to 0.75, CRF 26": in_turn(resized(0.75), compressed(26)),
    "resized to 0.5, CRF 28": in_turn(resized(0.5), compressed(28)),
    "cropped to 50 %": cropped(0.5, 0.5),
    "turned by 2 degrees": turned(2.0),
    "mirrored": lambda frames, folder: frames.flip(2),
}
"""Several at once, and some that the search does not look for: where the mark ends."""

UNMARKED = 200
"""Pictures without a mark that are searched as they stand; a few of them are searched in every place."""
SEARCHED_WHOLE = 6


def run(video: Path, num_frames: int, tell: Callable[[str], None]) -> None:
    """Mark the first frames of an unmarked video, attack them, and tell a table.

    Raises:
        FD2TalkError: when the video cannot be read, bears a mark already, or no frames are asked for.
    """
    if num_frames < 1:
        raise FD2TalkError(f"frames is {num_frames}, but at least 1 is needed.")
    plain = torch.stack([*islice(VideoFrames(video), num_frames)]).float() / 255
    if find_mark(plain).payload is not None:
        raise FD2TalkError(f"{video.name} bears a mark already; give a video without one.")
    payload = MarkPayload.parse("fd2a1c0ffee")
    mark = PixelMark(payload)
    began = time.perf_counter()
    mark.add_to(plain[:1])
    prepared = time.perf_counter()
    marked = mark.add_to(plain)
    ended = time.perf_counter()
    levels = [(frames * 255).round() for frames in (plain, marked)]
    error = (levels[0] - levels[1]).square().mean(dim=(1, 2, 3)).sqrt()
    psnr = 20 * torch.log10(255 / error)
    added = (marked - plain).masked_fill((marked <= 0) | (marked >= 1), torch.nan)
    flicker = float((added - added.nanmean(dim=0)).abs().nan_to_num().max()) * 255
    height, width = plain.shape[1:3]
    tell(f"{video.name}: {len(plain)} frames of {width} by {height}")
    tell(f"PSNR: {psnr.mean():.2f} dB, the lowest frame {psnr.min():.2f} dB")
    tell(f"Change of the mark between frames, where nothing is clipped: {flicker:.4f} levels of 255")
    tell(
        f"Time: {1000 * (prepared - began):.0f} ms once a clip, "
        f"{1000 * (ended - prepared) / len(plain):.2f} ms a frame"
    )
    tell("")
    for title, attacks in (("attack", ATTACKS), ("beyond what is asked", HARDER)):
        tell(f"{title:34s} {'id read':8s} {'score':>6s}  chance")
        for name, attack in attacks.items():
            with tempfile.TemporaryDirectory() as folder:
                found = find_mark(attack(marked, Path(folder)))
            tell(f"{name:34s} {_told(found, payload):8s} {found.score:6.1f}  {found.false_alarm:.0e}")
        tell("")
    _false_alarms(plain, tell)


def _told(found: MarkFinding, payload: MarkPayload) -> str:
    if found.payload is not None:
        return "yes" if found.payload == payload else "WRONG"
    return "no, seen" if found.found else "no"


def _false_alarms(plain: Tensor, tell: Callable[[str], None]) -> None:
    """How often unmarked pictures reach a probability, beside that probability."""
    generator = torch.Generator().manual_seed(0)
    chances = []
    whole = []
    for index in range(UNMARKED):
        shares = 0.6 + 0.4 * torch.rand(4, generator=generator)
        part = cropped(*shares[:2].tolist(), *(2.5 * (shares[2:] - 0.6)).tolist())
        picture = part(plain[index * len(plain) // UNMARKED][None], Path())
        picture = picture.flip(2) if index % 2 else picture
        chances += whole_picture_chances(picture[0])
        if index * SEARCHED_WHOLE // UNMARKED != (index - 1) * SEARCHED_WHOLE // UNMARKED:
            whole.append(find_mark(picture))
    shown = torch.tensor(chances)
    tell(f"False alarms: {UNMARKED} pictures cut from the unmarked video, searched by {len(CHIPS)} grids")
    for level in (0.1, 0.01, 0.001):
        tell(f"  chance under {level:g}: {int((shown < level).sum())} of {len(shown)}")
    if whole:
        tell(
            f"  searched in every place: {len(whole)}, found {sum(found.found for found in whole)}, "
            f"highest score {max(found.score for found in whole):.1f}"
        )
