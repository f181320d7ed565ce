"""Log-probabilities of completion tokens; logits of other positions are never computed.

In front of the language-model head, only the hidden states that predict a completion token are kept. What the model
does to logits after its head (soft caps, scales) is done to those, and the model is called as a whole, so that
wrappers around it (DDP, adapters, autocast) see an ordinary call. With tiles, the head gives log-probabilities in place
of logits, and no table of tokens x vocabulary is ever there (:mod:`align.models.tiled_head`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from align.models.layout import Layout
from align.models.tiled_head import LogitRule, Tiles, tiled_logps
from align.objectives.logps import TokenLogps

ReadStates = Callable[[Sequence[Tensor]], Any]


@dataclass(frozen=True, slots=True)
class TiledHead:
    """How log-probabilities are computed at a head: in which tiles, and what the model does behind it."""

    tiles: Tiles
    rule: LogitRule


def completion_logps(
    model: nn.Module,
    head: nn.Module,
    *,
    input_ids: Int[Tensor, "sequences time"],
    attention_mask: Int[Tensor, "sequences time"],
    completion_mask: Bool[Tensor, "sequences time"],
    temperature: float = 1.0,
    collision: bool = False,
    read_states: ReadStates | None = None,
    tiled: TiledHead | None = None,
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
        tiled: compute by tiles; None for all logits of completion tokens at once.

    Raises:
        ValueError: if the model does not pass all positions through ``head`` in one call.
    """
    predicted = completion_mask[:, 1:]
    scored = _Scored(
        positions=F.pad(predicted, (0, 1)).flatten().nonzero()[:, 0],
        targets=input_ids[:, 1:][predicted],
        shape=tuple(input_ids.shape),
        temperature=temperature,
        collision=collision,
    )
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    logp, squares = scored.of(model, head, inputs, tiled, read_states)
    return _padded(logp, completion_mask.sum(-1), squares)


def packed_logps(
    model: nn.Module,
    head: nn.Module,
    layout: Layout,
    *,
    temperature: float = 1.0,
    collision: bool = False,
    read_states: ReadStates | None = None,
    tiled: TiledHead | None = None,
) -> TokenLogps:
    """Return the same for the rows of a layout, whose model attends over trees (:mod:`align.models.tree_attention`).

    Args:
        model: as :func:`completion_logps`, and so for all other arguments but ``layout``.
        head: as there.
        layout: of the rows.
        temperature: as there.
        collision: as there.
        read_states: as there.
        tiled: as there.

    Raises:
        ValueError: as there.
    """
    scored = _Scored(
        positions=layout.parents,
        targets=layout.targets,
        shape=tuple(layout.input_ids.shape),
        temperature=temperature,
        collision=collision,
    )
    inputs = {
        "input_ids": layout.input_ids,
        "attention_mask": layout.spans,
        "position_ids": layout.position_ids,
    }
    logp, squares = scored.of(model, head, inputs, tiled, read_states)
    return TokenLogps(
        logp=logp[layout.edges],
        mask=layout.scored,
        log_sum_sq=None if squares is None else squares[layout.edges],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """What is asked of a forward.

    Attributes:
        positions: numbers of the flattened positions that predict a scored token.
        targets: those tokens.
        shape: of the ids.
        temperature: divides the logits.
        collision: whether sums of squared probabilities are asked for.
    """

    positions: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    shape: tuple[int, ...]
    temperature: float
    collision: bool

    def of(
        self,
        model: nn.Module,
        head: nn.Module,
        inputs: Mapping[str, Tensor],
        tiled: TiledHead | None,
        read_states: ReadStates | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Call the model and return log-probabilities of the targets, and what else is asked for."""
        asked = {} if read_states is None else {"output_hidden_states": True}
        with self._selected(head) if tiled is None else self._tiled(head, tiled) as caught:
            output = model(**inputs, use_cache=False, **asked)
        if read_states is not None:
            read_states(output.hidden_states)
        logits = output.logits
        if logits.shape[:2] != (1, len(self.targets)) or (tiled is not None and not caught):
            raise ValueError(f"{type(model).__name__} returned logits of shape {tuple(logits.shape)} past its own head")
        if tiled is not None:
            logp, squares = caught
            # What the model made of them counts nothing, but engines look for the graph in what a model returns.
            return (logp + 0.0 * logits)[0], squares
        scaled = logits[0] if logits.dtype == torch.float64 else logits[0].float()
        scaled = scaled if self.temperature == 1.0 else scaled / self.temperature
        logp = -F.cross_entropy(scaled, self.targets, reduction="none")
        return logp, _log_sum_sq(scaled.detach()) if self.collision else None

    def _kept(self, hidden: Tensor) -> Tensor:
        if hidden.shape[:2] != self.shape:
            raise ValueError(f"the head got hidden states of shape {tuple(hidden.shape)}, not one for each position")
        return hidden.flatten(0, 1)[self.positions]

    @contextmanager
    def _selected(self, head: nn.Module) -> Iterator[list[Any]]:
        """Let the head see the positions that predict a scored token alone."""

        def select(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (self._kept(arguments[0]).unsqueeze(0), *arguments[1:])

        handle = head.register_forward_pre_hook(select)
        try:
            yield []
        finally:
            handle.remove()

    @contextmanager
    def _tiled(self, head: Any, tiled: TiledHead) -> Iterator[list[Any]]:
        """Let the head return log-probabilities, and put them by as they leave it."""
        caught: list[Any] = []
        rule = replace(tiled.rule, temperature=self.temperature)

        def forward(hidden: Tensor) -> Tensor:
            logp, squares = tiled_logps(
                self._kept(hidden),
                head.weight,
                head.bias,
                self.targets,
                rule=rule,
                tiles=tiled.tiles,
                collision=self.collision,
            )
            caught[:] = [None, squares]
            return logp.unsqueeze(0)

        def catch(module: nn.Module, arguments: Any, output: Tensor) -> None:
            caught[0] = output  # as engines have wrapped it

        with ExitStack() as stack:
            stack.enter_context(_forward_of(head, forward))
            stack.callback(head.register_forward_hook(catch).remove)
            yield caught


@contextmanager
def _forward_of(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace what a module does, hooks left as they are."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


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
    model: nn.Module,
    head: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    prefix: str = "",
    temperature: float = 1.0,
    tiled: TiledHead | None = None,
) -> TokenLogps:
    """Call :func:`completion_logps` with what it needs of a collated batch, whose keys may begin with a prefix."""
    return completion_logps(
        model,
        head,
        input_ids=batch[f"{prefix}input_ids"],
        attention_mask=batch[f"{prefix}attention_mask"],
        completion_mask=batch[f"{prefix}completion_mask"],
        temperature=temperature,
        tiled=tiled,
    )


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
