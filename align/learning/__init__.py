"""Wing: supervision, sequence, theory of learning."""
