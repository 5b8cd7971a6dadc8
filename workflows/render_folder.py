#!/usr/bin/env python3
"""One portrait, a folder of voices, one MP4 each, by a running ComfyUI.

    python workflows/render_folder.py portrait.png voices/ -o videos/ --host http://127.0.0.1:8188

Several hosts share the voices: give --host once for each. The portrait is uploaded to each once, and encoded
once. Videos that are there already are left alone, so a batch that was cut short goes on where it stopped; a
voice that fails is told of at the end, and the others are made.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)

from client import ClientError, ComfyUI, ended, load_graph, set_inputs, show  # noqa: E402

DEFAULT_HOST = "http://127.0.0.1:8188"
SOUNDS = {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".mkv", ".mov", ".webm"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("portrait", type=Path, help="a picture file")
    parser.add_argument("voices", type=Path, help="a folder of sound or video files")
    parser.add_argument("-o", "--output", type=Path, default=Path("videos"), help="the folder to write into")
    parser.add_argument("--host", action="append", help="address of a running ComfyUI, once for each")
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
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    failed: dict[Path, ClientError] = {}
    for voice, target in targets.items():
        if target.exists() and not options.again:
            print(f"{target} (was there)")
        else:
            todo.put(voice)

    def work(comfyui: ComfyUI, graph: dict) -> None:
        """Make videos by one host for as long as there is one to be made."""
        while True:
            try:
                voice = todo.get_nowait()
            except queue.Empty:
                return
            try:
                set_inputs(graph, "LoadAudioWav2Vec", audio_file=comfyui.upload(voice))
                set_inputs(graph, "SaveVideo", filename_prefix=f"fd2talk/{voice.stem}")
                print(comfyui.render(graph, targets[voice], show), flush=True)
            except ClientError as error:
                failed[voice] = error

    workers = []
    for host in options.host or [DEFAULT_HOST]:
        comfyui, graph = ComfyUI(host), load_graph(options.graph)
        set_inputs(graph, "LoadImage", image=comfyui.upload(options.portrait))
        workers.append(threading.Thread(target=work, args=(comfyui, graph), daemon=True))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for voice, error in failed.items():
        print(f"{voice}: {error}", file=sys.stderr)
    return 1 if failed or not todo.empty() else 0


if __name__ == "__main__":
    sys.exit(main())
