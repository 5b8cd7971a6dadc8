"""``python -m training.unet``: see :mod:`training.stages.unet`."""

from .stages.unet import main

if __name__ == "__main__":
    raise SystemExit(main())
