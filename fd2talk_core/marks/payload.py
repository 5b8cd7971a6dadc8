"""What the pixel mark says, in a code that survives errors: version, id, checksum, convolutional code."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from ..errors import FD2TalkError

VERSION = 1
VERSION_BITS, ID_BITS, CHECK_BITS = 4, 44, 20
INFORMATION_BITS = VERSION_BITS + ID_BITS + CHECK_BITS
_MEMORY = 6
_GENERATORS = (0o133, 0o171, 0o165)
"""Rate 1/3 with 64 states: the code of the largest free distance of that size (15)."""
CODED_BITS = (INFORMATION_BITS + _MEMORY) * len(_GENERATORS)


@dataclass(frozen=True)
class MarkPayload:
    """What a mark says.

    Attributes:
        identifier: 44 bits that tell a clip from others, written as 11 hexadecimal digits.
        version: of the mark's layout.

    Raises:
        FD2TalkError: when a number does not fit its bits.
    """

    identifier: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.identifier < 1 << ID_BITS:
            raise FD2TalkError(f"The id {self.identifier} of a mark does not fit into {ID_BITS} bits.")
        if not 0 <= self.version < 1 << VERSION_BITS:
            raise FD2TalkError(f"The version {self.version} of a mark does not fit into {VERSION_BITS} bits.")

    @classmethod
    def parse(cls, text: str) -> MarkPayload:
        """The payload of an id's 11 hexadecimal digits."""
        if not re.fullmatch(r"[0-9a-f]{11}", text):
            raise FD2TalkError(f"The id of a mark is {text!r}, but 11 hexadecimal digits are needed.")
        return cls(int(text, 16))

    def __str__(self) -> str:
        return f"{self.identifier:011x}"

    def encode(self) -> np.ndarray:
        """``[CODED_BITS]`` of -1 and 1."""
        return _encode(_bits(self._number(), INFORMATION_BITS))

    def _number(self) -> int:
        said = self.version << ID_BITS | self.identifier
        return said << CHECK_BITS | _checksum(said)

    @classmethod
    def decode(cls, soft: np.ndarray) -> MarkPayload | None:
        """The payload of ``[CODED_BITS]`` noisy values, or None where the checksum does not agree. Noise
        passes it once in 2^20 times.
        """
        number = int("".join(map(str, _decode(soft))), 2)
        said, check = number >> CHECK_BITS, number & ((1 << CHECK_BITS) - 1)
        if check != _checksum(said):
            return None
        return cls(said & ((1 << ID_BITS) - 1), said >> ID_BITS)


def _checksum(said: int) -> int:
    digest = hashlib.sha256(b"fd2talk mark" + said.to_bytes(6, "big")).digest()
    return int.from_bytes(digest[:4], "big") & ((1 << CHECK_BITS) - 1)


def _bits(number: int, count: int) -> np.ndarray:
    return np.array([number >> place & 1 for place in reversed(range(count))], dtype=np.int64)


def _branches() -> np.ndarray:
    """``[64, 2, 3]``: what the encoder sends (-1 or 1) in each state for each bit that comes."""
    register = np.arange(2)[None, :] << _MEMORY | np.arange(1 << _MEMORY)[:, None]
    taps = register[..., None] & np.array(_GENERATORS)
    ones = sum((taps >> place) & 1 for place in range(_MEMORY + 1))
    return np.where(ones % 2, 1.0, -1.0)


def _encode(bits: np.ndarray) -> np.ndarray:
    sent, state, branches = [], 0, _branches()
    for bit in (*bits.tolist(), *[0] * _MEMORY):
        sent.append(branches[state, bit])
        state = (bit << _MEMORY | state) >> 1
    return np.concatenate(sent)


def _decode(soft: np.ndarray) -> np.ndarray:
    """The bits that were most probably sent (Viterbi), ``[INFORMATION_BITS]``."""
    branches = _branches()
    states = np.arange(1 << _MEMORY)
    # a state's newest bit is its highest; the two before it differ in the bit that was pushed out
    bit = states >> (_MEMORY - 1)
    before = (states << 1 & (1 << _MEMORY) - 1)[:, None] | np.arange(2)
    score = np.full(len(states), -np.inf)
    score[0] = 0.0
    steps = soft.reshape(-1, len(_GENERATORS))
    chosen = np.empty((len(steps), len(states)), dtype=np.int64)
    for step, values in enumerate(steps):
        reached = score[before] + branches[before, bit[:, None]] @ values
        best = reached.argmax(axis=1)
        chosen[step], score = before[states, best], reached[states, best]
    state, found = 0, []
    for step in reversed(range(len(steps))):
        found.append(int(bit[state]))
        state = int(chosen[step, state])
    return np.array(found[::-1][:INFORMATION_BITS], dtype=np.int64)
