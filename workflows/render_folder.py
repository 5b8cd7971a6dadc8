#!/usr/bin/env python3
"""One portrait, a folder of voices, one MP4 each, by a running ComfyUI.

    python workflows/render_folder.py portrait.png voices/ -o videos/ --host http://127.0.0.1:8188

The portrait is uploaded and encoded once. Videos that are there already are left alone, so a batch that was
cut short goes on where it stopped; a voice that fails is told of at the end, and the others are made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)

from client import ClientError, ComfyUI, ended, load_graph, set_inputs, show  # noqa: E402

SOUNDS = {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".mkv", ".mov", ".webm"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("portrait", type=Path, help="a picture file")
    parser.add_argument("voices", type=Path, help="a folder of sound or video files")
    parser.add_argument("-o", "--output", type=Path, default=Path("videos"), help="the folder to write into")
    parser.add_argument("--host", default="http://127.0.0.1:8188", help="address of the running ComfyUI")
    parser.add_argument("--graph", default="batch_of_voices", help="a name in workflows/api, or a .json file")
    parser.add_argument("--again", action="store_true", help="make videos anew that are there already")
    return ended(_render, parser.parse_args())


def _render(options: argparse.Namespace) -> int:
    voices = sorted(file for file in options.voices.glob("*") if file.suffix.lower() in SOUNDS)
    if not voices:
        print(f"There is no sound file in {options.voices}.", file=sys.stderr)
        return 1
    # two recordings that differ in their ending alone would be written to one video
    stems = [voice.stem for voice in voices]
    targets = {
        voice: options.output / (f"{voice.stem}.mp4" if stems.count(voice.stem) == 1 else f"{voice.name}.mp4")
        for voice in voices
    }
    comfyui, failed = ComfyUI(options.host), {}
    graph = load_graph(options.graph)
    set_inputs(graph, "LoadImage", image=comfyui.upload(options.portrait))
    for voice, target in targets.items():
        if target.exists() and not options.again:
            print(f"{target} (was there)")
            continue
        try:
            set_inputs(graph, "LoadAudioWav2Vec", audio_file=comfyui.upload(voice))
            set_inputs(graph, "SaveVideo", filename_prefix=f"fd2talk/{voice.stem}")
            print(comfyui.render(graph, target, show), flush=True)
        except ClientError as error:
            failed[voice] = error
    for voice, error in failed.items():
        print(f"{voice}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
