"""The columns of the papers' tables: what each is, which way is better, and what stands for chance."""

from __future__ import annotations

from dataclasses import dataclass

from .files import ALEXNET, ARCFACE, HOPENET, I3D, INCEPTION, SYNCNET, MetricFile

SHIFTED = "the same frames with the sound shifted by half of the clip"
FIRST = "the first frame repeated"
OURS = "ours"
_ARROWS = {"high": "↑", "low": "↓", "zero": "→ 0", "real": "→ real"}


@dataclass(frozen=True)
class Column:
    """One measure.

    Attributes:
        key: its name in JSON and CSV.
        title: its name in the tables.
        paper: whose column it is.
        best: ``high``, ``low``, ``zero``, or ``real``: the nearer to the real clips the better.
        about: what is measured, in words.
        chance: what stands for chance, empty where nothing does.
        of_set: whether it is one number for the whole set.
        needs: the file without which it is not measured.
    """

    key: str
    title: str
    paper: str
    best: str
    about: str
    chance: str = ""
    of_set: bool = False
    needs: MetricFile | None = None

    @property
    def heading(self) -> str:
        """The title with its arrow."""
        return f"{self.title} {_ARROWS[self.best]}"


COLUMNS = (
    Column("lse_c", "LSE-C", "FD2Talk", "high", "SyncNet's confidence (Wav2Lip)", SHIFTED, needs=SYNCNET),
    Column(
        "lse_d", "LSE-D", "DAWN", "low", "SyncNet's smallest mean distance (Wav2Lip)", SHIFTED, needs=SYNCNET
    ),
    Column("offset", "SyncNet offset", "DiffTalk", "zero", "frames at that distance", SHIFTED, needs=SYNCNET),
    Column(
        *("confidence", "SyncNet confidence", "FD2Talk", "high"),
        "by the same network on the same crops the number that Wav2Lip calls LSE-C",
        SHIFTED,
        needs=SYNCNET,
    ),
    Column(
        *("diversity", "Diversity", "FD2Talk", "high"),
        "deviation over time of Hopenet's embeddings, averaged over their entries",
        needs=HOPENET,
    ),
    Column(
        *("beat_align", "Beat Align", "FD2Talk", "high"),
        "head's turning points at the rises of loudness (Bailando); DAWN: the nearer to the real the better",
        "the same head with the loudness shifted circularly",
    ),
    Column(
        "fid",
        "FID",
        "FD2Talk",
        "low",
        "Inception's features, all frames",
        FIRST,
        of_set=True,
        needs=INCEPTION,
    ),
    Column("psnr", "PSNR", "FD2Talk", "high", "dB, frame by frame, where the crop lies in the video", FIRST),
    Column("ssim", "SSIM", "FD2Talk", "high", "frame by frame, where the crop lies in the video", FIRST),
    Column("lpips", "LPIPS", "DiffTalk", "low", "AlexNet, frame by frame", FIRST, needs=ALEXNET),
    Column(
        "fvd16", "FVD16", "DAWN", "low", "I3D's logits, windows of 16 frames", FIRST, of_set=True, needs=I3D
    ),
    Column(
        "fvd32", "FVD32", "DAWN", "low", "I3D's logits, windows of 32 frames", FIRST, of_set=True, needs=I3D
    ),
    Column(
        *("csim", "CSIM", "DAWN", "high"),
        "cosine of ArcFace's embeddings, made frame and real one",
        "faces of different clips of the set",
        needs=ARCFACE,
    ),
    Column(
        "blinks",
        "Blink/s",
        "DAWN",
        "real",
        "times a second at which both lids come to be more shut than open",
    ),
    Column(
        *("lve", "LVE (mm)", "FaceTalk", "low"),
        "largest distance of a lip vertex from the tracked one, averaged over frames",
        "a mouth that stays at rest",
    ),
    Column(
        *("expression_diversity", "Diversity D", "FaceTalk", "high"),
        "Eq. 20 on expression coefficients of several seeds",
    ),
    Column(
        *("lip_r", "lips' r", OURS, "high"),
        "correlation of the lips' gap with the real one at the best lag within 4 frames",
        "one curve shifted circularly, best lag taken there too",
    ),
    Column("lip_lag", "lips' lag", OURS, "zero", "that lag in frames, over 0 where the made lips are late"),
    Column(
        *("p_sync", "P_sync", OURS, "high"),
        "FD2Talk Eq. 10 by this pack's lip expert, on the mouth tracked in the frames",
        SHIFTED,
    ),
    Column("pose_range", "head (rad)", OURS, "real", "deviation over time of the tracked head's angles"),
    Column("found", "face found", OURS, "high", "share of the frames in which the landmarker finds it"),
)
BY_KEY = {column.key: column for column in COLUMNS}
