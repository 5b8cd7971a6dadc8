"""``python -m training.motion``: see :mod:`training.stages.motion`."""

from .stages.motion import main

if __name__ == "__main__":
    raise SystemExit(main())
