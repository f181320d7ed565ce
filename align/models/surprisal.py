"""How little a model expected the tokens of completions."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from align.models.logprobs import completion_logps

TOKENS = 4096
"""Tokens of prompts and completions that are computed at once."""


@torch.no_grad()
def surprisals(
    model: Any, head: nn.Module, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], *, label: str
) -> list[list[float]]:
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
    with tqdm(total=len(sequences), desc=label, unit=" rows", leave=False) as bar:
        for batch in _batches(sequences):
            whole = [[*sequences[i][0], *sequences[i][1]] for i in batch]
            width = max(map(len, whole))
            place = torch.arange(width, device=model.device)
            ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in whole], device=model.device)
            lengths = torch.tensor(list(map(len, whole)), device=model.device)[:, None]
            starts = torch.tensor([len(sequences[i][0]) for i in batch], device=model.device)[:, None]
            real = place < lengths
            logps = completion_logps(
                model, head, input_ids=ids, attention_mask=real.long(), completion_mask=real & (place >= starts)
            )
            for i, logp, mask in zip(batch, logps.logp, logps.mask, strict=True):
                found[i] = (-logp[mask]).tolist()
            bar.update(len(batch))
    model.train(was_training)
    return found


def _batches(sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[list[int]]:
    """Yield numbers of sequences of like lengths, as many as fit."""
    order = sorted(range(len(sequences)), key=lambda i: sum(map(len, sequences[i])))
    batch: list[int] = []
    for i in order:
        width = sum(map(len, sequences[i]))
        if batch and width * (len(batch) + 1) > TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
