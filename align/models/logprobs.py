"""Log-probabilities of completion tokens; logits of other positions are never computed.

A hook in front of the language-model head keeps only the hidden states that predict a completion token. What the
model does to logits after its head (soft caps, scales) it does to those, and the model is called as a whole, so that
wrappers around it (DDP, adapters, autocast) see an ordinary call.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from align.objectives.logps import TokenLogps


def completion_logps(
    model: nn.Module,
    head: nn.Module,
    *,
    input_ids: Int[Tensor, "sequences time"],
    attention_mask: Int[Tensor, "sequences time"],
    completion_mask: Bool[Tensor, "sequences time"],
    temperature: float = 1.0,
    collision: bool = False,
    read_states: Callable[[Sequence[Tensor]], Any] | None = None,
) -> TokenLogps:
    """Run the model once and return the logp of every completion token, in float32; in float64 of such a model.

    Args:
        model: a causal language model, wrapped or not, called with ``input_ids`` and ``attention_mask``.
        head: its output embedding, found before it was wrapped (:func:`output_head`).
        input_ids: prompt, completion, padding on the right.
        attention_mask: 1 on real tokens.
        completion_mask: True on completion tokens, which follow one another; never on the first token.
        temperature: divides the logits; 1 is the model's own distribution.
        collision: whether to add the log of the sum of squared probabilities at each token, without gradient.
        read_states: is given the hidden states of all layers, in the graph, the embeddings first.

    Raises:
        ValueError: if the model does not pass all positions through ``head`` in one call.
    """
    predicted = completion_mask[:, 1:]
    with _only_positions(head, F.pad(predicted, (0, 1))):
        asked = {} if read_states is None else {"output_hidden_states": True}
        output = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **asked)
    logits = output.logits
    if read_states is not None:
        read_states(output.hidden_states)
    targets = input_ids[:, 1:][predicted]
    if logits.shape[:2] != (1, len(targets)):
        raise ValueError(f"{type(model).__name__} returned logits of shape {tuple(logits.shape)} past its own head")
    scaled = (logits[0] if logits.dtype == torch.float64 else logits[0].float()) / temperature
    logp = -F.cross_entropy(scaled, targets, reduction="none")
    return _padded(logp, completion_mask.sum(-1), _log_sum_sq(scaled.detach()) if collision else None)


def output_head(model: Any) -> nn.Module:
    """Return the module that turns hidden states into logits.

    Raises:
        ValueError: if the model says of none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(model).__name__} has no output embedding; only causal language models train here")
    return head  # type: ignore[no-any-return]


def batch_logps(
    model: nn.Module, head: nn.Module, batch: Mapping[str, Tensor], *, prefix: str = "", temperature: float = 1.0
) -> TokenLogps:
    """Call :func:`completion_logps` with what it needs of a collated batch, whose keys may begin with a prefix."""
    return completion_logps(
        model,
        head,
        input_ids=batch[f"{prefix}input_ids"],
        attention_mask=batch[f"{prefix}attention_mask"],
        completion_mask=batch[f"{prefix}completion_mask"],
        temperature=temperature,
    )


@contextmanager
def _only_positions(head: nn.Module, keep: Bool[Tensor, "sequences time"]) -> Iterator[None]:
    def select(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        if hidden.shape[:2] != keep.shape:
            raise ValueError(f"the head got hidden states of shape {tuple(hidden.shape)}, not one for each position")
        return (hidden[keep].unsqueeze(0), *arguments[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _log_sum_sq(logits: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, " tokens"]:
    return torch.logsumexp(2 * logits, -1) - 2 * torch.logsumexp(logits, -1)


def _padded(
    logp: Float[Tensor, " tokens"], lengths: Int[Tensor, " sequences"], log_sum_sq: Float[Tensor, " tokens"] | None
) -> TokenLogps:
    longest = int(lengths.max())
    mask = torch.arange(longest, device=logp.device) < lengths[:, None]
    laid, squares = (
        None if values is None else torch.zeros_like(mask, dtype=values.dtype).masked_scatter(mask, values)
        for values in (logp, log_sum_sq)
    )
    assert laid is not None
    return TokenLogps(logp=laid, mask=mask, log_sum_sq=squares)
