"""Attention over trees of tokens (:mod:`align.data.prefix_tree`): every token sees itself and its ancestors.

It is an attention implementation of transformers by the name of :data:`NAME`. Where the mask is no tree's, it is
``sdpa``, so that a model on which it is set generates and evaluates as before. A layout's ``spans`` are passed as the
model's ``attention_mask``: four-dimensional masks reach the attention as they are, whatever the architecture.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "align_tree"
"""As ``attn_implementation``."""

Spans = Int32[Tensor, "sequences 1 2 time"]


def is_spans(mask: Any) -> bool:
    """Return whether an attention mask is a layout's spans."""
    return isinstance(mask, Tensor) and mask.dtype == torch.int32 and mask.ndim == 4 and mask.shape[1:3] == (1, 2)


def seen(spans: Spans, sequence: int, queries: slice, keys: slice, window: int | None = None) -> Tensor:
    """Return which keys each query of a sequence sees.

    Args:
        spans: of a layout.
        sequence: number of the packed sequence.
        queries: positions in it.
        keys: positions in it.
        window: a token sees as many positions as this, its own among them; None for all.
    """
    ends, depths = spans[sequence, 0]
    place = torch.arange(spans.shape[-1], device=spans.device)
    query, key = place[queries, None], place[None, keys]
    mask: Tensor = (key <= query) & (query < ends[keys])
    return mask if window is None else mask & (depths[queries, None] - depths[None, keys] < window)


def tree_attention(
    module: nn.Module,
    query: Float[Tensor, "sequences heads time width"],
    key: Float[Tensor, "sequences some_heads keys width"],
    value: Float[Tensor, "sequences some_heads keys out"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "sequences time heads out"], None]:
    """Return what each token attends to, as functions of transformers' attention interface do.

    Raises:
        ValueError: if the attention of a tree has parts that are not known here (sinks, biases of positions).
    """
    if not is_spans(attention_mask):
        options = {"sliding_window": sliding_window, "softcap": softcap}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **given, **kwargs
        )
    assert attention_mask is not None
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown or dropout:
        raise ValueError(f"attention over trees knows no {', '.join(unknown) or 'dropout'}")
    if query.device.type == "cuda":
        from align.models.flex_trees import flex_trees

        found = flex_trees(query, key, value, attention_mask, scaling, sliding_window, softcap)
        return found.transpose(1, 2).contiguous(), None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    window = sliding_window if isinstance(sliding_window, int) else None
    sequences = []
    for number, parts in enumerate(_parts(attention_mask, window, query.dtype)):
        q, k, v = query[number : number + 1], key[number : number + 1], value[number : number + 1]
        attended = [part.attend(q, k, v, scaling, softcap) for part in parts]
        sequences.append(torch.cat(attended, 2) if len(attended) > 1 else attended[0])
    found = torch.cat(sequences) if len(sequences) > 1 else sequences[0]
    return found.transpose(1, 2).contiguous(), None


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring queries of a sequence, and the keys that any of them sees.

    Attributes:
        queries: the positions.
        keys: positions from the start of the tree.
        mask: 0 where a query sees a key, minus infinity where not; None where it sees all up to itself.
    """

    queries: slice
    keys: slice
    mask: Float[Tensor, "queries keys"] | None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
        q, k, v = query[:, :, self.queries], key[:, :, self.keys], value[:, :, self.keys]
        if softcap is None:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, is_causal=self.mask is None and q.shape[2] > 1, scale=scaling
            )
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = softcap * torch.tanh(scores / softcap)
        size = q.shape[2]
        mask = self.mask
        if mask is None:
            mask = torch.full((size, size), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        return torch.softmax((scores + mask).float(), -1).to(v.dtype) @ v


_known: Any = WeakIdKeyDictionary()
"""Parts of the spans that are in use: all layers of a forward, and its backward, ask for the same."""


def _parts(spans: Spans, window: int | None, dtype: torch.dtype) -> list[list[_Part]]:
    """Return the parts of each sequence: of every tree its stem, then all branches; padding goes with the last."""
    known = _known.setdefault(spans, {})
    if (window, dtype) not in known:
        known[window, dtype] = [_of_sequence(spans, s, window, dtype) for s in range(len(spans))]
    return known[window, dtype]  # type: ignore[no-any-return]


def _of_sequence(spans: Spans, sequence: int, window: int | None, dtype: torch.dtype) -> list[_Part]:
    ends, depths = spans[sequence, 0].tolist()
    starts = [place for place, depth in enumerate(depths) if depth == 0]
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(ends)], strict=True):
        stem = start + 1
        while stem < stop and depths[stem] == stem - start and ends[stem] == stop:
            stem += 1
        plain = window is None or stem - start <= window
        whole = slice(start, stop)
        if plain:
            parts.append(_Part(slice(start, stem), slice(start, stem), None))
        else:
            parts.append(_masked(spans, sequence, slice(start, stem), slice(start, stem), window, dtype))
        if stem < stop:
            parts.append(_masked(spans, sequence, slice(stem, stop), whole, window, dtype))
    return parts


def _masked(spans: Spans, sequence: int, queries: slice, keys: slice, window: int | None, dtype: torch.dtype) -> _Part:
    visible = seen(spans, sequence, queries, keys, window)
    hidden = torch.zeros(visible.shape, dtype=dtype, device=spans.device).masked_fill_(~visible, -torch.inf)
    return _Part(queries, keys, hidden)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
