"""Files: which may be read, what the system says of them, and writing so that nothing is lost.

What stood in a file's place stays until the new one is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checks import shown
from .errors import FD2TalkError

MAX_NAME_BYTES = 255
"""Of one part of a path, on the file systems in use."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")
"""``http://``, ``file:/``; a single letter before the colon is a Windows drive."""


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this is not permitted",
    errno.EPERM: "this is not permitted",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EFBIG: "the file system takes no file so large",
    errno.EIO: "the disk does not answer",
    errno.ENOMEM: "there is not enough memory",
}
_RUST_ERROR = re.compile(r"Os \{ code: (\d+)")
"""How safetensors tells what the system told it."""


def system_error(error: BaseException) -> int | None:
    """The system's number of what went wrong, by whichever library it is told; None for errors of others."""
    number = getattr(error, "errno", None)
    if number is None and (told := _RUST_ERROR.search(str(error))):
        number = int(told[1])
    return number


def reason_of(error: BaseException) -> str:
    """What went wrong with a file, in words: the one place that knows the system's own errors."""
    number = system_error(error)
    if number in _REASONS:
        return _REASONS[number]
    if isinstance(error, UnicodeError):
        return "its name holds characters that no file's name can hold"
    if isinstance(error, MemoryError):
        return _REASONS[errno.ENOMEM]
    told = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return told if len(told) <= 300 else f"{told[:300]}..."


def check_path(path: Any, what: str) -> Path:
    """A path of whatever type names one.

    Args:
        what: what a message calls it, such as ``"The picture"``.

    Raises:
        FD2TalkError: when it is a number, a list or nothing.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str):
        raise FD2TalkError(f"{what} is {shown(path)}, but the name of a file is needed.")
    return Path(name)


def check_input(path: Any, what: str) -> Path:
    """A file that holds something to read. A pipe or a device would be waited for, and may never end.

    Args:
        what: what a message calls it, such as ``"picture"``.

    Raises:
        FD2TalkError: when there is none, or it is a folder, a pipe or a device.
    """
    path = check_path(path, f"The {what}")
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FD2TalkError(f"There is no {what} {shown_path(path)}.") from error
    except (OSError, ValueError) as error:
        raise FD2TalkError(f"The {what} {shown_path(path)} cannot be read: {reason_of(error)}.") from error
    if not stat.S_ISREG(kind):
        found = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
        raise FD2TalkError(f"The {what} {shown_path(path)} cannot be read: it is {found}, not a file.")
    return path


def shown_path(path: Path | str) -> str:
    """A path in a sentence, whatever bytes its name is made of, and however long it is."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Give what the system says while a file is written its name.

    Raises:
        FD2TalkError: in the place of an error of the system or of a writer of files.
    """
    try:
        yield
    except FD2TalkError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and system_error(error) is None:
            raise
        raise FD2TalkError(f"{shown_path(name)} cannot be written ({reason_of(error)}).") from error


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
        FD2TalkError: for what the file system says, as :func:`writing` tells it.
    """
    with writing(Path(path).name), _beside(Path(os.path.realpath(path)), alone) as partial:
        yield partial


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """A folder to write files into, beside ``path``, that becomes it once the block has ended well.

    An empty folder may stand there. After a failure, an interrupt included, what was written is removed.

    Raises:
        FD2TalkError: when something else stands there, and for what the file system says.
    """
    path = check_new_folder(path)
    with writing(path.name):
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}.part")
        partial.mkdir()
        try:
            yield partial
            if target.exists():
                target.rmdir()
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _flush_folder(target.parent)


def check_new_folder(path: Path | str) -> Path:
    """Refuse a folder that cannot be made, before anything long is done for it.

    Raises:
        FD2TalkError: when it is an address, holds something already, or lies where nothing may be written.
    """
    name = os.fspath(check_path(path, "The output folder"))
    if _ADDRESS.match(name):
        raise FD2TalkError(f"The output {name!r} is an address, but a folder on this machine is written.")
    try:
        if not os.path.isdir(name):
            _check_place(name.rstrip(f"/{os.sep}"))
            taken = os.path.lexists(name)
        else:
            taken = any(os.scandir(name))
    except (OSError, ValueError) as error:
        raise FD2TalkError(
            f"The output folder '{shown_path(name)}' cannot be made ({reason_of(error)})."
        ) from error
    if taken:
        raise FD2TalkError(
            f"The output folder '{shown_path(name)}' holds something already: name a new one, so that "
            "nothing is lost."
        )
    return Path(name)


@contextmanager
def _beside(target: Path, alone: bool) -> Iterator[Path]:
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
    check_path(path, "The output")
    name, path = os.fspath(path), Path(path)
    if _ADDRESS.match(name):
        raise FD2TalkError(f"The output {name!r} is an address, but a file on this machine is written.")
    try:
        _check_place(name)
        same = [given for given in inputs if path.exists() and Path(given).exists() and path.samefile(given)]
    except (OSError, ValueError) as error:
        raise FD2TalkError(
            f"The output '{shown_path(name)}' cannot be written ({reason_of(error)})."
        ) from error
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
        raise ValueError(f"its name is too long: at most {MAX_NAME_BYTES} bytes are possible")
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
