"""Sparse token masks: the objective reads sums of log-probabilities over the tokens that tell two responses apart.

Yuan et al., arXiv:2410.13828, section 5.2, propose masks on tokens with a penalty that keeps them sparse; how they are
computed and what the penalty is could not be established. Both kinds here are ours. ``contrast``: 1 on tokens outside
the longest common blocks of the two responses, a stated weight on those inside. ``learned``: ``sigmoid(v . h + b)`` of
the policy's last hidden state, which predicts the token, trained with the policy; the loss of a pair grows by
``penalty`` times the mean weight of its tokens (an L1 penalty, as weights are not negative).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from align.models.beside import BESIDE, joined
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.recipe.disentangle import Sparse

ATTRIBUTE = "token_mask"
"""The name of the mask's layer on the head: it is wrapped, optimised and kept with the policy, and not exported."""
MASK_FILE = "token_mask.safetensors"
START = 2.0
"""b at the start: weights of about 0.88."""


def contrast_weights(chosen: list[int], rejected: list[int], shared: float) -> tuple[list[float], list[float]]:
    """Return a weight for each token of two responses: 1, or ``shared`` inside blocks that both have in one order.

    Examples:
        >>> contrast_weights([5, 1, 7, 8], [5, 2, 7, 8], 0.0)
        ([0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])
    """
    weights = [1.0] * len(chosen), [1.0] * len(rejected)
    for block in SequenceMatcher(None, chosen, rejected, autojunk=False).get_matching_blocks():
        for side, start in zip(weights, (block.a, block.b), strict=True):
            side[start : start + block.size] = [shared] * block.size
    return weights


class TokenMasks:
    """Weights of tokens, for policy and reference alike; one object for a whole training.

    Args:
        settings: which kind.
        head: the policy's output embedding, before anything wraps it; a learned mask puts its layer on it.
    """

    def __init__(self, settings: Sparse, head: nn.Module) -> None:
        self.settings, self.head = settings, head
        self._weights: tuple[Tensor, Tensor] | None = None
        self._logits: list[Tensor] = []
        if settings.mask == "learned":
            weight: Any = head.weight
            layer = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=weight.dtype)
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, START)
            setattr(layer, BESIDE, True)
            setattr(head, ATTRIBUTE, layer)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Compute a learned mask beside the forward inside, the policy's."""
        if self.settings.mask != "learned":
            yield
            return
        self._logits = []

        def beside(module: nn.Module, args: Any, output: Any) -> Any:
            layer = getattr(self.head, ATTRIBUTE)
            logits = layer(args[0].detach().to(layer.weight.dtype))
            self._logits.append(logits[0, :, 0].float())
            return joined(output, logits)

        handle = self.head.register_forward_hook(beside)
        try:
            yield
        finally:
            handle.remove()

    def read(self, policy: PairTokenLogps, batch: Mapping[str, Tensor]) -> None:
        """Take the weights of a batch's tokens, after the policy's forward."""
        masks = policy.chosen.mask, policy.rejected.mask
        if self.settings.mask == "learned":
            (logits,) = self._logits
            values = torch.sigmoid(logits)
            count = int(masks[0].sum())
            parts = values[:count], values[count:]
            laid = [
                torch.zeros(m.shape, device=v.device).masked_scatter(m, v) for m, v in zip(masks, parts, strict=True)
            ]
        else:
            laid = _contrast(batch, masks, self.settings.shared)
        self._weights = laid[0], laid[1]

    def masked(self, logps: PairTokenLogps) -> PairTokenLogps:
        """Return log-probabilities with every token's weight on it."""
        assert self._weights is not None
        chosen, rejected = (
            replace(side, logp=side.logp.masked_fill(~side.mask, 0.0) * weights.to(side.logp.dtype))
            for side, weights in zip((logps.chosen, logps.rejected), self._weights, strict=True)
        )
        return replace(logps, chosen=chosen, rejected=rejected)

    def penalty(self, policy: PairTokenLogps) -> Float[Tensor, " pairs"] | None:
        """Return what the mask costs each pair; None where it is not learned."""
        if self.settings.mask != "learned":
            return None
        return self.settings.penalty * self.mean(policy)

    def mean(self, policy: PairTokenLogps) -> Float[Tensor, " pairs"]:
        """Return the mean weight of each pair's tokens."""
        assert self._weights is not None
        sides: tuple[TokenLogps, TokenLogps] = (policy.chosen, policy.rejected)
        totals = [w.masked_fill(~s.mask, 0.0).sum(-1) for s, w in zip(sides, self._weights, strict=True)]
        return (totals[0] + totals[1]) / (sides[0].lengths + sides[1].lengths)

    def save(self, folder: Path) -> None:
        """Keep a learned mask in a folder."""
        if self.settings.mask == "learned":
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: value.detach().cpu().contiguous() for name, value in self._layer.state_dict().items()}
            save_file(state, folder / MASK_FILE)

    def load(self, folder: Path) -> None:
        """Take a learned mask from a checkpoint.

        Raises:
            ValueError: if there is none: the run it is of learned no mask.
        """
        if self.settings.mask != "learned":
            return
        if not (folder / MASK_FILE).is_file():
            raise ValueError(f"{folder} holds no {MASK_FILE}: the run it is of learned no mask")
        self._layer.load_state_dict(load_file(folder / MASK_FILE))

    @property
    def _layer(self) -> nn.Module:
        layer: nn.Module = getattr(self.head, ATTRIBUTE)
        return layer


def _contrast(batch: Mapping[str, Tensor], masks: tuple[Tensor, Tensor], shared: float) -> list[Tensor]:
    pairs = len(masks[0])
    ids = [row[kept].tolist() for row, kept in zip(batch["input_ids"], batch["completion_mask"].bool(), strict=True)]
    laid = [torch.zeros(mask.shape) for mask in masks]
    for pair in range(pairs):
        for side, weights in zip(laid, contrast_weights(ids[pair], ids[pairs + pair], shared), strict=True):
            side[pair, : len(weights)] = torch.tensor(weights)
    return [side.to(mask.device) for side, mask in zip(laid, masks, strict=True)]
