"""What the command line and the nodes offer of marks, without importing what makes them."""

CORNERS = ("bottom right", "bottom left", "top right", "top left")
LABEL_SIZE = 0.05
"""Height of a label's letters as a share of the picture's shorter side, as GB 45438-2025 asks of videos."""
LARGEST_LABEL = 0.5
