"""Log-probabilities of tokens from hidden states, vocabulary and tokens in tiles: no table of tokens x vocabulary.

The forward keeps one number a token, the log of its normaliser; the backward computes the logits of a tile again. Few
logits (:attr:`Tiles.kept`) are kept instead, all in one tile: memory has a bound either way. Where
the head is not trained (LoRA), the forward finds the gradient of the hidden states on its way, and the backward only
scales it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRule:
    """What a model does to logits behind its head: ``softcap * tanh(scale * logit / softcap)``, over a temperature.

    Attributes:
        scale: factor of the logits.
        softcap: bound of the logits; None for none.
        temperature: divides the logits at last; 1 is the model's own distribution.
    """

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the logits that the model's distribution is made of, in float32; float64 of such ones."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits if self.temperature == 1.0 else logits / self.temperature

    def slope(self, ruled: Tensor) -> Tensor | float:
        """Return the derivative by the head's own logits, given what :meth:`__call__` made of them."""
        constant = self.scale / self.temperature
        if self.softcap is None:
            return constant
        return constant * (1 - (ruled * self.temperature / self.softcap) ** 2)


def rule_of(config: Any) -> LogitRule:
    """Return the rule that a model's configuration states; models that do something else are found out by a check."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    divisor = getattr(text, "logits_scaling", None)
    factors = (getattr(text, name, None) for name in ("logit_scale", "lm_head_multiplier"))
    scale = 1.0 if divisor is None else 1.0 / divisor
    for factor in factors:
        scale *= 1.0 if factor is None else factor
    return LogitRule(scale=scale, softcap=getattr(text, "final_logit_softcapping", None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """How much is computed at once.

    Attributes:
        tokens: tokens.
        vocabulary: entries of the vocabulary.
        kept: most logits that are kept for the backward, where all of them are no more than that.
    """

    tokens: int = 1024
    vocabulary: int = 8192
    kept: int = 2**24

    @classmethod
    def on(cls, device: torch.device) -> "Tiles":
        """Return tiles for a device: some MiB stay in a CPU's caches, a GPU wants enough to do at once."""
        return cls(tokens=4096, vocabulary=32768, kept=2**26) if device.type == "cuda" else cls()

    def of_tokens(self, count: int) -> Iterator[slice]:
        """Yield slices of so many tokens."""
        return (slice(start, start + self.tokens) for start in range(0, count, self.tokens))

    def of_vocabulary(self, count: int) -> Iterator[slice]:
        """Yield slices of so many entries."""
        return (slice(start, min(count, start + self.vocabulary)) for start in range(0, count, self.vocabulary))


def can_be_tiled(head: nn.Module) -> bool:
    """Return whether a head is a plain linear layer, whose weights alone make the logits."""
    return isinstance(head, nn.Linear) and not hasattr(head, "base_layer") and not hasattr(head, "quant_state")


def tiled_logps(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, " vocabulary"] | None,
    targets: Int[Tensor, " tokens"],
    *,
    rule: LogitRule,
    tiles: Tiles,
    collision: bool = False,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"] | None]:
    """Return the log-probability of each target, and with ``collision`` the log of the sum of squared probabilities.

    Gradients reach hidden states, weight and bias; the second output has none.
    """
    kind = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
    logp, squares = _TiledLogps.apply(hidden, weight, bias, targets, rule, tiles, collision, kind)  # type: ignore[no-untyped-call]
    return logp, squares if collision else None


