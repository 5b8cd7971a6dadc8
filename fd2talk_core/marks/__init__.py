"""Marks of generated videos: in the pixels, in the file, and for the eye."""
