"""``python -m training.lip_expert``: see :mod:`training.stages.lip_expert`."""

from .stages.lip_expert import main

if __name__ == "__main__":
    raise SystemExit(main())
