"""Small exact experiments on what can be proved."""
