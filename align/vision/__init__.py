"""Wing: image, dense prediction, generation, vision and language."""
