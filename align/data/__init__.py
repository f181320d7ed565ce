"""Preference rows in the formats people have, turned into exact token ids and padded batches.

The way of a row: :mod:`~align.data.sources` reads it, :mod:`~align.data.formats` makes it one
:class:`~align.data.rows.Row`, :mod:`~align.data.template` renders it as text, :mod:`~align.data.tokenize` makes
token ids, :mod:`~align.data.prepare` keeps them on disk, :mod:`~align.data.collate` pads them.
"""
