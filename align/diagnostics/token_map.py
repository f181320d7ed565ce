"""The token by token map of one pair: cosines of the gradients of single tokens' log-probabilities, over all weights.

As in section 4.3 of Yuan et al., arXiv:2410.13828, exactly: the gradient of ``log pi(y_t | x, y_<t)`` of every chosen
token with that of every rejected one. Every token is a sequence of its own here, its prefix with itself at the end, so
that one forward and one backward give all of them. This is not the map that splits a sequence's inner product by
positions: a gradient that arrives at a position there is of all later tokens together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.diagnostics.measure import Rows, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMap:
    """Cosines of one pair's tokens.

    Attributes:
        chosen: ids of the chosen tokens.
        rejected: ids of the rejected tokens.
        cosines: of chosen by rejected tokens.
        inner: inner products; their sum over the whole map is the pair's own.
        norms: of the chosen tokens' gradients and of the rejected ones'.
        cut: tokens that were left out at the ends.
    """

    chosen: Sequence[int]
    rejected: Sequence[int]
    cosines: Float[Tensor, "chosen rejected"]
    inner: Float[Tensor, "chosen rejected"]
    norms: tuple[Float[Tensor, " chosen"], Float[Tensor, " rejected"]]
    cut: int


def token_map(model: nn.Module, head: nn.Module, pair: Mapping[str, Any], *, most: int = 48) -> TokenMap:
    """Return the map of a prepared pair.

    Args:
        model: in evaluation mode.
        head: its output embedding.
        pair: with ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``.
        most: tokens of each side; what is beyond is left out.
    """
    sides = [list(pair[name])[:most] for name in ("chosen_ids", "rejected_ids")]
    cut = sum(len(pair[name]) for name in ("chosen_ids", "rejected_ids")) - sum(map(len, sides))
    prompt = list(pair["prompt_ids"])
    prefixes = [[*prompt, *side[: t + 1]] for side in sides for t in range(len(side))]
    products = measure(model, head, _rows(prefixes, next(model.parameters()).device)).gradients.products[0]
    norms = products.diagonal().clamp(min=0).sqrt()
    n = len(sides[0])
    inner = products[:n, n:]
    cosines = inner / (norms[:n, None] * norms[None, n:])
    return TokenMap(
        chosen=sides[0], rejected=sides[1], cosines=cosines, inner=inner, norms=(norms[:n], norms[n:]), cut=cut
    )


def _rows(prefixes: Sequence[Sequence[int]], device: torch.device) -> Rows:
    """Return sequences whose last token alone is scored, all in one group."""
    width = max(map(len, prefixes))
    lengths = torch.tensor([len(ids) for ids in prefixes], device=device)
    ids = torch.tensor([[*p, *[0] * (width - len(p))] for p in prefixes], device=device)
    position = torch.arange(width, device=device)
    return Rows(
        input_ids=ids,
        attention_mask=(position < lengths[:, None]).long(),
        completion_mask=position == lengths[:, None] - 1,
        groups=torch.arange(len(prefixes), device=device)[None],
    )
