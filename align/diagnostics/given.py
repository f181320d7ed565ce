"""Gradients of two log-probabilities that a user's own function computes, however it does that.

Where the function calls the model once, with the chosen rows before the rejected ones, and all positions reach the
head, a backward through activations says all. Where it does anything else, each log-probability is differentiated by
itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from align.diagnostics.capture import Recorder
from align.diagnostics.gradients import PairGradients
from align.diagnostics.measure import activations_alone, recorded, same_draws_after, without_checkpointing
from align.diagnostics.places import Sequences
from align.diagnostics.products import Piece, Vectors

Logps = Callable[[nn.Module, Mapping[str, Any]], tuple[Tensor, Tensor]]
"""From a model and a batch to the chosen and rejected log-probabilities of its pairs, each of shape (pairs,)."""


@dataclass(frozen=True, slots=True)
class GivenGradients:
    """What was found of a batch.

    Attributes:
        gradients: of both log-probabilities of the first pairs.
        pieces: the gradients themselves, where they were to be kept.
        pairs: of the whole batch.
        by_itself: whether each log-probability was differentiated by itself.
        uncovered: parameters that are not covered, and why.
    """

    gradients: PairGradients
    pieces: Mapping[int, list[Piece]]
    pairs: int
    by_itself: bool
    uncovered: Mapping[str, str]


class GivenLogps:
    """Measures with a user's function."""

    def __init__(self, logps: Logps) -> None:
        self.logps = logps

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Any], pairs: int | None, *, keep: bool, sharded: bool = False
    ) -> GivenGradients:
        """Return the gradients of the first pairs of a batch; training draws afterwards what it would have drawn.

        Raises:
            ValueError: if the function does not return two vectors of one length, in the graph; or if it does not call
                the model once for both sides, and weights are sharded.
        """
        with same_draws_after(model):
            found = self._at_once(model, batch, pairs, keep=keep)
            if found is None and sharded:
                raise ValueError(
                    "logps does not call the model once with the chosen rows before the rejected ones, or a weight is "
                    "used in a way that is not covered; each log-probability would be differentiated alone, which "
                    "needs whole weights: use one process, ddp, zero1 or zero2, or one forward for both sides"
                )
            return self._one_by_one(model, batch, pairs, keep=keep) if found is None else found

    def _at_once(
        self, model: nn.Module, batch: Mapping[str, Any], pairs: int | None, *, keep: bool
    ) -> GivenGradients | None:
        """Return the gradients from one backward, or None where the function does not call the model once for all."""
        recorder, calls = Recorder(model, keep=keep), list[Tensor]()
        embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]

        def looked_up(module: nn.Module, args: Any) -> None:
            calls.append(args[0])
            if args[0].ndim == 2:
                recorder.sequences = _halves(args[0], pairs)

        with activations_alone(model) as leaves, recorded(recorder), torch.enable_grad():
            handle = embedding.register_forward_pre_hook(looked_up)
            try:
                with recorder.watching_unknown():
                    chosen, rejected = self._checked(model, batch)
            finally:
                handle.remove()
            if len(calls) != 1 or calls[0].ndim != 2 or len(calls[0]) != 2 * len(chosen):
                return None
            torch.autograd.grad(chosen.sum() + rejected.sum(), leaves, allow_unused=True)
        found = recorder.finish()
        if recorder.faults() or found.coverage < 1:
            return None
        return GivenGradients(found, recorder.pieces, len(chosen), False, recorder.uncovered)

    def _one_by_one(
        self, model: nn.Module, batch: Mapping[str, Any], pairs: int | None, *, keep: bool
    ) -> GivenGradients:
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        values = list(named.values())
        with torch.enable_grad(), without_checkpointing(model):
            both = self._checked(model, batch)
            sides = [logps[:pairs] for logps in both]
            whole = [
                [
                    _filled(torch.autograd.grad(one, values, retain_graph=True, allow_unused=True), values)
                    for one in side
                ]
                for side in sides
            ]
        pieces: dict[int, list[Piece]] = {}
        products: dict[str, Tensor] = {}
        for i, (name, value) in enumerate(named.items()):
            stacked = torch.stack([torch.stack([row[i].flatten() for row in side]) for side in whole], 1)
            piece = Vectors(stacked)
            products[name] = piece.products()
            if keep:
                pieces[id(value)] = [piece]
        return GivenGradients(PairGradients(by_parameter=products, coverage=1.0), pieces, len(both[0]), True, {})

    def _checked(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        chosen, rejected = self.logps(model, batch)
        if chosen.ndim != 1 or chosen.shape != rejected.shape or not (chosen.requires_grad and rejected.requires_grad):
            raise ValueError(
                "logps must return the chosen and the rejected log-probabilities as two vectors of one length, made "
                f"with gradients; got shapes {tuple(chosen.shape)} and {tuple(rejected.shape)}, requires_grad "
                f"{chosen.requires_grad} and {rejected.requires_grad}"
            )
        return chosen, rejected


def _halves(tokens: Tensor, pairs: int | None) -> Sequences:
    half = len(tokens) // 2
    first = torch.arange(half, device=tokens.device)[:pairs]
    everything = torch.ones_like(tokens, dtype=torch.bool)
    return Sequences(everything, everything, torch.stack([first, first + half], 1), tokens)


def _filled(gradients: tuple[Tensor | None, ...], values: list[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(v) if g is None else g for g, v in zip(gradients, values, strict=True)]
