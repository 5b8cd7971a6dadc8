"""``python -m training.flow``: see :mod:`training.stages.flow`."""

from .stages.flow import main

if __name__ == "__main__":
    raise SystemExit(main())
