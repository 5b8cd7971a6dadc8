"""What holds where nobody says otherwise; in a file of its own, since what only shows these values, such as a
node's widget, needs none of the networks' imports.
"""

from __future__ import annotations

DEFAULT_DETAIL = 0.85
"""The strength with the best structural similarity on held-out heads, see
:class:`~fd2talk_core.frames.detail.PortraitDetail`."""
