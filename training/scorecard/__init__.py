"""``python -m training.scorecard --weights DIR``: what a set of weights reaches, in one table.

Set A is held out of the corpus (:mod:`.frames`, :mod:`.motion`), set B is portraits (:mod:`.talking`), set C
is real speech with its words (:mod:`.speech`); :mod:`.cost` counts bytes, operations and seconds.
"""
