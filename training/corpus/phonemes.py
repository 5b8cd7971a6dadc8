"""One phoneme set for every speech synthesiser: ARPAbet (39 phonemes), the schwa ``ax`` and silence ``sil``.

IPA strings (espeak-ng, VITS voices, Kokoro's alphabet) and the lower-case ARPAbet of flite and festival both
map onto it. Sounds that English lacks fall on the English sound whose mouth shape is nearest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# fmt: off
PHONEMES = (
    "sil", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh",
    "ih",
    "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w",
    "y", "z",
    "zh",
)
# fmt: on
PHONEME_IDS = {name: index for index, name in enumerate(PHONEMES)}
BILABIALS = frozenset("pbm")
OPEN_VOWELS = frozenset(("aa", "ae", "ah", "ao", "aw", "ay"))

_ARPABET_ALIASES = {
    "pau": "sil",
    "h#": "sil",
    "brth": "sil",
    "axr": "er",
    "el": "l",
    "em": "m",
    "en": "n",
    "dx": "d",
}

_IPA_PAIRS = {
    "aɪ": "ay", "eɪ": "ey", "ɔɪ": "oy", "aʊ": "aw", "oʊ": "ow", "əʊ": "ow", "tʃ": "ch", "dʒ": "jh", "ɑɪ":
    "ay",
    "ɛɪ": "ey", "ɔʏ": "oy", "ɜː": "er", "ɑː": "aa", "ɔː": "ao", "iː": "iy", "uː": "uw", "eː": "ey", "oː":
    "ow",
    "aː": "aa", "əl": "l", "pf": "f", "ʌɪ": "ay", "ɒɪ": "oy", "aɪə": "ay", "aɪɚ": "ay", "ɪɹ": "ih", "ts": "s",
}  # fmt: skip
_IPA_SINGLES = {
    "ɑ": "aa", "a": "aa", "ɐ": "ax", "æ": "ae", "ʌ": "ah", "ɒ": "ao", "ɔ": "ao", "ə": "ax", "ᵊ": "ax", "ɚ":
    "er",
    "ɜ": "er", "ɝ": "er", "e": "eh", "ɛ": "eh", "ɪ": "ih", "ᵻ": "ih", "ɨ": "ih", "i": "iy", "y": "uw", "ʏ":
    "uw",
    "o": "ow", "ø": "er", "œ": "er", "ʊ": "uh", "u": "uw", "ʉ": "uw", "ɯ": "uw", "ɤ": "ah", "ɵ": "uh",
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "g", "ɡ": "g", "c": "k", "ɟ": "g", "q": "k", "ʔ":
    "t",
    "ɾ": "d", "ʈ": "t", "ɖ": "d", "m": "m", "ɱ": "m", "n": "n", "ɳ": "n", "ɲ": "n", "ŋ": "ng", "ɴ": "ng",
    "f": "f", "v": "v", "ɸ": "f", "β": "v", "ʋ": "v", "θ": "th", "ð": "dh", "s": "s", "z": "z", "ʃ": "sh",
    "ʒ": "zh", "ɕ": "sh", "ʑ": "zh", "ʂ": "sh", "ʐ": "zh", "ç": "hh", "x": "hh", "χ": "hh", "ɣ": "g", "ʁ":
    "r",
    "h": "hh", "ɦ": "hh", "ħ": "hh", "ɹ": "r", "r": "r", "ɻ": "r", "ʀ": "r", "ɽ": "r", "l": "l", "ɫ": "l",
    "ɭ": "l",
    "ʎ": "l", "ɬ": "l", "j": "y", "ʝ": "y", "w": "w", "ʍ": "w", "ɥ": "w", "ɰ": "w", "ʧ": "ch", "ʤ": "jh",
    "ʦ": "s", "ʣ": "z", "ʨ": "ch", "ʥ": "jh", "A": "ey", "I": "ay", "O": "ow", "W": "aw", "Y": "oy", "Q":
    "ow",
}  # fmt: skip
_STRESS = frozenset("ˈˌ")
_IPA_SILENT = frozenset(' _^$|.,;:!?—…"“”()-')


@dataclass(frozen=True)
class Phone:
    """One phoneme of :data:`PHONEMES` from ``start`` to ``end``, in seconds."""

    name: str
    start: float
    end: float


def from_arpabet(label: str) -> str:
    """The common phoneme of a flite or festival segment label (stress digits ignored); ``sil`` when
    unknown.
    """
    label = label.lower().rstrip("012")
    label = _ARPABET_ALIASES.get(label, label)
    return label if label in PHONEME_IDS else "sil"


def from_ipa(symbol: str) -> str | None:
    """The common phoneme of one IPA symbol: ``sil`` for pauses, None for marks without a length of their
    own.
    """
    symbol = symbol.translate({ord(mark): None for mark in "ˈˌ̩̯̪̃ʲʰˑ˞"})
    if symbol in _IPA_PAIRS:
        return _IPA_PAIRS[symbol]
    for character in symbol:
        if character in _IPA_SINGLES:
            return _IPA_SINGLES[character]
    return "sil" if symbol and symbol[0] in _IPA_SILENT else None


def merge_ipa(timed: Iterable[tuple[str, float, float]], pause: float = 0.1) -> list[Phone]:
    """Phones from timed IPA characters: diphthongs and affricates join, a stress mark's time goes to the
    sound it stresses, a length mark's to the sound it lengthens, a space's (unless it is a pause) to the
    sound before it.

    Args:
        timed: ``(character, start, end)`` in order, without gaps.
        pause: seconds from which on a space or a punctuation mark is silence.
    """
    phones: list[Phone] = []
    previous, pending = "", None
    for character, start, end in timed:
        if character in _STRESS:
            pending = start if pending is None else pending
            continue
        start, pending = (start if pending is None else pending), None
        pair = _IPA_PAIRS.get(previous + character) if phones else None
        name = pair or from_ipa(character)
        if name == "sil" and phones and phones[-1].name != "sil" and end - start < pause:
            name = None
        if phones and (name is None or pair):
            phones[-1] = Phone(pair or phones[-1].name, phones[-1].start, end)
            previous = previous + character if character == "ː" else ("" if name is None else character)
        else:
            phones.append(Phone(name or "sil", start, end))
            previous = character
    return join_repeats(phones)


def join_repeats(phones: Iterable[Phone]) -> list[Phone]:
    """Neighbouring silences become one; phones without any length are left out."""
    joined: list[Phone] = []
    for phone in phones:
        if phone.end <= phone.start:
            continue
        if joined and phone.name == "sil" == joined[-1].name:
            joined[-1] = Phone("sil", joined[-1].start, phone.end)
        else:
            joined.append(phone)
    return joined
