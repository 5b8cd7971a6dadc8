"""How far the corpus's own rules of the mouth go on real clips: who knew every word would reach no more with
them, so this is the ceiling for networks trained on that corpus.
"""

from __future__ import annotations

import re

import torch

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.motion.coefficients import CoefficientSequence

from ..corpus.motion import expected_mouth
from ..corpus.phonemes import Phone
from . import whisper
from .clips import Motion, TalkingClip
from .hearing import spread_sounds, word_sounds
from .speech import Phonemes, SpokenText, align_phonemes

RULES_FPS = 25.0

SURE = 0.75
"""Mean probability from which a transcript is believed: singing gets fluent nonsense with 0.6."""


def spoken_phonemes(clip: TalkingClip) -> tuple[Phonemes, str]:
    """The sounds of a clip, none where its words are not clear (a song, noise), and how they were found.

    The words are Whisper's. Of English ones pocketsphinx gives the sounds; of others eSpeak NG does, evenly
    over each word.
    """
    words, language, sure = whisper.transcribe(clip.waveform.numpy())
    told = f"{len(words)} words in {language!r}, mean probability {sure:.2f}"
    if sure < SURE or not words:
        return (), f"{told}: too unsure, left out"
    if language == "en":
        text = " ".join(re.sub(r"[^a-z' ]", " ", word.text.lower()) for word in words)
        try:
            return align_phonemes(SpokenText(clip.name, clip.waveform, text)), f"{told}, by pocketsphinx"
        except (RuntimeError, ModuleNotFoundError) as error:  # words and sound do not fit, or no aligner
            told += f", not by pocketsphinx ({error})"
    return spread_sounds(words, lambda word: word_sounds(word, language)), f"{told}, evenly over each word"


def rules_motion(clip: TalkingClip, phonemes: Phonemes, face_model: FaceModel) -> Motion:
    """What the corpus's average speaker would do at these sounds, with a still head."""
    frames = len(clip.lips)
    count = max(1, round(frames / clip.fps * RULES_FPS))
    phones, last = [], 0.0
    for name, start, end in phonemes:
        if start > last:
            phones.append(Phone("sil", last, start))
        phones.append(Phone(name, start, end))
        last = end
    phones.append(Phone("sil", last, max(last, frames / clip.fps)))
    values = expected_mouth(
        [phone for phone in phones if phone.end > phone.start],
        clip.waveform.double().numpy(),
        SAMPLE_RATE,
        count,
    )
    expression = CoefficientSequence(
        "expression", torch.from_numpy(values), RULES_FPS, face_model.name, ARKIT_NAMES
    ).resample(clip.fps, frames)
    still = torch.zeros(frames, len(POSE_NAMES))
    return expression, CoefficientSequence("pose", still, clip.fps, face_model.name, POSE_NAMES)