class _TiledLogps(torch.autograd.Function):
    """Forward and backward by tiles."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        rule: LogitRule,
        tiles: Tiles,
        collision: bool,
        kind: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logp, normaliser = (torch.empty(len(hidden), dtype=exact, device=hidden.device) for _ in range(2))
        squares = torch.empty(len(hidden) if collision else 0, dtype=exact, device=hidden.device)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        on_the_way = needs_hidden and not needs_weight and not needs_bias
        slopes = torch.empty_like(hidden, dtype=exact) if on_the_way else None
        keeps = any(ctx.needs_input_grad[:3]) and not on_the_way and 0 < hidden.shape[0] * weight.shape[0] <= tiles.kept
        tiles = replace(tiles, tokens=len(hidden), vocabulary=len(weight)) if keeps else tiles
        kept = None
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in tiles.of_tokens(len(hidden)):
                tile = _Forward(hidden[rows], targets[rows], exact, collision=collision, slopes=on_the_way)
                for entries in tiles.of_vocabulary(len(weight)):
                    ruled = rule(_logits(tile.hidden, weight, bias, entries, kind))
                    tile.add(ruled, weight, entries, rule, kind, in_place=not keeps)
                    kept = ruled if keeps else None
                logp[rows], normaliser[rows] = tile.logp(), tile.normaliser()
                if collision:
                    squares[rows] = tile.log_sum_sq()
                if slopes is not None:
                    slopes[rows] = tile.slope(weight, rule, kind)
        ctx.rule, ctx.tiles, ctx.kind = rule, tiles, kind
        if on_the_way:
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, normaliser, kept)
        ctx.on_the_way = on_the_way
        ctx.type = hidden.dtype
        ctx.mark_non_differentiable(squares)
        return logp, squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
        nothing = (None,) * 5
        if ctx.on_the_way:
            (slopes,) = ctx.saved_tensors
            return ((slopes * gradient[:, None]).to(ctx.type), None, None, *nothing)
        hidden, weight, bias, targets, normaliser, kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        exact = gradient.dtype
        with torch.autocast(hidden.device.type, enabled=False):
            of_hidden = torch.zeros_like(hidden, dtype=exact) if needs_hidden else None
            of_weight = torch.zeros_like(weight, dtype=exact) if needs_weight else None
            of_bias = torch.zeros_like(bias, dtype=exact) if needs_bias else None
            for rows in ctx.tiles.of_tokens(len(hidden)):
                part, answer = hidden[rows], targets[rows]
                for entries in ctx.tiles.of_vocabulary(len(weight)):
                    ruled = ctx.rule(_logits(part, weight, bias, entries, ctx.kind)) if kept is None else kept
                    pull = torch.exp(ruled - normaliser[rows, None]).neg_()
                    _at(pull, answer, entries, 1.0)
                    pull *= gradient[rows, None]
                    pull *= ctx.rule.slope(ruled)
                    low = pull.to(_kind(part, ctx.kind))
                    if of_hidden is not None:
                        of_hidden[rows] += low @ weight[entries].to(low.dtype)
                    if of_weight is not None:
                        _add_product(of_weight[entries], low, part.to(low.dtype))
                    if of_bias is not None:
                        of_bias[entries] += pull.sum(0)
        found = (
            None if of is None else of.to(like.dtype)
            for of, like in ((of_hidden, hidden), (of_weight, weight), (of_bias, bias))
        )
        return (*found, *nothing)


class _Forward:
    """One tile of tokens, over which the vocabulary passes."""

    def __init__(self, hidden: Tensor, targets: Tensor, exact: torch.dtype, *, collision: bool, slopes: bool) -> None:
        self.hidden, self.targets = hidden, targets
        nothing = torch.zeros(len(hidden), dtype=exact, device=hidden.device)
        self.largest, self.total, self.answer = nothing - torch.inf, nothing, nothing
        self.squares = nothing if collision else None
        self.expected = torch.zeros_like(hidden, dtype=exact) if slopes else None

    def add(
        self,
        ruled: Tensor,
        weight: Tensor,
        entries: slice,
        rule: LogitRule,
        kind: torch.dtype | None,
        *,
        in_place: bool,
    ) -> None:
        """Take in the logits of a tile of the vocabulary; they may be gone afterwards."""
        largest = torch.maximum(self.largest, ruled.amax(1))
        faded = torch.exp(self.largest - largest)
        here = (self.targets >= entries.start) & (self.targets < entries.stop)
        inside = (self.targets - entries.start).clamp(0, ruled.shape[1] - 1)
        self.answer = torch.where(here, ruled.gather(1, inside[:, None])[:, 0], self.answer)
        slope = rule.slope(ruled) if self.expected is not None else 1.0
        mine = in_place and rule.softcap is None  # else the slope or the backward reads them
        shares = ruled.sub_(largest[:, None]).exp_() if mine else torch.exp(ruled - largest[:, None])
        self.total = self.total * faded + shares.sum(1)
        if self.squares is not None:
            self.squares = self.squares * faded**2 + (shares * shares).sum(1)
        if self.expected is not None:
            low = (shares * slope).to(_kind(self.hidden, kind))
            self.expected = self.expected * faded[:, None] + low @ weight[entries].to(low.dtype)
        self.largest = largest

    def normaliser(self) -> Tensor:
        """Return the log of the sum of exponentials of all logits."""
        return self.largest + self.total.log()

    def logp(self) -> Tensor:
        """Return the log-probability of each target."""
        return self.answer - self.normaliser()

    def log_sum_sq(self) -> Tensor:
        """Return the log of the sum of squared probabilities."""
        assert self.squares is not None
        return self.squares.log() - 2 * self.total.log()

    def slope(self, weight: Tensor, rule: LogitRule, kind: torch.dtype | None) -> Tensor:
        """Return the gradient of each log-probability by its hidden state."""
        assert self.expected is not None
        own = weight[self.targets].to(_kind(self.hidden, kind)).to(self.expected.dtype)
        slope = rule.slope(self.answer)
        slope = slope[:, None] if isinstance(slope, Tensor) else slope
        return own * slope - self.expected / self.total[:, None]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, entries: slice, kind: torch.dtype | None) -> Tensor:
    into = _kind(hidden, kind)
    part = None if bias is None else bias[entries].to(into)
    return nn.functional.linear(hidden.to(into), weight[entries].to(into), part)


def _kind(hidden: Tensor, autocast: torch.dtype | None) -> torch.dtype:
    return hidden.dtype if autocast is None or hidden.dtype == torch.float64 else autocast


def _at(table: Tensor, targets: Tensor, entries: slice, add: float) -> None:
    """Add to the entry of each row's target, where it is among the entries of a tile."""
    here = (targets >= entries.start) & (targets < entries.stop)
    inside = (targets - entries.start).clamp(0, table.shape[1] - 1)
    table.scatter_add_(1, inside[:, None], here[:, None].to(table.dtype) * add)


def _add_product(total: Tensor, pull: Tensor, hidden: Tensor) -> None:
    """Add ``pull.T @ hidden``, in the total's own type where both are of it."""
    if total.dtype == pull.dtype:
        total.addmm_(pull.T, hidden)
    else:
        total += pull.T @ hidden
