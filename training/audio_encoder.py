"""``python -m training.audio_encoder``: see :mod:`training.stages.audio_encoder`."""

from .stages.audio_encoder import main

if __name__ == "__main__":
    raise SystemExit(main())
