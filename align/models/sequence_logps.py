"""Token log-probabilities of many completions under a model that is not trained, in batches of like sequences."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from align.models.layout import Layout
from align.models.logprobs import TiledHead, completion_logps, packed_logps
from align.objectives.logps import TokenLogps

TOKENS = 4096
"""Tokens of prompts and completions that are computed at once."""
Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Ids of a prompt, at least one, and of its completion."""


def logps_of(
    model: Any,
    head: nn.Module,
    sequences: Sequences,
    *,
    label: str,
    device: torch.device,
    lay_out: Callable[[Sequences], Layout] | None = None,
    tiled: TiledHead | None = None,
    share: tuple[int, int] = (0, 1),
    tokens: int = TOKENS,
) -> Iterator[list[tuple[int, Tensor]]]:
    """Yield, batch by batch, numbers of sequences and the log-probability of every token of their completions.

    Args:
        model: a causal language model, in the mode that it is to be in.
        head: its output embedding.
        sequences: those that begin with one prompt are computed together.
        label: what the progress bar says.
        device: that the model computes on.
        lay_out: lays sequences out for a model that attends over trees; None computes them padded.
        tiled: as :func:`~align.models.logprobs.completion_logps`.
        share: number of this process, and how many there are: each yields every so-manieth batch, and all compute
            equally many, since some engines need every process in each forward.
        tokens: most tokens of a batch that has more than one prompt.
    """
    batches = _batches(sequences, tokens, packed=lay_out is not None)
    rank, processes = share
    rounds = -(-len(batches) // processes)
    with tqdm(total=len(sequences), desc=label, unit=" rows", leave=False, disable=rank > 0) as bar:
        for number in range(rounds):
            mine = number * processes + rank
            batch = batches[min(mine, len(batches) - 1)]
            some = [sequences[i] for i in batch]
            with torch.no_grad():
                found = (
                    _padded(model, head, some, device, tiled)
                    if lay_out is None
                    else packed_logps(model, head, lay_out(some).to(device), tiled=tiled)
                )
                logps = [logp[mask].cpu() for logp, mask in zip(found.logp, found.mask, strict=True)]
            if mine < len(batches):
                yield list(zip(batch, logps, strict=True))
            bar.update(sum(map(len, batches[number * processes : (number + 1) * processes])))


def _padded(model: Any, head: nn.Module, some: Sequences, device: torch.device, tiled: TiledHead | None) -> TokenLogps:
    whole = [[*prompt, *completion] for prompt, completion in some]
    width = max(map(len, whole))
    place = torch.arange(width, device=device)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in whole], device=device)
    lengths = torch.tensor(list(map(len, whole)), device=device)[:, None]
    starts = torch.tensor([len(prompt) for prompt, _ in some], device=device)[:, None]
    real = place < lengths
    return completion_logps(
        model,
        head,
        input_ids=ids,
        attention_mask=real.long(),
        completion_mask=real & (place >= starts),
        tiled=tiled,
    )


def _batches(sequences: Sequences, tokens: int, *, packed: bool) -> list[list[int]]:
    """Return numbers of sequences of like lengths, those of one prompt together, as many as fit."""
    of_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(sequences):
        of_prompt.setdefault(tuple(prompt) if packed else (i,), []).append(i)
    lengths = {i: sum(map(len, sequences[i])) for i in range(len(sequences))}
    groups = sorted(of_prompt.values(), key=lambda group: max(lengths[i] for i in group))
    batches: list[list[int]] = []
    batch: list[int] = []
    for group in groups:
        more = [*batch, *group]
        size = sum(lengths[i] for i in more) if packed else max(lengths[i] for i in more) * len(more)
        if batch and size > tokens:
            batches.append(batch)
            batch = []
        batch = [*batch, *group]
    return [*batches, batch] if batch else batches
