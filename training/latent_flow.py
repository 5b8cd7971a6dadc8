"""``python -m training.latent_flow``: see :mod:`training.stages.latent_flow`."""

from .stages.latent_flow import main

if __name__ == "__main__":
    raise SystemExit(main())
