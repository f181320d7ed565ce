"""Pictures and text in one space."""
