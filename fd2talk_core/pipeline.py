"""The whole method on one screen: a portrait and a voice go in, a talking video comes out (FD2Talk Sec. 3).

voice ─── AudioEncoder ──┬── ExpDiT ──── expression β ──┐
                         └── PoseDiT ─── pose p ────────┤
portrait ─ encode_reference ─ reference x; α, β, p ─────┴─ PortraitMotion
                                                              │ meshes, correspondence
    FrameUNet ── latents ── FrameDecoder: decode ─ blend ─ close-ups ─ paste ── ClipMarks ── frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import configs
from .audio.encoder import AudioEncoder
from .audio.mixing import dubbed_sound
from .audio.reading import has_sound, read_audio
from .checks import check_device, checked, shown
from .errors import FD2TalkError
from .face.landmarks import FaceLandmarker
from .face.model import FaceModel, default_face_model
from .files import check_new_folder, check_output
from .formats.defaults import USD_ENDINGS, VMC_PORT, MeshFile
from .formats.gltf import write_glb
from .formats.lip_keys import ENDINGS as KEY_ENDINGS
from .formats.lip_keys import load_lip_keys
from .formats.mesh_sequence import write_mesh_sequence
from .formats.osc import stream_vmc
from .formats.usd import write_usd
from .formats.video import ENDINGS, VideoWriter
from .formats.video_frames import VideoFrames
from .frames.decoding import iter_decoded_frames
from .frames.defaults import DEFAULT_DETAIL
from .frames.denoising import NoiseMode, iter_latents
from .frames.dubbing import iter_dubbed_frames
from .frames.painted_mouth import check_paints
from .frames.portrait_motion import PortraitMotion
from .frames.reference import NoFacePolicy, crop_portrait, encode_reference
from .frames.workers import one_ahead, worker_count
from .imaging import read_image
from .marks.clip import ClipMarks
from .marks.defaults import CORNERS, LABEL_SIZE
from .motion.coefficients import CoefficientSequence, MotionMode
from .motion.defaults import NEUTRAL, REACH, Between, LongerPolicy, ShorterPolicy
from .motion.dubbing import dub_mouths
from .motion.filming import film_face
from .motion.lip_keys import LipKeys, apply_lip_keys, lip_keys_of_track
from .motion.sampling import sample_motion, take_blinks
from .motion.tracking import MissingPolicy, follow_face, read_motion
from .networks.checkpoint import find_checkpoint
from .networks.latent_flow import LatentFlowUNet
from .progress import Callback
from .segments import BLOCK, Segment
from .timing import frame_count
from .waveforms import check_waveform

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total); what it raises stops the work within one step."""


@dataclass(frozen=True)
class TalkingVideo:
    """A talking video whose frames are made as they are read, so that its length costs no memory.

    Attributes:
        chunks: frames ``[n, H, W, 3]`` in 0..1, to be read once.
        num_frames: F = round(duration * fps).
        fps: frames per second.
        audio: ``(waveform [C, N], sample_rate)``, the recording as it was given; None for a silent video.
        inputs: files that it is made from, which it is never written over.
        motion: the expression and the pose that the portrait was given.
        marks: those that the frames bear, and that are written into the file.
        report: on frames that stayed as they were filmed, where a video was dubbed, and on how closely lip
            keys are met.
        segment: which part of a clip this is, for :func:`~fd2talk_core.join.join`; None for a whole one.
    """

    chunks: Iterator[Tensor]
    num_frames: int
    fps: float
    audio: tuple[Tensor, int] | None
    inputs: tuple[Path | str, ...] = ()
    motion: tuple[CoefficientSequence, CoefficientSequence] | None = None
    marks: ClipMarks | None = None
    report: str = ""
    segment: Segment | None = None

    def save(self, path: Path | str) -> Path:
        """Write an MP4 with the sound, frame by frame; what stood there stays until the new one is whole.

        Raises:
            FD2TalkError: when the file cannot be written, is one of the inputs, or frames have been read
                already.
        """
        path = check_output(path, ENDINGS, self.inputs)
        on_file = {} if self.marks is None else self.marks.on_file(self.inputs)
        if self.segment is not None:
            on_file |= {"tags": on_file.get("tags", {}) | self.segment.tags(), "lossless_sound": True}
        with VideoWriter(path, self.fps, self.audio, **on_file) as writer:
            for frames in self.chunks:
                writer.write(frames)
            if writer.num_frames != self.num_frames:
                raise FD2TalkError(
                    f"{path.name} is not written: {writer.num_frames} of {self.num_frames} frames were left. "
                    "Frames are made once, when they are first read; make the video again to save it twice."
                )
        return path

    def frames(self) -> Tensor:
        """All frames at once, ``[F, H, W, 3]``."""
        return torch.cat(list(self.chunks))


