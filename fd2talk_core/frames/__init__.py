"""Frames: the portrait, where each place of a frame lies in it, denoising, decoding and pasting back."""
