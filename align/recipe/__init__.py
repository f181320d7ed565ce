"""Recipes: YAML into one typed tree, strictly."""