@dataclass(frozen=True)
class MovingHead:
    """A head in motion, without any picture: FaceTalk's output, on this face model.

    Attributes:
        expression, pose: F frames each.
        face_model: whose coefficients they are.
        identity: ``[D_α]`` of a portrait; None for the mean face.
        inputs: files that it is made from, which it is never written over.
        report: how closely lip keys are met, where some were given.
    """

    expression: CoefficientSequence
    pose: CoefficientSequence
    face_model: FaceModel
    identity: Tensor | None = None
    inputs: tuple[Path | str, ...] = ()
    report: str = ""

    @checked
    def save(
        self,
        path: Path | str,
        *,
        files: MeshFile = "ply",
        smoothing: float = 0.0,
        progress: Progress | None = None,
    ) -> Path:
        """Write an animated GLB or USD file, or a folder with a mesh file a frame.

        Args:
            path: ends in ``.glb``, in ``.usdc`` or ``.usda`` (which need ``usd-core``), or has no ending and
                becomes a folder.
            files: kind of the mesh files in a folder.
            smoothing: of deformations away from lips and eyes, see
                :func:`~fd2talk_core.face.smoothing.smooth_deformations`.

        Raises:
            FD2TalkError: when the path cannot be written, is one of the inputs or holds something already.
        """
        motion = (self.face_model, self.expression, self.pose)
        worn = {"identity": self.identity, "smoothing": smoothing}
        path = check_mesh_output(path, self.inputs)
        if path.suffix:
            write = write_usd if path.suffix.lower() in USD_ENDINGS else write_glb
            write(path, *motion, **worn)
            return path
        return write_mesh_sequence(path, *motion, **worn, files=files, callback=_reporter(progress)("meshes"))

    @checked
    def stream(
        self, host: str = "127.0.0.1", port: int = VMC_PORT, *, progress: Progress | None = None
    ) -> int:
        """Play it in real time to VTuber software, see :func:`~fd2talk_core.formats.osc.stream_vmc`."""
        return stream_vmc(self.expression, self.pose, host, port, callback=_reporter(progress)("streaming"))


def check_mesh_output(path: Path | str, inputs: Iterable[Path | str] = ()) -> Path:
    """Where meshes go: a file that ends in ``.glb`` or as USD's do, or a new folder.

    Raises:
        FD2TalkError: when it can be neither.
    """
    return check_output(path, (".glb", *USD_ENDINGS), inputs) if Path(path).suffix else check_new_folder(path)


