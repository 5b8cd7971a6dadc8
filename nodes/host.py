"""What the nodes need of ComfyUI, in one place: folders, model management, progress, interruption, previews.

The node classes know the host's schema; all else about it is known here alone, and the core knows none of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import comfy.model_management as management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.v0_0_2 import InputImpl, io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer
from torch import Tensor, nn

from ..fd2talk_core import configs
from ..fd2talk_core.audio.encoder import AudioEncoder
from ..fd2talk_core.audio.reading import has_sound, read_audio
from ..fd2talk_core.checks import check_tensor, check_type, shown
from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.face.landmarks import FaceLandmarker
from ..fd2talk_core.face.model import FaceModel, default_face_model
from ..fd2talk_core.files import reason_of, replacing
from ..fd2talk_core.formats.video_frames import VideoFrames
from ..fd2talk_core.frames.footage import Footage, PictureFootage
from ..fd2talk_core.frames.reference import Reference, latent_preview
from ..fd2talk_core.marks.tags import read_tags
from ..fd2talk_core.networks.checkpoint import find_checkpoint
from ..fd2talk_core.waveforms import check_sample_rate

MODELS = "fd2talk"
"""Name of our folder under ``models/`` and in ``extra_model_paths.yaml``; one folder a network lies in it."""
SHIPPED_SET = "tiny"
WORKING_MEMORY = {"unet": 2 << 30, "autoencoder": 2 << 30}
"""Bytes that the host is asked to free beside the weights; the core fits its batches to what there is."""
EXAMPLES = Path(__file__).resolve().parent.parent / "example_inputs"
EXAMPLE_PREFIX = "fd2talk_"
"""Before an example's name in the host's input folder, where it lies beside the user's own files."""
PREVIEW_SECONDS = 0.25
PREVIEW_SIZE = 512


# Folders


def register_folders() -> None:
    """Tell the host of ``models/fd2talk``; its extra_model_paths.yaml may have named more such folders."""
    folder_paths.add_model_folder_path(MODELS, os.path.join(folder_paths.models_dir, MODELS))


def model_folders(network: str) -> list[Path]:
    """The folders in which checkpoints of a network are looked for, in order."""
    folders = [Path(folder) / network for folder in folder_paths.get_folder_paths(MODELS)]
    if network == "audio_encoder":
        folders += [Path(folder) for folder in folder_paths.get_folder_paths("audio_encoders")]
    return folders


