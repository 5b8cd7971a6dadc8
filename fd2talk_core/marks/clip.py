"""The marks of one clip: what is drawn into its frames and written into its file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .credentials import CredentialSigner
from .label import Label
from .payload import ID_BITS, MarkPayload
from .pixels import PixelMark
from .settings import MarkSettings
from .tags import FileTags


@dataclass(frozen=True)
class ClipMarks:
    """What marks a clip on its way out.

    Attributes:
        payload: its id.
        label: the visible label; None for none.
        settings: what the owner of the machine has decided.
        signer: of its file; None where the settings name none.
    """

    payload: MarkPayload
    label: Label | None = None
    settings: MarkSettings = field(default_factory=MarkSettings)
    signer: CredentialSigner | None = None

    @classmethod
    def of(cls, *made_of: object, label: tuple[str, str, float] | None = None) -> ClipMarks:
        """The marks of a clip, whose id is a hash of what it is made of: made again, it has the same id and
        the same frames.

        Args:
            made_of: tensors and plain values.
            label: text, corner and size; an empty text is no label.

        Raises:
            FD2TalkError: when the label cannot be drawn, or the owner's settings cannot be read.
        """
        settings = MarkSettings.read()
        digest = hashlib.sha256()
        for part in made_of:
            if isinstance(part, Tensor):
                values = part.detach().to("cpu", torch.float32).contiguous()
                digest.update(repr(tuple(values.shape)).encode())
                digest.update(values.numpy().tobytes())
            else:
                digest.update(repr(part).encode())
        identifier = int.from_bytes(digest.digest()[:8], "big") & ((1 << ID_BITS) - 1)
        drawn = Label.of(*label, font=settings.label_font) if label else None
        return cls(MarkPayload(identifier), drawn, settings, CredentialSigner.of(settings))

    @classmethod
    def again(cls, identifier: str) -> ClipMarks:
        """The marks of a clip whose frames bear them already, by its id.

        Raises:
            FD2TalkError: when that is no id, or the owner's settings cannot be read.
        """
        settings = MarkSettings.read()
        return cls(MarkPayload.parse(identifier), None, settings, CredentialSigner.of(settings))

    def add_to(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Chunks of frames ``[n, H, W, 3]`` in 0..1 with the label and the pixel mark."""
        return map(self.marker(), chunks)

    def marker(self) -> Callable[[Tensor], Tensor]:
        """What marks frames ``[n, H, W, 3]``; the first that it is given must be the clip's first."""
        mark = PixelMark(self.payload) if self.settings.pixel_mark else None

        def add_to(frames: Tensor) -> Tensor:
            if self.label is not None:
                frames = self.label.add_to(frames)
            return frames if mark is None else mark.add_to(frames)

        return add_to

    def join(self, chunks: Iterator[Tensor]) -> Tensor:
        """As :meth:`add_to`, all frames at once, ``[F, H, W, 3]``."""
        return torch.cat(list(self.add_to(chunks)))

    def on_file(self, inputs: Iterable[Path | str] = ()) -> dict[str, Any]:
        """Further arguments of a :class:`~fd2talk_core.formats.video.VideoWriter` that writes the clip.

        Args:
            inputs: files that it is made from.
        """
        if not self.settings.file_tags:
            return {}
        tags = FileTags.now(str(self.payload))

        def finish(path: Path) -> None:
            tags.append_xmp(path)
            if self.signer is not None:
                self.signer.sign(path, tags, inputs)

        return {"tags": tags.metadata(), "finish": finish}
