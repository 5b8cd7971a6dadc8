"""``python -m training.style``: see :mod:`training.stages.style`."""

from .stages.style import main

if __name__ == "__main__":
    raise SystemExit(main())
