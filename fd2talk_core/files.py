"""Writing files so that nothing is lost: what stood in a file's place stays until the new one is whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FD2TalkError

MAX_NAME_BYTES = 255
"""Of one part of a path, on the file systems in use."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")
"""``http://``, ``file:/``; a single letter before the colon is a Windows drive."""


@contextmanager
def replacing(path: Path | str, alone: bool = False) -> Iterator[Path]:
    """A file to write to, beside ``path``, that takes its place once the block has ended well.

    The new file is flushed to the disk before it is renamed, so that even after a power cut either the old
    or the new one is there, whole. After a failure, an interrupt included, the new one is removed. A killed
    process leaves a hidden ``.NAME.*.part``, never half a file in the place of a good one. Folders on the way
    are made; a link stays a link, to the new content; the mode is what the umask gives a new file.

    Args:
        alone: no other process writes this file now, so what killed ones have left of it is removed.

    Raises:
        OSError: from the file system.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    start = f".{target.stem[:32]}."
    if alone:
        for left in target.parent.iterdir():
            if left.name.startswith(start) and re.fullmatch(r"[0-9a-f]{16}\.part", left.name[len(start) :]):
                left.unlink()
    partial = target.with_name(f"{start}{secrets.token_hex(8)}.part")
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        # some writers make a file of their own, with a mode of their own
        partial.chmod(mode)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Bring the renaming itself to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems know no such call
                os.fsync(handle)
        finally:
            os.close(handle)


def check_output(path: Path | str, endings: Collection[str], inputs: Iterable[Path | str] = ()) -> Path:
    """Refuse a file that cannot or must not be written, before anything long is done for it.

    Args:
        endings: what may be written, such as ``.mp4``.
        inputs: files that the work reads.

    Raises:
        FD2TalkError: when it is an address, a folder, a device, of another ending, in a place that cannot be
            written to, or one of the inputs (by a link as well).
    """
    name, path = os.fspath(path), Path(path)
    if _ADDRESS.match(name):
        raise FD2TalkError(f"The output {name!r} is an address, but a file on this machine is written.")
    try:
        _check_place(name)
        same = [given for given in inputs if path.exists() and Path(given).exists() and path.samefile(given)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FD2TalkError(f"The output {name!r} cannot be written ({reason}).") from error
    if same:
        raise FD2TalkError(
            f"The output {name!r} is the input {os.fspath(same[0])!r}, which it would replace."
        )
    if path.suffix.lower() not in endings:
        raise FD2TalkError(
            f"The output {name!r} has the ending {path.suffix!r}, but {' or '.join(endings)} is written: "
            f"name it {path.stem + next(iter(endings))!r}, for example."
        )
    return path


def _check_place(name: str) -> None:
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in Path(name).parts):
        raise ValueError(f"a name has at most {MAX_NAME_BYTES} bytes")
    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        kind = None
    if name.endswith(("/", os.sep)) or not Path(name).name or (kind is not None and stat.S_ISDIR(kind)):
        raise ValueError("it is a folder")
    if kind is not None and not stat.S_ISREG(kind):
        raise ValueError("it is a device, not a file")
    if kind is not None and not os.access(name, os.W_OK):
        raise ValueError("the file there is write-protected")
    folder = Path(os.path.realpath(name)).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"nothing may be written in {folder}")
