"""A value for every pixel."""
