"""How a command ends: whatever goes wrong is told in one sentence on the terminal, never as a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import FD2TalkError
from .files import reason_of, system_error

TRACEBACK = "FD2TALK_TRACEBACK"
"""Environment variable: with any value, a fault of the program shows where it came from."""
_PACK = Path(__file__).resolve().parents[1]


class Stopped(BaseException):
    """The system asked the process to end; what is being written is put away on the way out."""


def run_command(work: Callable[[], object], prefix: str = "") -> int:
    """Do the work of a command, and tell how it ended.

    Args:
        work: what it gives is printed, unless it is None.
        prefix: before the sentence of what went wrong.

    Returns:
        the exit status: 0, 2 after bad input or when the system cannot do what is needed, 1 after a fault of
        the program, 128 and the signal's number when it was stopped.
    """
    try:
        with _stopping():
            done = work()
    except KeyboardInterrupt:
        return _tell(128 + signal.SIGINT, "Stopped; nothing was written.")
    except Stopped as stopped:
        return _tell(128 + stopped.args[0], "Stopped; nothing was written.")
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _tell(*_ending(error, prefix))
    if done is not None:
        say(done, sys.stdout)
    return 0


def say(text: object, stream: TextIO) -> None:
    """Print a line, whatever bytes a file's name is made of, and whether anybody still reads."""
    encoding = stream.encoding or "utf-8"
    try:
        print(str(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        # who reads has enough, as `head` does; what Python writes at its end would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(status: int, text: str) -> int:
    say(text, sys.stderr)
    return status


def _ending(error: Exception, prefix: str) -> tuple[int, str]:
    """Exit status and sentence of an error."""
    if isinstance(error, FD2TalkError):
        return 2, f"{prefix}{error}"
    if _is_out_of_memory(error):
        return (
            2,
            f"{prefix}There is not enough memory: use a smaller picture or a shorter clip.",
        )
    if isinstance(error, OSError) or system_error(error) is not None:
        name = getattr(error, "filename", None)
        return 2, f"{prefix}{f'{name}: ' if name else ''}{reason_of(error)}."
    places = [place for place in traceback.extract_tb(error.__traceback__) if _is_ours(place.filename)]
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    reason = " ".join(str(error).split())
    return 1, (
        f"{prefix}The program has a fault ({type(error).__name__}{where}: {reason}): please report it, with "
        f"what {TRACEBACK}=1 in the environment shows."
    )


def _is_out_of_memory(error: Exception) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(_PACK) and "site-packages" not in file


@contextmanager
def _stopping() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where there is one, end the work as Ctrl-C does."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    own = threading.current_thread() is threading.main_thread()
    # what is ignored, as under nohup, stays so
    before = {number: signal.getsignal(number) for number in numbers if own}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
