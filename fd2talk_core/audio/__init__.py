"""Sound: reading it, resampling it, and wav2vec 2.0 features of it."""
