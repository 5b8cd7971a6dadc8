"""``python -m fd2talk_core portrait.png speech.wav -o talking.mp4``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FD2TalkError
from .files import check_output
from .formats.defaults import MESH_FILES, VMC_PORT
from .frames.defaults import DEFAULT_DETAIL
from .marks.defaults import add_label_options
from .motion.defaults import (
    BETWEEN,
    LONGER_POLICIES,
    MISSING_POLICIES,
    NEUTRAL,
    REACH,
    SHORTER_POLICIES,
    STYLES,
)
from .terminal import run_command, say

if TYPE_CHECKING:
    from .pipeline import FD2TalkPipeline, MovingHead, TalkingVideo


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, whose options are those of :meth:`FD2TalkPipeline.__call__`."""
    parser = argparse.ArgumentParser(prog="python -m fd2talk_core", description="Make a portrait speak.")
    parser.add_argument(
        "image",
        type=Path,
        nargs="?",
        help="the portrait, a picture file; the video with --dub; may be left out with --mesh and --vmc",
    )
    parser.add_argument("audio", type=Path, nargs="?", help="the voice, a sound or video file")
    parser.add_argument(
        "--driving", type=Path, metavar="VIDEO", help="move as this video; its sound too, without a voice"
    )
    parser.add_argument(
        "--missing-faces", choices=MISSING_POLICIES, default="error", help="of the driving video"
    )
    parser.add_argument("--motion", type=Path, metavar="FILE", help="expression and pose from a file")
    parser.add_argument("--save-motion", metavar="FILE", help="write expression and pose to a file")
    parser.add_argument("-o", "--output", default="talking.mp4", help="the MP4 to write")
    parser.add_argument("--weights", default="tiny", help="a shipped set or a folder of checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--fps", type=float, help="frames per second, 1 to 120; that of the motion, or 25")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--motion-steps", type=int, help="sampling steps of the motion transformers")
    parser.add_argument("--frame-steps", type=int, help="sampling steps of the frames")
    parser.add_argument("--guidance", type=float, default=1.0, help="strength of the audio on the motion")
    parser.add_argument("--expression-intensity", type=float, default=1.0)
    parser.add_argument("--pose-intensity", type=float, default=1.0)
    parser.add_argument(
        "--style", default=NEUTRAL, metavar="MOOD", help=f"that the face speaks in: {', '.join(STYLES)}"
    )
    parser.add_argument("--style-strength", type=float, default=1.0, help="of that mood, 0 to 1")
    parser.add_argument("--motion-mode", choices=("relative", "absolute"), default="relative")
    parser.add_argument("--crop", dest="paste_back", action="store_false", help="give the square face crop")
    parser.add_argument("--detail", type=float, default=DEFAULT_DETAIL, help="of the portrait, 0 to 1")
    parser.add_argument("--eta", type=float, default=0.0, help="0 is DDIM, 1 is DDPM")
    parser.add_argument("--noise-mode", choices=("shared", "per_frame"), default="shared")
    parser.add_argument("--margin", type=float, default=1.0, help="room around the head in the crop")
    parser.add_argument("--size", type=int, help="side of the crop in pixels; the checkpoint's own")
    parser.add_argument("--face-index", type=int, default=0, help="which face, 0 is the largest")
    parser.add_argument("--no-face", choices=("error", "whole_image"), default="error")
    parser.add_argument(
        "--segment", metavar="I/N", help="make one of n parts, for python -m fd2talk_core.join"
    )
    add_label_options(parser)
    keys = parser.add_argument_group("lips by hand")
    keys.add_argument(
        "--lip-keys",
        type=Path,
        metavar="FILE",
        help="where the lips shall be at some moments: JSON, CSV, or a video whose lips are followed",
    )
    keys.add_argument(
        "--between-keys", choices=BETWEEN, default="voice", help="the voice's mouth, or a curve through keys"
    )
    keys.add_argument(
        "--key-reach", type=float, default=REACH, metavar="SECONDS", help="over which a key fades"
    )
    dubbing = parser.add_argument_group("another voice for a video")
    dubbing.add_argument("--dub", action="store_true", help="give the person in a video the new voice")
    dubbing.add_argument(
        "--longer-speech",
        choices=LONGER_POLICIES,
        default="loop",
        help="than the video: play it there and back",
    )
    dubbing.add_argument(
        "--shorter-speech", choices=SHORTER_POLICIES, default="cut", help="than the video: end with it"
    )
    dubbing.add_argument(
        "--original-sound", type=float, default=0.0, metavar="LEVEL", help="of the video underneath, 0 to 1"
    )
    dubbing.add_argument(
        "--painted",
        action="store_true",
        help="let the UNet paint the lower face, which a set must be trained for ('tiny' is not)",
    )
    meshes = parser.add_argument_group("a head of its own, in place of a video: VOICE --mesh OUT")
    meshes.add_argument(
        "--mesh",
        metavar="OUT",
        help="write an animated OUT.glb (or .usdc, .usda), whose blendshapes add up, or a folder OUT/ with a "
        "mesh file a frame, whose lids stop where they meet",
    )
    meshes.add_argument("--mesh-files", choices=MESH_FILES, default="ply", help="in the folder")
    meshes.add_argument(
        "--smoothing", type=float, default=0.0, help="of cheeks and neck, 0 to 1; lips and eyes stay"
    )
    meshes.add_argument(
        "--vmc",
        metavar="HOST[:PORT]",
        help=f"play it to VTuber software over the VMC protocol, port {VMC_PORT} if none is given",
    )
    given = parser.parse_args(arguments)
    alone = _without_video(vars(given))
    if alone and given.audio is None:
        # python -m fd2talk_core voice.wav --mesh head.glb
        given.image, given.audio = None, given.image
    if not alone and given.image is None:
        parser.error("a portrait is needed, or --mesh or --vmc with a voice")
    return given