def list_checkpoints(network: str) -> list[str]:
    """What can be chosen for a network: the set that ships, then the user's files (and wav2vec2 folders)."""
    found = set()
    for folder in model_folders(network):
        if folder.name == network:
            found |= {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
        if network == "audio_encoder":
            models = {path.parent for path in folder.glob("*/config.json")}
            found -= {f"{model.name}/{weights.name}" for model in models for weights in model.iterdir()}
            found |= {model.name for model in models}
    return [SHIPPED_SET, *sorted(found - {SHIPPED_SET})]


def checkpoint_path(network: str, name: str) -> Path:
    """Where a chosen checkpoint is.

    Raises:
        FD2TalkError: when it is in none of the folders (all are named), or the name leads outside of them.
    """
    check_type(name, f"The {network} checkpoint", str)
    if not name or PurePath(name).anchor or ".." in PurePath(name).parts:
        raise FD2TalkError(f"The checkpoint name {name!r} leads outside the host's model folders.")
    return find_checkpoint(network, name, model_folders(network))


def check_checkpoint(network: str, name: str) -> bool | str:
    """For a node's ``validate_inputs``: True, or the sentence."""
    return check(checkpoint_path, network, name)


def check(function: Callable[..., object], *arguments: object) -> bool | str:
    """True when the call goes well, or the sentence of its FD2TalkError."""
    try:
        function(*arguments)
    except FD2TalkError as error:
        return str(error)
    return True


@lru_cache
def put_examples(folder: Path) -> None:
    """Put the files that the graphs name into the host's input folder, so that a first run needs no copying.

    Once a start, and only what is absent: nothing is overwritten. They lie at the folder's top, since the
    host's own loaders offer no subfolder's files, and newer pages report what is not offered as missing.
    """
    added = []
    try:
        for example in sorted(EXAMPLES.iterdir()):
            target = folder / f"{EXAMPLE_PREFIX}{example.name}"
            if example.suffix == ".md" or os.path.lexists(target):
                continue
            with replacing(target) as partial:
                shutil.copyfile(example, partial)
            added.append(target.name)
    except (FD2TalkError, OSError) as error:
        logging.warning(
            "[FD2Talk] The example inputs cannot be put into the input folder (%s); choose files of your own "
            "in the graphs that ship.",
            error,
        )
    if added:
        logging.info("[FD2Talk] Put the example inputs of the graphs into %s: %s", folder, ", ".join(added))


def list_input_files(*kinds: str) -> list[str]:
    """Files of the host's input folder of a kind (``audio``, ``video``, ``image``) or ending (``.csv``).

    The first call puts the examples there.
    """
    folder = Path(folder_paths.get_input_directory())
    put_examples(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    endings = tuple(kind for kind in kinds if kind.startswith("."))
    chosen = {name for name in names if endings and name.lower().endswith(endings)}
    media = [kind for kind in kinds if not kind.startswith(".")]
    chosen |= set(folder_paths.filter_files_content_types(names, media)) if media else set()
    return [name for name in names if name in chosen]


def block(reason: str) -> ExecutionBlocker:
    """An output that holds nothing: what is connected to it does not run, and the page tells the reason."""
    return ExecutionBlocker(reason)


def value_or_block(function: Callable[..., Any], *arguments: object) -> Any:
    """What the call gives, or a blocked output with the sentence of its FD2TalkError."""
    try:
        return function(*arguments)
    except FD2TalkError as error:
        return block(str(error))


def input_file(name: str) -> Path:
    """A file that the user chose or uploaded, by its name in the host's input folder.

    Raises:
        FD2TalkError: when there is none, or the name leads outside the host's input, output and temp folders.
    """
    check_type(name, "The file", str)
    try:
        path = os.path.abspath(folder_paths.get_annotated_filepath(name))
    except ValueError as error:  # newer hosts refuse a path outside themselves, with words for developers
        raise FD2TalkError(
            f"The file {shown(name)} lies outside the host's input, output and temp folders, or is no name."
        ) from error
    folders = [folder_paths.get_directory_by_type(kind) for kind in ("input", "output", "temp")]
    if not any(_is_inside(path, folder) for folder in folders):
        raise FD2TalkError(f"The file {shown(name)} lies outside the host's input, output and temp folders.")
    if not os.path.isfile(path):
        raise FD2TalkError(
            f"There is no file {shown(name)} in the host's input folder; upload it, or choose another."
        )
    return Path(path)


def _is_inside(path: str, folder: str) -> bool:
    folder = os.path.abspath(folder)
    try:
        return os.path.commonpath((path, folder)) == folder
    except ValueError:  # another drive
        return False


def output_file(
    prefix: str, ending: str, folder: io.FolderType = io.FolderType.output
) -> tuple[Path, ui.SavedResult]:
    """A new numbered file in the host's output or temp folder, and how the page is told of it.

    Every file that a node writes gets its name here. A graph comes from strangers and a widget's value can
    come over a wire, so both parts of the name are checked here, when the node runs.

    Args:
        prefix: name before the number; folders may stand before it.
        ending: such as ``.mp4``.

    Raises:
        FD2TalkError: when the prefix or the ending is no part of a file's name, or leads out of the folder.
    """
    if not re.fullmatch(r"\.[a-z0-9]+", ending):
        raise FD2TalkError(
            f"The format {shown(ending[1:])} is no ending of a file's name; choose one of the list."
        )
    return _numbered(prefix, ending, folder)


def output_folder(prefix: str) -> tuple[Path, str]:
    """A name for a new numbered folder in the host's output folder, and its path within that.

    Raises:
        FD2TalkError: as :func:`output_file`.
    """
    path, saved = _numbered(prefix, "", io.FolderType.output)
    return path, place_of(saved)


def place_of(saved: ui.SavedResult) -> str:
    """The name of a saved file within its folder, as other nodes take it."""
    return "/".join(part for part in (saved.subfolder, saved.filename) if part)


def _numbered(prefix: str, ending: str, folder: io.FolderType) -> tuple[Path, ui.SavedResult]:
    base = os.path.realpath(folder_paths.get_directory_by_type(folder.value))
    _check_prefix(prefix, base)
    try:
        directory, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, base)
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise FD2TalkError(
            f"Nothing can be saved as {shown(prefix)} in the {folder.value} folder ({reason_of(error)})."
        ) from error
    while os.path.lexists(os.path.join(directory, f"{stem}_{counter:05}_{ending}")):
        counter += 1
    name = f"{stem}_{counter:05}_{ending}"
    return Path(directory) / name, ui.SavedResult(name, subfolder, folder)


def _check_prefix(prefix: str, base: str) -> None:
    """Refuse a name that is none, or that leads out of the folder (through a link too)."""
    parts = re.split(r"[/\\]", prefix) if isinstance(prefix, str) and prefix.isprintable() else []
    names = [part for part in parts if part.strip() not in ("", ".")]
    if not names:
        raise FD2TalkError(f"The file name {shown(prefix)} names no file; give one such as 'fd2talk/motion'.")
    aimed = os.path.realpath(os.path.join(base, prefix))
    if ".." in names or PurePath(prefix).anchor or not _is_inside(aimed, base):
        raise FD2TalkError(
            f"The file name {shown(prefix)} leads outside the host's folder; give a name in it."
        )


def temp_file(prefix: str, ending: str) -> tuple[Path, ui.SavedResult]:
    """As :func:`output_file`, in the folder that the host empties when it starts."""
    return output_file(prefix, ending, io.FolderType.temp)


def fingerprint(*paths: Path) -> str:
    """Content hash of files: a changed file re-runs what depends on it, and an untouched one does not."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        for file in files:
            stat = file.stat()
            digest.update(_hash_of(str(file), stat.st_mtime_ns, stat.st_size))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _hash_of(path: str, modified: int, size: int) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()


def fingerprint_checkpoint(network: str, name: str | None) -> str:
    """Content hash of a chosen checkpoint; what cannot be found has none, and says so when the node runs."""
    try:
        return fingerprint(checkpoint_path(network, name or ""))
    except (FD2TalkError, OSError):
        return ""


# Models


class Hosted(nn.Module):
    """A network as the host manages it: attributes are set on it that diffusers' classes do not allow."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def load_network(network: str, name: str) -> Any:
    """A network, read from its file once, on the device that the host gives it now.

    Args:
        network: ``audio_encoder``, ``expression``, ``pose``, ``autoencoder`` or ``unet``.
        name: as in :func:`list_checkpoints`.
    """
    path = checkpoint_path(network, name)
    newest = max(file.stat().st_mtime_ns for file in ([path] if path.is_file() else path.iterdir()))
    patcher = _read_network(network, path, newest)
    # the blocks are diffusers' own, which cannot be cast layer by layer, so the whole network is moved
    memory = WORKING_MEMORY.get(network, 0)
    management.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    return patcher.model.network


@lru_cache(maxsize=8)
def _read_network(network: str, path: Path, modified: int) -> ModelPatcher:
    if network == "audio_encoder":
        model = AudioEncoder.from_pretrained(path)
    else:
        model = configs.load_network(network, path, face_model().name)
    model.requires_grad_(False)
    return ModelPatcher(
        Hosted(model.train(False)), management.get_torch_device(), management.unet_offload_device()
    )


@lru_cache(maxsize=1)
def face_model() -> FaceModel:
    """The face model that ships."""
    return default_face_model()


@lru_cache(maxsize=1)
def face_landmarker() -> FaceLandmarker:
    """The landmark model that ships; it runs on the processor."""
    return FaceLandmarker.load()


def to_host(tensor: Tensor) -> Tensor:
    """A result where the host wants results to lie."""
    return tensor.to(management.intermediate_device())


# Progress and interruption


class Progress:
    """The callback that the core's loops take: moves the node's bar, shows live frames, stops on interrupt.

    Args:
        reference: turns the latents of a frame into a picture; without it there are none to show.
    """

    def __init__(self, reference: Reference | None = None) -> None:
        self.reference = reference
        self.bar: ProgressBar | None = None
        self.shown = 0.0

    def __call__(self, done: int, total: int, preview: Tensor | None = None) -> None:
        management.throw_exception_if_processing_interrupted()
        if self.bar is None:
            self.bar = ProgressBar(total)
        self.bar.update_absolute(done, total, self._picture(preview))

    def _picture(self, preview: Tensor | None) -> tuple[str, Image.Image, int] | None:
        if preview is None or self.reference is None or time.monotonic() - self.shown < PREVIEW_SECONDS:
            return None
        self.shown = time.monotonic()
        frame = latent_preview(preview[:1].float().cpu(), self.reference)[0]
        pixels = (frame.clamp(0, 1) * 255).to(torch.uint8).numpy()
        return "JPEG", Image.fromarray(pixels).resize((PREVIEW_SIZE // 2,) * 2), PREVIEW_SIZE


# The host's own types


def audio_of(sound: dict) -> tuple[Tensor, int]:
    """The host's AUDIO as ``(waveform [C, N], sample_rate)``.

    Raises:
        FD2TalkError: when it is a batch of several recordings, or no recording.
    """
    if not isinstance(sound, Mapping) or not {"waveform", "sample_rate"} <= set(sound):
        raise FD2TalkError(f"The audio is {shown(sound)}, but a waveform and its sample_rate are needed.")
    waveform = check_tensor(sound["waveform"], "The audio")
    if waveform.ndim == 3 and waveform.shape[0] != 1:
        raise FD2TalkError(f"The audio is a batch of {waveform.shape[0]} recordings; give one at a time.")
    return (waveform[0] if waveform.ndim == 3 else waveform), check_sample_rate(sound["sample_rate"])


def load_audio(path: Path) -> dict:
    """A sound or video file as the host's AUDIO."""
    waveform, sample_rate = read_audio(path)
    return {"waveform": waveform[None], "sample_rate": sample_rate}


def one_image(image: Tensor) -> Tensor:
    """The only picture of an IMAGE batch, ``[H, W, 3]``.

    Raises:
        FD2TalkError: when there are several.
    """
    if check_tensor(image, "The image").ndim == 4 and image.shape[0] != 1:
        raise FD2TalkError(f"The image is a batch of {image.shape[0]} pictures; pick one (ImageFromBatch).")
    return (image[0] if image.ndim == 4 else image).cpu()


def video_from_file(path: Path) -> Any:
    """The host's VIDEO on a file, which stays on disk."""
    return InputImpl.VideoFromFile(str(path))


def curve_points(curve: Any) -> list[tuple[float, float]]:
    """The control points of the host's CURVE, which is an object, or what the page keeps of one.

    Raises:
        FD2TalkError: when it is neither.
    """
    points = curve.get("points") if isinstance(curve, Mapping) else getattr(curve, "points", curve)
    try:
        return [(float(x), float(y)) for x, y in points or ()]
    except (TypeError, ValueError) as error:
        raise FD2TalkError(f"The curve is {shown(curve)}, but points [x, y] are needed.") from error


def model_from_file(path: Path) -> Any:
    """Newer hosts' FILE_3D on a file; hosts without that type run nothing that takes it."""
    from comfy_api import v0_0_2

    kind = getattr(getattr(v0_0_2, "Types", None), "File3D", None)
    if kind is None:
        return block("This ComfyUI has no type for 3D files yet: take the file's name instead.")
    return kind(str(path), path.suffix[1:])


def frames_of(video: Any) -> tuple[Iterable[Tensor], int, float]:
    """The pictures of the host's VIDEO one at a time, their number and frames per second.

    A file is read as it is needed. Newer hosts can cut a video (read so too) or crop it (held whole then).
    """
    if (frames := _file_frames(video)) is not None:
        return frames, frames.num_frames, frames.fps
    parts = video.get_components()
    return parts.images, len(parts.images), round(float(parts.frame_rate), 3)


def tags_of(video: Any) -> dict[str, str]:
    """The tags of a VIDEO's file that tell how it was made; empty for one without a file."""
    return read_tags(video.get_stream_source()) if isinstance(video, InputImpl.VideoFromFile) else {}


def footage_of(video: Any) -> tuple[Footage, int]:
    """The host's VIDEO to be read in parts, at a steady frame rate, and about how many frames it has."""
    if (frames := _file_frames(video)) is not None:
        return frames, frames.num_frames
    parts = video.get_components()
    return PictureFootage(parts.images, round(float(parts.frame_rate), 3)), len(parts.images)


def sound_of(video: Any) -> tuple[Tensor, int] | None:
    """The sound of the host's VIDEO as ``(waveform [C, N], sample_rate)``, None for a silent one."""
    frames = _file_frames(video)
    if frames is None or not isinstance(frames.source, str | os.PathLike):
        sound = video.get_components().audio
        return None if sound is None else audio_of(sound)
    if not has_sound(frames.source):
        return None
    waveform, rate = read_audio(frames.source)
    first = round(frames.start * rate)
    last = first + round(frames.duration * rate) if frames.duration else None
    return waveform[:, first:last], rate


def _file_frames(video: Any) -> VideoFrames | None:
    """A VIDEO that is a file, whole or cut; None for any other, and one whose pictures are cropped."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    window = getattr(video, "get_active_trim_window", None)
    frames = VideoFrames(video.get_stream_source(), *(window() if window else ()))
    same = sorted(video.get_dimensions()) == sorted((frames.width, frames.height))
    return frames if same else None


def background_of(video: Any, num_frames: int, fps: float) -> Iterable[Tensor]:
    """The pictures of a VIDEO that a clip is pasted into.

    Raises:
        FD2TalkError: when it has another frame rate or another length.
    """
    frames, count, rate = frames_of(video)
    if abs(rate - fps) > 0.002:
        raise FD2TalkError(f"The background video runs at {rate:g} fps, but the clip at {fps:g} fps.")
    if count != num_frames:
        raise FD2TalkError(
            f"The background video has {count} frames, but the clip has {num_frames}: make both from "
            "recordings of one length (add silence to the shorter one)."
        )
    return frames


def is_taken(prompt: dict | None, slot: int) -> bool:
    """Whether another node of the running prompt takes this output of the running node."""
    running = get_executing_context()
    if prompt is None or running is None:
        return True
    wire = [running.node_id, slot]
    return any(wire == value for node in prompt.values() for value in node["inputs"].values())


def tell(text: str) -> ui.PreviewText:
    """Say something on the running node, in the log, and in the prompt's history."""
    logging.info("[FD2Talk] %s", text)
    running = get_executing_context()
    if running is not None and getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.send_progress_text(text, running.node_id)
    return ui.PreviewText(text)
