"""``python scripts/demo.py``: install what is needed, start ComfyUI, make the example portrait speak.

The result is ``talking_portrait.mp4`` beside the README. With ``--serve`` the host stays open, to drag
workflows into its page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.comfyui import ComfyUIServer  # noqa: E402
from scripts.environment import ROOT, prepare, say  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/demo.py", description=__doc__)
    parser.add_argument("--portrait", type=Path, help="a picture file, in place of the example")
    parser.add_argument("--voice", type=Path, help="a sound file, in place of the example")
    parser.add_argument("--serve", action="store_true", help="keep ComfyUI open afterwards")
    parser.add_argument("--port", type=int, default=8188, help="where its page is, with --serve")
    options = parser.parse_args()

    python = prepare()
    say("starting ComfyUI")
    with ComfyUIServer(
        ROOT / "demo" / "comfyui", python, port=options.port if options.serve else None
    ) as server:
        graph = json.loads((ROOT / "workflows" / "api" / "talking_portrait.json").read_text(encoding="utf-8"))
        for node in graph.values():
            for kind, name, file in (
                ("LoadImage", "image", options.portrait),
                ("LoadAudioWav2Vec", "audio_file", options.voice),
            ):
                if file and node["class_type"] == kind:
                    node["inputs"][name] = Path(shutil.copy(file, server.folder("input"))).name
        say("making the video")
        outputs = server.run(graph, seconds=3600)
        # the motion preview is a video too
        (saver,) = (name for name, node in graph.items() if node["class_type"] == "SaveVideo")
        saved = server.path_of(outputs[saver]["images"][0])
        target = Path(shutil.copy(saved, ROOT / "talking_portrait.mp4"))
        say(f"done: {target}")
        if options.serve:
            say(f"ComfyUI is open at {server.url}; drag in workflows/talking_portrait.json. Ctrl+C ends it.")
            try:
                server.wait_until_closed()
            except KeyboardInterrupt:
                say("closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
