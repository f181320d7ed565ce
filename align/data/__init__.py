"""Preference rows in the formats people have, turned into exact token ids and padded batches.

The way of a row: :mod:`~align.data.sources` reads it, :mod:`~align.data.formats` makes it a pair
(:class:`~align.data.rows.Row`) or :mod:`~align.data.unpaired` single completions, :mod:`~align.data.template` renders
them as text, :mod:`~align.data.tokenize` makes token ids, :mod:`~align.data.prepare` keeps them on disk,
:mod:`~align.data.collate` pads them.
"""
