"""Embeddings that are judged by retrieval."""
