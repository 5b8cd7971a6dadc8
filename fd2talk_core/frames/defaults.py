"""What holds where nobody says otherwise; in a file of its own, since what only shows these values, such as a
node's widget, needs none of the networks' imports.
"""

from __future__ import annotations

DEFAULT_DETAIL = 1.0
"""The portrait is believed as far as the decoder's blend was trained to, see
:class:`~fd2talk_core.frames.blending.BlendedPortrait`."""
