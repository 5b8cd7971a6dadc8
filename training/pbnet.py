"""``python -m training.pbnet``: see :mod:`training.stages.pose_blink`."""

from .stages.pose_blink import main

if __name__ == "__main__":
    raise SystemExit(main())
