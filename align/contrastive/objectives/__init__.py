"""Losses of pairs, and what they do to embeddings."""
