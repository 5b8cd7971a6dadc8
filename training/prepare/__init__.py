"""Films of talking people become what the stages learn from: cut, followed, cropped, fitted, sorted, packed.

:mod:`~training.prepare.films` knows how the datasets lie on a disk, :mod:`~training.prepare.cutting` makes
clips of one film, :mod:`~training.prepare.parts` keeps each film's clips until all are done, and
:mod:`~training.prepare.packing` sorts people into training, held-out and test, and writes the shards.
"""