def _without_video(options: dict[str, Any]) -> bool:
    return options["mesh"] is not None or options["vmc"] is not None


def main(arguments: list[str] | None = None) -> int:
    """Make the video; returns the exit status, see :func:`~fd2talk_core.terminal.run_command`."""
    options = vars(parse_arguments(arguments))
    bars: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage not in bars:
            for bar in bars.values():
                if bar.n == bar.total:  # or it would count the seconds of all that follows as its own
                    bar.close()
            bars[stage] = tqdm(total=total, desc=stage, unit="step")
        bars[stage].total = total
        bars[stage].update(done - bars[stage].n)

    def work() -> Path | str:
        try:
            return _make(options, progress)
        finally:
            # a bar writes itself once more when it is closed, and what went wrong should be read last
            for bar in bars.values():
                bar.close()

    return run_command(work)


def _make(options: dict[str, Any], progress: Callable[[str, int, int], None]) -> Path | str:
    output, save_as = options.pop("output"), options.pop("save_motion")
    weights, device = options.pop("weights"), options.pop("device")
    _check_mode(options | {"save_motion": save_as, "output": output})
    read = ("image", "audio", "driving", "motion", "lip_keys")
    inputs = [options[name] for name in read if options[name] is not None]
    if not _without_video(options):
        check_output(output, (".mp4",), inputs)
    from .formats.sequences import WRITERS, load_motion, save_motion
    from .pipeline import FD2TalkPipeline, check_mesh_output
    from .segments import parse_segment

    if options["segment"] is not None:
        options["segment"] = parse_segment(options["segment"])
    if options["mesh"] is not None:
        check_mesh_output(options["mesh"], inputs)
    if options["vmc"] is not None:
        options["vmc"] = _receiver(options["vmc"])
    if save_as is not None:
        check_output(save_as, tuple(WRITERS), inputs)
    if options["motion"] is not None:
        given = load_motion(options["motion"])
        parts = ("expression",) if options["dub"] else ("expression", "pose")
        options["motion"] = tuple(given.require(part) for part in parts)
    pipeline = FD2TalkPipeline.from_pretrained(weights, device=device)
    if options["dub"]:
        return _dub(pipeline, options, progress).save(output)
    made: MovingHead | TalkingVideo
    written: Path | str
    if _without_video(options):
        made = pipeline.animate(**{name: options[name] for name in _OF_A_HEAD}, progress=progress)
        motion = (made.expression, made.pose)
        written = _give(made, options, progress)
    else:
        taken = {name: options[name] for name in options if name not in (*_DUBBING, *_HEAD)}
        made = pipeline(taken.pop("image"), taken.pop("audio"), progress=progress, **taken)
        motion = made.motion
        written = made.save(output)
    if made.report:
        say(made.report, sys.stderr)
    if save_as is not None:
        assert motion is not None  # a pipeline's video tells what moves it
        save_motion(save_as, *motion)
    return written


