"""Heads that tell from a hidden state how much of a response's key content is gone, and their losses.

Self-supervised preference optimisation (Li et al., 2024, arXiv:2409.17791). What the paper's module looks like is not
known: layer, pooling, depth, and the kind of loss are settings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class DegreeHead(nn.Module):
    """Classifies hidden states into degrees, 0 (whole) to K - 1.

    Args:
        width: of hidden states.
        degrees: K.
        depth: linear layers, GELUs between them.
        ordinal: K - 1 logits of "more is gone than in degree k" instead of one a class (CORAL, arXiv:1901.07884).
    """

    def __init__(self, width: int, degrees: int, *, depth: int = 1, ordinal: bool = False) -> None:
        super().__init__()
        self.degrees, self.ordinal = degrees, ordinal
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1 if ordinal else degrees, bias=not ordinal))
        if ordinal:  # one weight vector and K - 1 thresholds: that is what keeps the logits in order
            self.thresholds = nn.Parameter(torch.linspace(1.0, -1.0, degrees - 1))

    def forward(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows logits"]:
        """Return logits: a class each, or of every threshold where ordinal."""
        logits: Tensor = self.layers(hidden)
        return logits + self.thresholds if self.ordinal else logits

    def losses(self, logits: Float[Tensor, "rows logits"], degrees: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return the loss of each row: cross-entropy, or CORAL's sum of binary cross-entropies over thresholds."""
        if not self.ordinal:
            return F.cross_entropy(logits, degrees, reduction="none")
        above = degrees[:, None] > torch.arange(self.degrees - 1, device=degrees.device)
        return F.binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction="none").sum(-1)

    def predicted(self, logits: Float[Tensor, "rows logits"]) -> Int[Tensor, " rows"]:
        """Return the degree that each row is taken for."""
        return (logits > 0).sum(-1) if self.ordinal else logits.argmax(-1)


def pooled(
    hidden: Float[Tensor, "rows time width"], completion_mask: Bool[Tensor, "rows time"], pooling: str
) -> Float[Tensor, "rows width"]:
    """Return the hidden state of each row's last completion token, or the mean over its completion tokens.

    Args:
        hidden: of all positions.
        completion_mask: True on completion tokens, at least one a row.
        pooling: ``last`` or ``mean``.
    """
    if pooling == "mean":
        weights = completion_mask.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    place = torch.arange(completion_mask.shape[1], device=hidden.device)
    last = place.masked_fill(~completion_mask, -1).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def check_layer(config: Any, layer: int) -> None:
    """Refuse a layer that a model does not have, given its config.

    Raises:
        ValueError: as :func:`layer_states`.
    """
    layer_states([torch.empty(0)] * (int(config.get_text_config().num_hidden_layers) + 1), layer)


def layer_states(states: Sequence[Tensor], layer: int) -> Tensor:
    """Return the hidden states of a layer.

    Raises:
        ValueError: if the model has no such layer.
    """
    if not -len(states) <= layer < len(states):
        raise ValueError(
            f"spo.head.layer {layer}: the model has {len(states) - 1} layers, whose states are 0 (embeddings) to "
            f"{len(states) - 1}, or -1 to {-len(states)} from the end"
        )
    return states[layer]


def rank_correlation(degrees: Float[Tensor, " rows"], values: Float[Tensor, " rows"]) -> float:
    """Return Spearman's correlation of values with degrees; NaN of fewer than two, or where all values are the same.

    Equal values have the mean of their ranks.

    Examples:
        >>> round(rank_correlation(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-1.0, -3.0, -2.0])), 3)
        -0.5
    """
    if len(values) < 2:
        return float("nan")
    ranks = torch.stack([_ranks(each) for each in (degrees, values)])
    return float(torch.corrcoef(ranks)[0, 1]) if bool((ranks.std(1) > 0).all()) else float("nan")


def _ranks(values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    lower, same = (found.double().sum(1) for found in (values[:, None] > values, values[:, None] == values))
    return lower + (same - 1) / 2
