"""``python -m training.autoencoder``: see :mod:`training.stages.autoencoder`."""

from .stages.autoencoder import main

if __name__ == "__main__":
    raise SystemExit(main())
