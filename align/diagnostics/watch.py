"""One batch of pairs that is measured while it trains: by its own backward, or where that says too little a pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from align.diagnostics.capture import Recorder
from align.diagnostics.conditions import Pull
from align.diagnostics.cotangents import Watched, Weights
from align.diagnostics.measure import Measured, Rows, measure, rows_of_pairs
from align.diagnostics.steps import Kept
from align.objectives.logps import PairTokenLogps

Read = Callable[[], Tensor]
"""Gives, after the backward, what came to a tensor of the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was measured of some pairs of a batch.

    Attributes:
        pull: gradients and weights.
        pairs: their numbers in the batch.
        weights: what the loss made of every token.
        kept: their gradients, to be compared with the step that comes.
        extra: whether it took a pass of its own.
    """

    pull: Pull
    pairs: Int[Tensor, " some"]
    weights: Weights
    kept: Kept
    extra: bool


@dataclass(slots=True)
class PairWatch:
    """Watches the pairs ``pairs`` of a batch of :class:`~align.data.collate.PairBatch`.

    Attributes:
        model: the policy, not wrapped.
        head: its output embedding.
        batch: ids and masks, the chosen sides first.
        pairs: numbers of those that are measured.
        recorder: for the model.
    """

    model: nn.Module
    head: nn.Module
    batch: Mapping[str, Tensor]
    pairs: Int[Tensor, " some"]
    recorder: Recorder
    captured: bool = False
    problem: str = ""
    _sides: dict[str, tuple[Read, Tensor]] = field(default_factory=dict)
    _others: Read | None = None
    _losses: Read | None = None

    @property
    def rows(self) -> Rows:
        """All rows of the batch, as the model gets them, in measured groups."""
        total = len(self.batch["input_ids"]) // 2
        return Rows(
            input_ids=self.batch["input_ids"],
            attention_mask=self.batch["attention_mask"],
            completion_mask=self.batch["completion_mask"].bool(),
            groups=torch.stack([self.pairs, self.pairs + total], 1),
        )

    @contextmanager
    def forward(self, rows: Rows) -> Iterator[None]:
        """Watch the forward inside, which computes both sides' log-probabilities; call at most once."""
        self.recorder.attach()
        with self.recorder.watching(rows.sequences):
            yield
        self.captured = True

    def read(self, policy: PairTokenLogps) -> None:
        """Note the log-probabilities that the loss is about to read."""
        for side in ("chosen", "rejected"):
            tokens = getattr(policy, side)
            self.read_side(side, Watched(tokens.logp).get, tokens.mask)
        if policy.prompt is not None:
            prompt = Watched(policy.prompt.logp)
            self._others = lambda: prompt.get().abs().sum(-1) > 0

    def read_side(self, side: str, slope: Read, mask: Tensor) -> None:
        """Note where the weights of one side's tokens will be found."""
        self._sides[side] = slope, mask

    def read_losses(self, slope: Read) -> None:
        """Note where it will be found what the loss of each pair counts."""
        self._losses = slope

    def weights(self) -> Weights:
        """Return the weights of the measured pairs' tokens, after the backward."""
        assert self._losses is not None
        (chosen, chosen_mask), (rejected, rejected_mask) = self._sides["chosen"], self._sides["rejected"]
        others = self._others() if self._others else torch.zeros(len(chosen_mask), dtype=torch.bool)
        everything = Weights(
            chosen=chosen(),
            rejected=rejected(),
            chosen_mask=chosen_mask,
            rejected_mask=rejected_mask,
            loss=self._losses(),
            others=others.to(chosen_mask.device),
        )
        return everything.pick(self.pairs)

    def captured_pairs(self, weights: Weights) -> Tensor:
        """Return which of the pairs the backward itself has measured, and set ``problem`` where it is not all."""
        weight = next(self.model.parameters())
        kind = weight.device.type
        strong = weights.strong(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype)
        whole = weights.factors() & strong
        if not self.captured:
            self.problem = (
                self.problem or "the step computes one side only, shares or packs rows, or has a forward of its own"
            )
        elif faults := self.recorder.faults():
            self.problem = faults[0]
        elif not bool(whole.all()):
            self.problem = (
                "the loss has next to no gradient there"
                if bool((weights.factors() | whole).all())
                else "the loss does not read the two summed log-probabilities alone"
            )
        return whole if self.captured and not self.recorder.faults() else torch.zeros_like(whole)

    def from_backward(self, weights: Weights, which: Tensor) -> Found:
        """Return what the backward itself says of the pairs that ``which`` marks."""
        sides = weights.of_sides.to(torch.float64)
        gradients = self.recorder.finish().pick(which).of_units(sides[which])
        kept = Kept(pieces=self.recorder.pieces, weights=sides, which=which)
        return self._found(gradients, weights, which, kept, extra=False)

    def from_extra_pass(self, weights: Weights, which: Tensor) -> Found:
        """Return what a forward and a backward of their own say of the pairs that ``which`` marks.

        Where tokens do not all count alike, each side is there twice: plain, and as the loss weighs it.
        """
        picked = weights.pick(which)
        rows = rows_of_pairs(self.batch, self.pairs[which])
        per_token = None
        if not bool(picked.factors().all()):
            rows, per_token = doubled(rows, *picked.incentives)
        found: Measured = measure(self.model, self.head, rows, weights=per_token, keep=self.recorder.keep)
        ones = torch.ones(len(rows.groups), rows.groups.shape[1], dtype=torch.float64, device=which.device)
        kept = Kept(pieces=found.recorder.pieces, weights=ones, which=torch.ones_like(which[which]))
        return self._found(found.gradients, weights, which, kept, extra=True)

    def idle_pass(self) -> None:
        """Run a pass that nothing is read of: others cannot gather shards of weights without this process."""
        measure(self.model, self.head, rows_of_pairs(self.batch, [0]))

    def _found(self, gradients: object, weights: Weights, which: Tensor, kept: Kept, *, extra: bool) -> Found:
        picked = weights.pick(which)
        pull = Pull(gradients=gradients, d_w=picked.d_w, d_l=picked.d_l, others=picked.others)  # type: ignore[arg-type]
        return Found(pull=pull, pairs=self.pairs[which], weights=picked, kept=kept, extra=extra)


def doubled(rows: Rows, d_w: Tensor, d_l: Tensor) -> tuple[Rows, Tensor]:
    """Return every row twice, and the weights of all tokens: 1 first, then those of the loss."""
    pairs = len(rows.groups)
    width = max(d_w.shape[1], d_l.shape[1], int(rows.completion_mask.sum(-1).max()))
    of_loss = d_w.new_zeros(2 * pairs, width)
    of_loss[:pairs, : d_w.shape[1]] = d_w
    of_loss[pairs:, : d_l.shape[1]] = d_l
    ids, real, completion = (
        torch.cat([tensor, tensor]) for tensor in (rows.input_ids, rows.attention_mask, rows.completion_mask)
    )
    groups = torch.cat([rows.groups, rows.groups + 2 * pairs], 1)
    per_token = torch.cat([torch.ones_like(of_loss), of_loss])[:, : int(rows.completion_mask.sum(-1).max())]
    return Rows(input_ids=ids, attention_mask=real, completion_mask=completion, groups=groups), per_token
