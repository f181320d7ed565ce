"""Parts that methods of all wings are made of, each written once."""
