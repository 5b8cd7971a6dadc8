"""A shard of a stranger holds pictures and nothing that runs."""

from __future__ import annotations

import pytest
import torch
from PIL import EpsImagePlugin

from fd2talk_core.errors import FD2TalkError
from training.sources import PictureSet


def test_postscript_in_a_shard_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("PostScript ran"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    pictures = PictureSet((eps,), torch.zeros(1), *(torch.zeros(1, 1) for _ in range(3)))
    with pytest.raises(FD2TalkError, match="Picture 0 of the data cannot be read"):
        pictures.read(0)
