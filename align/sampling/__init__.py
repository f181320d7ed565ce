"""Generations from a model, cached; scorers; pairs made from them."""
