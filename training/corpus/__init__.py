"""A corpus of talking heads made from nothing but a seed: ``python -m training.corpus --out DIR``.

texts → speech (:mod:`.speech`, phoneme times) → :mod:`.augment` → :mod:`.motion` (visemes, head, eyes) →
:mod:`.clips`; and :mod:`.appearance` → :mod:`.render` → :mod:`.pictures`. Both end in the tar shards of
:mod:`.shards`, which :mod:`training.sources` reads. Every sample comes from its own random stream, so the
same seed gives the same bytes however many processes work on them.
"""