def _give(head: MovingHead, options: dict[str, Any], progress: Callable[[str, int, int], None]) -> Path | str:
    """Write a head's meshes, stream it, or both."""
    told: Path | str = ""
    if options["mesh"] is not None:
        given = {"files": options["mesh_files"], "smoothing": options["smoothing"]}
        told = head.save(options["mesh"], **given, progress=progress)
    if options["vmc"] is not None:
        sent = head.stream(*options["vmc"], progress=progress)
        told = told or f"{sent} of {head.expression.num_frames} frames were sent."
    return told


_DUBBING = ("dub", "longer_speech", "shorter_speech", "original_sound", "painted")
_HEAD = ("mesh", "mesh_files", "smoothing", "vmc")
_LABEL = ("label", "label_corner", "label_size")
_OF_THE_WORDS = (
    "image", "audio", "motion", "lip_keys", "between_keys", "key_reach", "seed", "motion_steps", "guidance",
    "expression_intensity", "style", "style_strength", "face_index",
)  # fmt: skip
_OF_A_HEAD = (*_OF_THE_WORDS, "driving", "missing_faces", "fps", "pose_intensity")


def _receiver(address: str) -> tuple[str, int]:
    """``HOST`` or ``HOST:PORT``."""
    host, _, port = address.partition(":")
    if not host or (port and not (port.isdecimal() and 0 < int(port) < 1 << 16)):
        raise FD2TalkError(f"The VMC receiver is {address!r}, but HOST or HOST:PORT is needed.")
    return host, int(port or VMC_PORT)


def _check_mode(options: dict[str, Any]) -> None:
    """Refuse what another mode takes."""
    if options["dub"] and _without_video(options):
        raise FD2TalkError("--dub makes a video, --mesh and --vmc make none: give one of them.")
    usual = vars(parse_arguments(["portrait.png"]))
    given = [
        name for name, value in options.items() if value != usual[name] and name not in ("image", "audio")
    ]
    for flag, on, own, shared in (
        ("--dub", options["dub"], _DUBBING, (*_OF_THE_WORDS, *_LABEL, "output")),
        ("--mesh or --vmc", _without_video(options), _HEAD, (*_OF_A_HEAD, "save_motion")),
    ):
        wrong = [name for name in given if (name not in (*own, *shared) if on else name in own)]
        if wrong:
            flags = ", ".join(
                f"--{'crop' if name == 'paste_back' else name.replace('_', '-')}" for name in wrong
            )
            raise FD2TalkError(f"{flags} {'cannot' if on else 'can only'} be used with {flag}.")
    if options["dub"] and options["audio"] is None:
        raise FD2TalkError("A voice is needed to dub a video: give its sound file after the video.")


def _dub(
    pipeline: FD2TalkPipeline, options: dict[str, Any], progress: Callable[[str, int, int], None]
) -> TalkingVideo:
    taken = {name: options[name] for name in (*_OF_THE_WORDS, *_LABEL, *_DUBBING[1:])}
    if taken["motion"] is not None:
        taken["motion"] = taken["motion"][0]
    video = pipeline.dub(taken.pop("image"), taken.pop("audio"), progress=progress, **taken)
    say(video.report, sys.stderr)
    return video


if __name__ == "__main__":
    sys.exit(main())
