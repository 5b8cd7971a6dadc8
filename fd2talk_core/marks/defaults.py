"""What the command lines and the nodes offer of marks, without importing what makes them."""

from __future__ import annotations

from argparse import ArgumentParser

CORNERS = ("bottom right", "bottom left", "top right", "top left")
LABEL_SIZE = 0.05
"""Height of a label's letters as a share of the picture's shorter side, as GB 45438-2025 asks of videos."""
LARGEST_LABEL = 0.5


def add_label_options(parser: ArgumentParser) -> None:
    """The label's options of a command line, named as the arguments of a pipeline's call."""
    parser.add_argument("--label", default="", metavar="TEXT", help="a line to be seen in every frame")
    parser.add_argument("--label-corner", choices=CORNERS, default=CORNERS[0])
    parser.add_argument("--label-size", type=float, default=LABEL_SIZE, help="of the picture's shorter side")
