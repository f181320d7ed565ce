"""The mathematics of preference: pure functions of sequence log-probabilities.

An objective is ``token weighting -> score -> link``; see :mod:`align.objectives.base`.
"""
