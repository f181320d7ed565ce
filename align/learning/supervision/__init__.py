"""What labels and losses say."""
