"""Recipes of other projects: what each of their keys is called here, or why it has no counterpart."""
