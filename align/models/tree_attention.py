"""Attention over trees of tokens (:mod:`align.data.prefix_tree`): every token sees itself and its ancestors.

It is an attention implementation of transformers by the name of :data:`NAME`. Where the mask is no tree's, it is
``sdpa``, so that a model on which it is set generates and evaluates as before. A layout's ``spans`` are passed as the
model's ``attention_mask``: four-dimensional masks reach the attention as they are, whatever the architecture.
"""

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from align.models.tree_parts import Plan, plan
from align.models.windows import layer_window

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
    window = layer_window(module, sliding_window)
    if query.device.type == "cuda":
        from align.models.flex_trees import flex_trees

        found = flex_trees(query, key, value, attention_mask, scaling, window, softcap)
        return found.transpose(1, 2).contiguous(), None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    rows = (torch.split(tensor, 1) for tensor in (query, key, value))
    each = zip(plans(attention_mask, window, query.dtype), *rows, strict=True)
    sequences = [one.attend(q, k, v, scaling, softcap) for one, q, k, v in each]
    found = torch.cat(sequences) if len(sequences) > 1 else sequences[0]
    return found.transpose(1, 2).contiguous(), None


_known: Any = WeakIdKeyDictionary()
"""Plans of the spans that are in use: all layers of a forward, and its backward, ask for the same."""


def plans(spans: Spans, window: int | None, dtype: torch.dtype) -> list[Plan]:
    """Return how each sequence of a layout is attended to, made once for as long as the spans are there."""
    known = _known.setdefault(spans, {})
    if (window, dtype) not in known:
        known[window, dtype] = [plan(sequence[0].cpu(), window, dtype) for sequence in spans]
    return known[window, dtype]  # type: ignore[no-any-return]


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
