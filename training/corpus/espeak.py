"""One utterance of eSpeak NG with the sample at which each phoneme begins, as a program of its own.

eSpeak's noise and filter states outlive an utterance, so each is spoken by a fresh process: the same request
then always gives the same bytes. Reads a JSON request from stdin; writes one line of JSON, then 16-bit
samples.
"""

from __future__ import annotations

import ctypes
import json
import sys

_AUDIO_OUTPUT_SYNCHRONOUS, _PHONEME_EVENTS_IPA, _CHARS_UTF8 = 2, 3, 1
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_ubyte * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


def main() -> None:
    request = json.load(sys.stdin)
    espeak = ctypes.CDLL("libespeak-ng.so.1")
    sample_rate = espeak.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IPA)
    pcm: list[bytes] = []
    events: list[tuple[str, int]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def collect(samples, count, event):
        if count > 0:
            pcm.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while event[index].type != _EVENT_END_OF_LIST:
            if event[index].type == _EVENT_PHONEME:
                symbol = bytes(event[index].id.string).split(b"\0")[0].decode("utf-8", "ignore")
                events.append((symbol, event[index].sample))
            index += 1
        return 0

    espeak.espeak_SetSynthCallback(collect)
    if espeak.espeak_SetVoiceByName(request["voice"].encode()):
        sys.exit(f"eSpeak NG has no voice {request['voice']!r}.")
    for name, number in _PARAMETERS.items():
        if name in request:
            espeak.espeak_SetParameter(number, int(request[name]), 0)
    text = request["text"].encode()
    espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
    espeak.espeak_Synchronize()
    header = json.dumps({"sample_rate": sample_rate, "events": events})
    sys.stdout.buffer.write(header.encode() + b"\n" + b"".join(pcm))


if __name__ == "__main__":
    main()
