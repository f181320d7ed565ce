"""How little a model expected the tokens of completions."""

from typing import Any

from torch import nn

from align.models.sequence_logps import Sequences, logps_of


def surprisals(model: Any, head: nn.Module, sequences: Sequences, *, label: str) -> list[list[float]]:
    """Return the surprisal of every token of completions, in nats: ``-log p`` given what stands before it.

    Args:
        model: a causal language model, on the device it computes on.
        head: its output embedding.
        sequences: ids of a prompt, at least one, and of its completion.
        label: what the progress bar says.
    """
    found: list[list[float]] = [[] for _ in sequences]
    was_training = model.training
    model.eval()
    for batch in logps_of(model, head, sequences, label=label, device=model.device):
        for i, logp in batch:
            found[i] = (-logp).tolist()
    model.train(was_training)
    return found
