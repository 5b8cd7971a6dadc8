"""Kokoro's own voices, as the npm package ``kokoro-js`` (Apache-2.0) carries them.

A voice is a vector for every number of symbols spoken. ``python -m training.corpus.kokoro_voices`` fetches
them once; without them, these voices are left out of the corpus.
"""

from __future__ import annotations

import functools
import hashlib
import sys

import numpy as np

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.terminal import run_command

from ..npm import CACHE, fetch

PACKAGE = "kokoro-js@1.2.1"
FOLDER = CACHE / "kokoro-js-1.2.1"

VOICES = {
    "en": (
        "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky "
        "am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa bf_alice bf_emma "
        "bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis"
    ).split(),
    "es": "ef_dora em_alex em_santa".split(),
    "fr": "ff_siwis".split(),
    "hi": "hf_alpha hf_beta hm_omega hm_psi".split(),
    "it": "if_sara im_nicola".split(),
    "pt-br": "pf_dora pm_alex pm_santa".split(),
}
"""By language, as eSpeak NG names it; those of Japanese and Chinese need spellers of their own."""

_SIZE = 256
_DIGEST = "1251c39e04fd96867565dc175e112978ba38f63a7670b1e00080b82ec835e413"


def fetched() -> bool:
    """Whether all voices are on this machine."""
    return all((FOLDER / name).is_file() for name in _files())


@functools.lru_cache
def styles(language: str) -> np.ndarray:
    """The voices of a language, ``[voice, symbols spoken, style]``.

    Raises:
        FD2TalkError: when a file is another than the package's.
    """
    contents = {name: (FOLDER / name).read_bytes() for name in _files()}
    if hashlib.sha256(b"".join(contents.values())).hexdigest() != _DIGEST:
        raise FD2TalkError(f"{FOLDER} does not hold the voices of {PACKAGE}; delete it and fetch it again.")
    return np.stack([
        np.frombuffer(contents[f"{voice}.bin"], "<f4").reshape(-1, _SIZE) for voice in VOICES[language]
    ])  # fmt: skip


def _files() -> list[str]:
    return sorted(f"{voice}.bin" for voices in VOICES.values() for voice in voices)


def main() -> int:
    return run_command(lambda: fetch(PACKAGE, "voices", _files(), FOLDER), prefix="error: ")


if __name__ == "__main__":
    sys.exit(main())
