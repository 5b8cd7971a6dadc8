"""The papers' tables: what a set of weights makes of talking clips, in the field's own measures.

Read in this order: :mod:`~training.evaluate.columns` says what is measured and what each measure needs,
:mod:`~training.evaluate.making` makes a clip again from its first frame, :mod:`~training.evaluate.scoring`
measures one, :mod:`~training.evaluate.bench` goes through a folder, and :mod:`~training.evaluate.page` shows
the result.
"""
