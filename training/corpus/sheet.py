"""Contact sheets: ``python -m training.corpus.sheet DIR -o heads.png`` (people), ``--clip`` (a clip's
curves).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.files import writing
from fd2talk_core.imaging import open_picture
from fd2talk_core.terminal import run_command

from .motion import FPS
from .shards import read_samples

_CURVES = ("jawOpen", "mouthPucker", "mouthFunnel", "mouthPressLeft", "mouthRollLower", "mouthStretchLeft")


def heads(folder: Path, columns: int = 8, rows: int = 8, cell: int = 160) -> Image.Image:
    """One picture of each of the first ``columns * rows`` people.

    Raises:
        FD2TalkError: when the folder has no people.
    """
    sheet = Image.new("RGB", (columns * cell, rows * cell))
    shown = 0
    for path in sorted(folder.glob("frames-*.tar")):
        for _, members in read_samples(path):
            if shown == columns * rows:
                return sheet
            names = sorted(name for name in members if name.endswith(".jpg"))
            with open_picture(io.BytesIO(members[names[shown % len(names)]])) as picture:
                small = picture.resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(small, (shown % columns * cell, shown // columns * cell))
            shown += 1
    if not shown:
        raise FD2TalkError(f"{folder} holds no frames-*.tar; make some with python -m training.corpus.")
    return sheet


def clip(folder: Path, output: Path, number: int = 0) -> None:
    """Sound, phonemes, mouth, eyes and head of one clip, and frames of it where there is a video.

    Raises:
        FD2TalkError: when the folder has no clip of that number.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from .speech import read_wav

    kind = "videos" if list(folder.glob("videos-*.tar")) else "clips"
    samples = [sample for path in sorted(folder.glob(f"{kind}-*.tar")) for sample in read_samples(path)]
    if number >= len(samples):
        raise FD2TalkError(f"{folder} holds {len(samples)} {kind}, but number {number} was asked for.")
    key, members = samples[number]
    about, arrays = json.loads(members["json"]), load(members["safetensors"])
    waveform, sample_rate = read_wav(members["wav"])
    times = (np.arange(len(arrays["expression"])) + 0.5) / FPS
    pictures = sorted(
        (name for name in members if name.endswith(".jpg")), key=lambda name: int(name.split(".")[0])
    )
    figure, axes = plt.subplots(5 if pictures else 4, 1, figsize=(16, 11), constrained_layout=True)
    if pictures:
        shown = [pictures[i] for i in np.linspace(0, len(pictures) - 1, 12).astype(int)]
        axes[0].imshow(np.concatenate([np.asarray(open_picture(io.BytesIO(members[n]))) for n in shown], 1))
        axes[0].axis("off")
    sound, mouth, eyes, head = axes[-4:]
    sound.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.4)
    for name, start, end in about["phonemes"]:
        sound.axvline(start, color="tab:red", linewidth=0.4)
        sound.text((start + end) / 2, 0.9 * np.abs(waveform).max(), name, ha="center", fontsize=7)
    sound.set_title(f"{key}: {about['text']} ({about['engine']} {about['speaker']})", fontsize=9)
    for name in _CURVES:
        mouth.plot(times, arrays["expression"][:, ARKIT_NAMES.index(name)], label=name)
    for name in ("eyeBlinkLeft", "eyeLookOutLeft", "eyeLookUpLeft", "browInnerUp"):
        eyes.plot(times, arrays["expression"][:, ARKIT_NAMES.index(name)], label=name)
    for column, name in enumerate(("pitch", "yaw", "roll")):
        head.plot(times, np.rad2deg(arrays["pose"][:, column]), label=f"{name} (°)")
    for axis in (sound, mouth, eyes, head):
        axis.set_xlim(0, len(waveform) / sample_rate)
    for axis in (mouth, eyes, head):
        axis.legend(loc="upper right", fontsize=7)
    figure.savefig(output, dpi=80)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.corpus.sheet", description="Look at a corpus.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--clip", type=int, help="draw this clip's curves instead of people")
    options = parser.parse_args()

    def work() -> None:
        with writing(options.output):
            options.output.parent.mkdir(parents=True, exist_ok=True)
        if options.clip is None:
            heads(options.folder).save(options.output, optimize=True)
        else:
            clip(options.folder, options.output, options.clip)

    return run_command(work, prefix="error: ")


if __name__ == "__main__":
    sys.exit(main())
