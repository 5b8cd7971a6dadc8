"""The six stages, in the order in which they are trained; see ``training/README.md``."""

STAGES = ("audio_encoder", "lip_expert", "motion", "autoencoder", "unet", "blend")
