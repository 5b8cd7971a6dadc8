"""``python -m training.blend``: see :mod:`training.stages.blend`."""

from .stages.blend import main

if __name__ == "__main__":
    raise SystemExit(main())
