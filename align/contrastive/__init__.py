"""Wing: contrastive and self-supervised representation learning."""
