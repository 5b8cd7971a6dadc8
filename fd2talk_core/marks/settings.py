"""What the owner of a machine has decided about marks: a file in the home folder, where no workflow writes.

``.fd2talk/marks.json`` in the home folder of the user who runs the program, the same on every system::

    {"pixel_mark": true, "file_tags": true, "label_font": "/path/to/font.ttf"}

All entries are optional. Neither a graph, nor an API call, nor an argument of the command line changes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import FD2TalkError
from ..files import reason_of

LARGEST_FILE = 1 << 16


@dataclass(frozen=True)
class MarkSettings:
    """The owner's choice.

    Attributes:
        pixel_mark: whether the pixels are marked.
        file_tags: whether a video's file is tagged.
        label_font: a font file for visible labels; empty takes Pillow's own, which has Latin letters alone.
        c2pa_certificate, c2pa_key: PEM files of a certificate chain and its private key, by which videos are
            signed where ``c2pa-python`` is installed; empty signs nothing.
    """

    pixel_mark: bool = True
    file_tags: bool = True
    label_font: str = ""
    c2pa_certificate: str = ""
    c2pa_key: str = ""

    @classmethod
    def read(cls) -> MarkSettings:
        """The settings of this machine; everything is on where there is no file.

        Raises:
            FD2TalkError: when the file is no JSON object of these entries.
        """
        path = settings_path()
        try:
            with path.open("rb") as file:
                text = file.read(LARGEST_FILE + 1)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise FD2TalkError(f"The marks' settings {path} cannot be read ({reason_of(error)}).") from error
        try:
            given = json.loads(text) if len(text) <= LARGEST_FILE else None
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise FD2TalkError(f"The marks' settings {path} are no JSON object.")
        kinds = {field.name: type(field.default) for field in fields(cls)}
        for name, value in given.items():
            if name not in kinds:
                raise FD2TalkError(
                    f"The marks' settings {path} have the entry {name!r}, but these are known: "
                    f"{', '.join(kinds)}."
                )
            if not isinstance(value, kinds[name]):
                wanted = "true or false" if kinds[name] is bool else "text"
                raise FD2TalkError(
                    f"The entry {name!r} of the marks' settings {path} is {value!r}; {wanted} is needed."
                )
        return cls(**given)


def settings_path() -> Path:
    """Where the owner's settings lie, whether there are any or not.

    Raises:
        FD2TalkError: when the system does not say where this user's home folder is.
    """
    try:
        return Path.home() / ".fd2talk" / "marks.json"
    except RuntimeError as error:
        raise FD2TalkError("This system does not say where the home folder is; set HOME.") from error
