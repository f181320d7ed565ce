"""Models: loading, adapters, the reference policy, and log-probabilities of completions."""
