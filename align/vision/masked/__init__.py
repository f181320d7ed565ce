"""Parts that are hidden, from the network or by it."""
