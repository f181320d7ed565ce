"""What a run leaves to look at: its metrics, read back, and figures of them."""