class FD2TalkPipeline:
    """FD2Talk without a host.

    >>> FD2TalkPipeline.from_pretrained("tiny")("portrait.png", "speech.wav").save("talking.mp4")
    """

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        expression: nn.Module,
        pose: nn.Module,
        autoencoder: nn.Module,
        unet: nn.Module,
        face_model: FaceModel | None = None,
        landmarker: FaceLandmarker | None = None,
    ) -> None:
        self.audio_encoder = audio_encoder
        self.expression = expression
        self.pose = pose
        self.autoencoder = autoencoder
        self.unet = unet
        self.face_model = face_model or default_face_model()
        self.landmarker = landmarker or FaceLandmarker()

    @classmethod
    @checked
    def from_pretrained(
        cls, name: str = "tiny", folders: Iterable[Path | str] = (), device: str = "cpu"
    ) -> FD2TalkPipeline:
        """The networks of one set: the shipped ``tiny``, or a set folder's files ``<network>.safetensors``.

        Args:
            name: a shipped set, or the path of a folder that holds one file a network, or a folder of
                Hugging Face's for the audio encoder, or one ``joint.safetensors`` for expression and pose.
            folders: further places to look in for a folder of that name.

        Raises:
            FD2TalkError: naming every folder searched, or the file and what is wrong with it.
        """
        folders = [*folders, Path()]
        face_model = default_face_model()
        networks = {}
        for network in ("expression", "pose", "autoencoder", "unet"):
            path = find_checkpoint(network, name, folders)
            networks[network] = configs.load_network(network, path, face_model.name)
        audio_encoder = AudioEncoder.from_pretrained(find_checkpoint("audio_encoder", name, folders))
        return cls(audio_encoder, **networks, face_model=face_model).to(device)

    @classmethod
    def from_config(cls, size: str = "tiny", seed: int = 0) -> FD2TalkPipeline:
        """Untrained networks initialised from a seed: for tests and measurements, not for making videos."""
        names = ("audio_encoder", "expression", "pose", "autoencoder", "unet")
        return cls(**{name: configs.build(name, size, seed) for name in names})

    def to(self, device: str) -> FD2TalkPipeline:
        """Move every network to a device.

        Raises:
            FD2TalkError: when this machine has none of that name.
        """
        check_device(device)
        for network in (self.audio_encoder, self.expression, self.pose, self.autoencoder, self.unet):
            network.to(device)
        return self

    @checked
    def __call__(
        self,
        image: Tensor | Path | str,
        audio: tuple[Tensor, int] | Path | str | None = None,
        *,
        driving: Path | str | None = None,
        motion: tuple[CoefficientSequence, CoefficientSequence] | None = None,
        missing_faces: MissingPolicy = "error",
        lip_keys: LipKeys | Path | str | None = None,
        between_keys: Between = "voice",
        key_reach: float = REACH,
        fps: float | None = None,
        seed: int = 0,
        motion_steps: int | None = None,
        frame_steps: int | None = None,
        guidance: float = 1.0,
        expression_intensity: float = 1.0,
        pose_intensity: float = 1.0,
        motion_mode: MotionMode = "relative",
        paste_back: bool = True,
        detail: float = DEFAULT_DETAIL,
        eta: float = 0.0,
        noise_mode: NoiseMode = "shared",
        margin: float = 1.0,
        size: int | None = None,
        face_index: int = 0,
        no_face: NoFacePolicy = "error",
        label: str = "",
        label_corner: str = CORNERS[0],
        label_size: float = LABEL_SIZE,
        segment: tuple[int, int] | None = None,
        style: str = NEUTRAL,
        style_strength: float = 1.0,
        progress: Progress | None = None,
    ) -> TalkingVideo:
        """A portrait speaks.

        Args:
            image: the portrait, a file or ``[H, W, 3]`` in 0..1.
            audio: the voice, a file or ``(waveform [C, N], sample_rate)``. Without one the sound is the
                driving video's, if it has any.
            driving: a video whose expression and head motion the portrait takes on, in place of the voice's.
            motion: expression and pose that it takes on, in place of the voice's.
            missing_faces: what frames of the driving video do that show no face, see
                :func:`~fd2talk_core.motion.tracking.read_motion`.
            lip_keys: where the lips shall be at some moments: keys, a JSON or CSV file of them, or the video
                of a person whose lips are followed.
            between_keys, key_reach: see :func:`~fd2talk_core.motion.lip_keys.apply_lip_keys`.
            fps: of the video, over 0 and at most 120; None takes that of the motion, 25 for a voice.
            seed: the same seed gives the same video.
            motion_steps, frame_steps: sampling steps; None takes the checkpoint's recommendation.
            guidance: strength of the audio on the motion (FaceTalk Eq. 10); 1 is off.
            expression_intensity, pose_intensity: scale of the motion that is made from the voice.
            motion_mode: ``"relative"`` starts where the portrait looks, ``"absolute"`` is the paper's.
            paste_back: put the moving head back into the whole picture, or give the square crop.
            detail: how far the portrait itself is shown and mouth and eyes are drawn anew, 0..1; 0 shows what
                the diffusion painted.
            eta, noise_mode: see :func:`~fd2talk_core.frames.denoising.iter_latents`.
            margin: room around the head in the crop; the networks were trained on 1.
            size: side of the crop in pixels; None takes the checkpoint's.
            face_index: which face, 0 is the largest.
            no_face: ``"error"`` or ``"whole_image"``.
            label: a line of text to be seen in every frame; none when empty.
            label_corner: one of :data:`~fd2talk_core.marks.defaults.CORNERS`.
            label_size: height of the label's letters as a share of the picture's shorter side.
            segment: (2, 4) makes the second of four parts of the clip, whose files
                :func:`~fd2talk_core.join.join` joins to what one process makes: the same frames and sound.
            style, style_strength: the mood that the face speaks in, where a voice moves it, and how much of
                it, 0..1; see :func:`~fd2talk_core.motion.sampling.sample_motion`.
            progress: called with (stage, done, total).

        Returns:
            a video whose frames are made while it is saved or read. They bear the marks of generated video;
            see :mod:`fd2talk_core.marks.settings`.

        Raises:
            FD2TalkError: one sentence naming the input that cannot be used.
        """

        report = _reporter(progress)
        picture = image if isinstance(image, Tensor) else read_image(image)
        sound = _sound_of(audio, driving)
        head = self.animate(
            sound,
            driving=driving,
            motion=motion,
            missing_faces=missing_faces,
            lip_keys=lip_keys,
            between_keys=between_keys,
            key_reach=key_reach,
            fps=fps,
            seed=seed,
            motion_steps=motion_steps,
            guidance=guidance,
            expression_intensity=expression_intensity,
            pose_intensity=pose_intensity,
            style=style,
            style_strength=style_strength,
            progress=progress,
        )
        expression, pose, fps = head.expression, head.pose, head.expression.fps
        reference = encode_reference(
            picture,
            self.autoencoder,
            self.landmarker,
            self.face_model,
            face_index=face_index,
            no_face=no_face,
            margin=margin,
            size=size,
            callback=report("portrait"),
        )
        sampled = (expression.values, pose.values, fps, seed, frame_steps, eta, noise_mode, motion_mode)
        shown = (picture, paste_back, detail, margin, size, face_index)
        marks = ClipMarks.of(*sampled, *shown, label=(label, label_corner, label_size))
        moving = PortraitMotion.of(reference.face, expression, pose, motion_mode, self.face_model)
        part = None if segment is None else Segment(*segment, moving.num_frames)
        heard = None
        if isinstance(self.unet, LatentFlowUNet) and self.unet.hears and sound is not None:
            features = self.audio_encoder.encode(*sound, fps, callback=report("audio"))
            heard = features.on_frames(moving.num_frames)

        def made(motion: PortraitMotion, callback: Callback | None) -> Iterator[Tensor]:
            latents = iter_latents(
                self.unet,
                reference,
                motion,
                heard=heard,
                seed=seed,
                steps=frame_steps,
                eta=eta,
                noise_mode=noise_mode,
                callback=callback,
            )
            return iter_decoded_frames(
                self.autoencoder,
                one_ahead(latents, worker_count(self.autoencoder.device)),
                reference,
                motion=motion if self.unet.takes_overlay else None,
                paste_back=paste_back,
                detail=detail,
            )

        shown_part = moving if part is None else moving.part(part.range)
        chunks, mark = made(shown_part, report("frames")), marks.marker()

        def marked() -> Iterator[Tensor]:
            if part is not None and part.range.start:
                # the clip's first frame decides on the mark; it is made in the company that it has there
                beginning = made(moving.part(range(min(BLOCK, moving.num_frames))), None)
                mark(next(beginning)[:1])
                beginning.close()
            yield from map(mark, chunks)

        if part is not None and sound is not None:
            whole = check_waveform(*sound)
            samples = part.samples(fps, sound[1], whole.shape[1])
            sound = whole[:, samples.start : samples.stop], sound[1]
        inputs = _files_of(image, audio, driving, lip_keys)
        return TalkingVideo(
            marked(),
            shown_part.num_frames,
            fps,
            sound,
            inputs,
            (expression, pose),
            marks,
            head.report,
            part,
        )

    @checked
    def animate(
        self,
        audio: tuple[Tensor, int] | Path | str | None = None,
        *,
        image: Tensor | Path | str | None = None,
        driving: Path | str | None = None,
        motion: tuple[CoefficientSequence, CoefficientSequence] | None = None,
        missing_faces: MissingPolicy = "error",
        lip_keys: LipKeys | Path | str | None = None,
        between_keys: Between = "voice",
        key_reach: float = REACH,
        fps: float | None = None,
        seed: int = 0,
        motion_steps: int | None = None,
        guidance: float = 1.0,
        expression_intensity: float = 1.0,
        pose_intensity: float = 1.0,
        face_index: int = 0,
        style: str = NEUTRAL,
        style_strength: float = 1.0,
        progress: Progress | None = None,
    ) -> MovingHead:
        """A voice moves a head (FaceTalk): the motion alone, to be written as meshes.

        Args:
            image: a portrait whose face shape the head has; without one it is the mean face.
            audio, driving, motion, missing_faces, lip_keys, between_keys, key_reach, fps, seed, motion_steps,
                guidance, expression_intensity, pose_intensity, face_index, style, style_strength,
                progress: as :meth:`__call__`.

        Raises:
            FD2TalkError: one sentence naming the input that cannot be used.
        """
        report = _reporter(progress)
        # all inputs are read before anything long is done with one
        sound = _sound_of(audio)
        identity = None
        if image is not None:
            picture = image if isinstance(image, Tensor) else read_image(image)
            identity = crop_portrait(
                picture, self.landmarker, self.face_model, face_index=face_index, callback=report("portrait")
            ).face.identity
        expression, pose = self._motion(
            report,
            sound=sound,
            driving=driving,
            motion=motion,
            missing_faces=missing_faces,
            fps=fps,
            seed=seed,
            steps=motion_steps,
            guidance=guidance,
            expression_intensity=expression_intensity,
            pose_intensity=pose_intensity,
            style=style,
            style_strength=style_strength,
        )
        expression, told = self._keyed(expression, lip_keys, between_keys, key_reach, report)
        inputs = _files_of(image, audio, driving, lip_keys)
        return MovingHead(expression, pose, self.face_model, identity, inputs, told)

    @checked
    def dub(
        self,
        video: Path | str,
        audio: tuple[Tensor, int] | Path | str,
        *,
        motion: CoefficientSequence | None = None,
        lip_keys: LipKeys | Path | str | None = None,
        between_keys: Between = "voice",
        key_reach: float = REACH,
        seed: int = 0,
        motion_steps: int | None = None,
        guidance: float = 1.0,
        expression_intensity: float = 1.0,
        longer_speech: LongerPolicy = "loop",
        shorter_speech: ShorterPolicy = "cut",
        original_sound: float = 0.0,
        painted: bool = False,
        face_index: int = 0,
        label: str = "",
        label_corner: str = CORNERS[0],
        label_size: float = LABEL_SIZE,
        style: str = NEUTRAL,
        style_strength: float = 1.0,
        progress: Progress | None = None,
    ) -> TalkingVideo:
        """A filmed person says something else; all but the lower face stays as it was filmed.

        Args:
            video: a file. It is read twice, a few frames at a time.
            audio: the new voice, a file or ``(waveform [C, N], sample_rate)``.
            motion: an expression whose mouth is taken in place of the voice's.
            lip_keys, between_keys, key_reach, seed, motion_steps, guidance, expression_intensity, label,
                label_corner, label_size, style, style_strength, progress: as :meth:`__call__`; of a style,
                the mouth alone is taken.
            longer_speech, shorter_speech: what happens where voice and video differ in length, see
                :func:`~fd2talk_core.motion.dubbing.dub_mouths`.
            original_sound: how loudly the video's own sound stays underneath, 0..1.
            painted: whether the set's UNet paints the lower face (DiffTalk), which must be trained for that;
                else the film's own lower face is moved.
            face_index: who is dubbed, 0 is the largest face, counted anew after each cut.

        Returns:
            a video of the input's size and frame rate, whose frames are made while it is saved or read.

        Raises:
            FD2TalkError: one sentence naming the input that cannot be used.
        """

        _check_unstyled(style, motion)
        if painted:
            check_paints(self.unet)
        report = _reporter(progress)
        footage = VideoFrames(video)
        sound = read_audio(audio) if isinstance(audio, Path | str) else audio
        own_sound = read_audio(video) if original_sound and has_sound(video) else None
        if motion is None:
            features = self.audio_encoder.encode(*sound, footage.fps, callback=report("audio"))
            motion = sample_motion(
                self.expression,
                features,
                kind="expression",
                seed=seed,
                steps=motion_steps,
                guidance=guidance,
                intensity=expression_intensity,
                style=style,
                style_strength=style_strength,
                callback=report("expression"),
            )
        motion, told = self._keyed(motion, lip_keys, between_keys, key_reach, report)
        film = film_face(
            footage.span(),
            footage.fps,
            self.landmarker,
            self.face_model,
            face_index=face_index,
            num_frames=footage.num_frames,
            callback=report("video"),
        )
        mouths = dub_mouths(
            film, motion, self.face_model, longer_speech=longer_speech, shorter_speech=shorter_speech
        )
        frames = iter_dubbed_frames(
            footage,
            mouths,
            self.face_model,
            painted_by=(self.unet, self.autoencoder) if painted else None,
            seed=seed,
            callback=report("frames"),
        )
        sound = dubbed_sound(sound, mouths.num_frames, footage.fps, own_sound, original_sound)
        marks = ClipMarks.of(
            mouths.expression, mouths.film.pose, footage.fps, label=(label, label_corner, label_size)
        )
        inputs = _files_of(video, audio, lip_keys)
        return TalkingVideo(
            marks.add_to(frames),
            mouths.num_frames,
            footage.fps,
            sound,
            inputs,
            marks=marks,
            report=" ".join(part for part in (mouths.report, told) if part),
        )

    def _motion(
        self,
        report: Callable[[str], Callback | None],
        *,
        sound: tuple[Tensor, int] | None,
        driving: Path | str | None,
        motion: tuple[CoefficientSequence, CoefficientSequence] | None,
        missing_faces: MissingPolicy,
        fps: float | None,
        seed: int,
        steps: int | None,
        guidance: float,
        expression_intensity: float,
        pose_intensity: float,
        style: str,
        style_strength: float,
    ) -> tuple[CoefficientSequence, CoefficientSequence]:
        """Expression and pose from whichever moves the face."""
        if sound is None and driving is None and motion is None:
            raise FD2TalkError("Nothing moves the portrait: give a voice, a driving video or a motion file.")
        if driving is not None and motion is not None:
            raise FD2TalkError("A driving video and a motion were given, but one of them is needed.")
        _check_unstyled(style, driving, motion)
        if driving is not None:
            motion = self._follow(driving, missing_faces, report)
        if motion is not None:
            fps = motion[0].fps if fps is None else fps
            expression, pose = (part.resample(fps, frame_count(part.duration, fps)) for part in motion)
            return expression, pose
        features = self.audio_encoder.encode(*sound, 25.0 if fps is None else fps, callback=report("audio"))
        expression, pose = (
            sample_motion(
                network,
                features,
                kind=kind,
                seed=seed,
                steps=steps,
                guidance=guidance,
                intensity=intensity,
                callback=report(kind),
                **mood,
            )
            for network, kind, intensity, mood in (
                (
                    self.expression,
                    "expression",
                    expression_intensity,
                    {"style": style, "style_strength": style_strength},
                ),
                (self.pose, "pose", pose_intensity, {}),
            )
        )
        return take_blinks(expression, self.pose, features, seed), pose

    def _keyed(
        self,
        expression: CoefficientSequence,
        lip_keys: LipKeys | Path | str | None,
        between: Between,
        reach: float,
        report: Callable[[str], Callback | None],
    ) -> tuple[CoefficientSequence, str]:
        """An expression that meets lip keys, if there are any, and how closely it does."""
        if lip_keys is None:
            return expression, ""
        if isinstance(lip_keys, Path | str):
            lip_keys = self._read_lip_keys(lip_keys, report)
        keyed = apply_lip_keys(expression, lip_keys, self.face_model, between=between, reach=reach)
        return keyed.expression, keyed.report

    def _read_lip_keys(self, path: Path | str, report: Callable[[str], Callback | None]) -> LipKeys:
        """Keys from their own kind of file, or from the lips of the largest face in a video."""
        if Path(path).suffix.lower() in KEY_ENDINGS:
            return load_lip_keys(path)
        frames = VideoFrames(path)
        track = follow_face(frames, self.landmarker, num_frames=frames.num_frames, callback=report("lips"))
        return lip_keys_of_track(track, frames.fps, self.face_model, report("lip keys"))

    def _follow(
        self, driving: Path | str, missing: MissingPolicy, report: Callable[[str], Callback | None]
    ) -> tuple[CoefficientSequence, CoefficientSequence]:
        """Expression and pose of the largest face in a video."""
        frames = VideoFrames(driving)
        track = follow_face(
            frames, self.landmarker, num_frames=frames.num_frames, callback=report("driving video")
        )
        read = read_motion(
            track, frames.fps, self.face_model, missing=missing, callback=report("driving motion")
        )
        return read.expression, read.pose


def _sound_of(
    audio: tuple[Tensor, int] | Path | str | None, driving: Path | str | None = None
) -> tuple[Tensor, int] | None:
    """The voice; without one, what is heard in the driving video, if anything is."""
    if isinstance(audio, Path | str):
        return read_audio(audio)
    if audio is None and driving is not None and has_sound(driving):
        return read_audio(driving)
    return audio


def _check_unstyled(style: str, *given: object) -> None:
    """Refuse a style where the motion is not made from the voice."""
    if style != NEUTRAL and any(one is not None for one in given):
        raise FD2TalkError(
            f"The style {shown(style)} is for motion that is made from a voice, but the motion was given: "
            "leave one of them out."
        )


def _files_of(*given: object) -> tuple[Path | str, ...]:
    """The files among some inputs."""
    return tuple(one for one in given if isinstance(one, Path | str))


def _reporter(progress: Progress | None) -> Callable[[str], Callback | None]:
    """What each stage of the work calls, so that the caller hears of all of them."""

    def report(stage: str) -> Callback | None:
        if (tell := progress) is None:
            return None
        return lambda done, total, _: tell(stage, done, total)

    return report
