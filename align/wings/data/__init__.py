"""Pictures and rows that come with packages, or are the user's own; a module a source, found by its name."""
