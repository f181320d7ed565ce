"""TRL's fused head, which multiplies with ``lm_head.weight`` itself: what its gradient is, from the hidden states.

The gradient of a scored position's log-probability by the logits is ``e_y - p``, times what the model does to logits
after its head (soft cap, scale), so that hidden states, weight and target say all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from align.diagnostics.capture import Recorder
from align.diagnostics.places import Places
from align.diagnostics.products import Outer, Piece, Vectors
from align.models.sharding import whole_on_device

Transform = Callable[[Tensor], Tensor]


class FusedHead:
    """Watches a model whose forward is TRL's, so that its head can be accounted for.

    Args:
        model: the causal language model, without adapters around it.
    """

    def __init__(self, model: Any) -> None:
        self.head: nn.Module = model.get_output_embeddings()
        self.backbone: nn.Module = model.base_model
        self.transform = transform_of(model.config.get_text_config())
        self.hidden: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the hidden states that the first forward with gradients inside ends with."""

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if self.hidden is None and torch.is_grad_enabled():
                self.hidden = output.last_hidden_state.detach()

        self.hidden = None
        handle = self.backbone.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def supply(
        self,
        recorder: Recorder,
        tokens: Int[Tensor, "rows time"],
        completion: Tensor,
        groups: Int[Tensor, "groups members"],
        weights: Float[Tensor, "groups members"],
    ) -> None:
        """Give a recorder what the head would have said of measured rows.

        Args:
            recorder: of the model.
            tokens: ids.
            completion: True on tokens that are scored.
            groups: numbers of the measured rows.
            weights: what each row's log-probability counts in the loss.
        """
        if not recorder.trains(self.head):
            return
        assert self.hidden is not None
        rows = groups.flatten()
        scored = completion[rows, 1:].bool()
        hidden, targets = self.hidden[rows, :-1][scored], tokens[rows, 1:][scored]
        counts = scored.sum(-1)
        slopes = self._slopes(hidden, targets) * weights.flatten().repeat_interleave(counts)[:, None].to(hidden.dtype)
        places = _places(counts, groups.shape)
        pieces: dict[str, Piece] = {"weight": Outer(hidden, slopes, places)}
        if getattr(self.head, "bias", None) is not None:
            pieces["bias"] = Vectors(places.take(slopes).sum(2))
        recorder.supply(self.head, pieces)
        self.hidden = None

    def _slopes(self, hidden: Float[Tensor, "scored inputs"], targets: Int[Tensor, " scored"]) -> Tensor:
        """Return the gradient of each scored token's log-probability by its logits."""
        weight, bias = (whole_on_device(getattr(self.head, name, None)) for name in ("weight", "bias"))
        assert weight is not None
        logits = F.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            transformed = self.transform(leaf if leaf.dtype == torch.float64 else leaf.float())
            logps = -F.cross_entropy(transformed, targets, reduction="sum")
            (slopes,) = torch.autograd.grad(logps, leaf)
        return slopes


def transform_of(config: Any) -> Transform:
    """Return what TRL's fused head does to logits: a scale of the model's, then a soft cap."""
    scale = next(
        (
            s
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if (s := getattr(config, name, None)) is not None
        ),
        None,
    )
    if scale is None and (scaling := getattr(config, "logits_scaling", None)) is not None:
        scale = scaling if config.model_type == "hyperclovax" else 1 / scaling
    cap = getattr(config, "final_logit_softcapping", None)

    def transform(logits: Tensor) -> Tensor:
        scaled = logits if scale is None else logits * scale
        return scaled if cap is None else cap * torch.tanh(scaled / cap)

    return transform


def _places(counts: Int[Tensor, " rows"], shape: torch.Size) -> Places:
    width = max(1, int(counts.max()))
    position = torch.arange(width, device=counts.device)
    there = position < counts[:, None]
    index = (counts.cumsum(0) - counts)[:, None] + position
    return Places(index.masked_fill(~there, 0).view(*shape, width), there.view(*shape, width))
