"""From prepared rows to padded tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NotRequired, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.data.logp_store import LogpStore, kept_table
from align.data.order import FILLER, MISMATCHED, nearest_other
from align.data.packing import Packing, prefix_of

Row = Mapping[str, Any]
"""A row of a prepared data set."""
Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Ids of a prompt and of a completion, for each row of a batch."""


KEPT: Final = "reference_logp"
"""Key of the reference's log-probabilities of completions' tokens, NaN beyond the end of each."""


class PairBatch(TypedDict):
    """B pairs as 2B rows: the chosen sides first, then the rejected ones in the same order.

    Attributes:
        input_ids: prompt and completion, padded on the right.
        attention_mask: 1 on tokens and 0 on padding, by length: the pad token may be the EOS of a row.
        completion_mask: True on the tokens of the completion, the one that closes it among them.
        weight: how much each pair counts in the loss.
        real: False for pairs that only fill the batch up.
        chosen_score: how good each chosen completion is, in its scorer's unit; NaN where nobody said.
        rejected_score: the same of each rejected one.
        reference_logp: the reference's log-probabilities of completions' tokens, where they are kept.
    """

    input_ids: Int[Tensor, "sequences tokens"]
    attention_mask: Int[Tensor, "sequences tokens"]
    completion_mask: Bool[Tensor, "sequences tokens"]
    weight: Float[Tensor, " pairs"]
    real: Bool[Tensor, " pairs"]
    chosen_score: Float[Tensor, " pairs"]
    rejected_score: Float[Tensor, " pairs"]
    reference_logp: NotRequired[Float[Tensor, "sequences completion_tokens"]]


class UnpairedBatch(TypedDict):
    """Single completions, a row each, in the given order; ids and masks as in :class:`PairBatch`.

    Attributes:
        input_ids: prompt and completion.
        attention_mask: 1 on tokens.
        completion_mask: True on the tokens of the completion.
        weight: how much each row counts in the loss.
        real: False for rows that only fill the batch up.
        desirable: True where the completion is desirable.
        reference_logp: as there.
        mismatched_input_ids: each prompt with another row's completion.
        mismatched_attention_mask: 1 on their tokens.
        mismatched_completion_mask: True on the tokens of those completions.
    """

    input_ids: Int[Tensor, "rows tokens"]
    attention_mask: Int[Tensor, "rows tokens"]
    completion_mask: Bool[Tensor, "rows tokens"]
    weight: Float[Tensor, " rows"]
    real: Bool[Tensor, " rows"]
    desirable: Bool[Tensor, " rows"]
    reference_logp: NotRequired[Float[Tensor, "rows completion_tokens"]]
    mismatched_input_ids: NotRequired[Int[Tensor, "rows mismatched_tokens"]]
    mismatched_attention_mask: NotRequired[Int[Tensor, "rows mismatched_tokens"]]
    mismatched_completion_mask: NotRequired[Bool[Tensor, "rows mismatched_tokens"]]


class PairCollator:
    """Pads pairs to the longest sequence of their batch.

    Args:
        pad_token_id: what padding is filled with; any id, nothing is told from it.
        pad_to_multiple_of: round the padded length up to a multiple of this many tokens.
        packing: how pairs are laid out beside the rows, under keys of :class:`~align.data.prefix_tree.Layout`; None
            for not at all.
    """

    def __init__(
        self, pad_token_id: int, pad_to_multiple_of: int | None = None, packing: Packing | None = None
    ) -> None:
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}")
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of
        self.packing = packing
        self.kept: LogpStore | None = None
        """The reference's log-probabilities, which go into batches as :data:`KEPT`; None where it computes them."""

    def __call__(self, pairs: Sequence[Row]) -> PairBatch:
        """Return the batch of pairs with ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, perhaps weight and scores.

        A missing weight is 1, a missing score NaN; other keys are left alone.
        """
        sequences = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
        ids, real, completion = padded(sequences, self.pad_token_id, self.pad_to_multiple_of or 1)
        batch = PairBatch(
            input_ids=ids,
            attention_mask=real,
            completion_mask=completion,
            weight=numbers(pairs, "weight", 1.0),
            real=_real(pairs),
            chosen_score=numbers(pairs, "chosen_score", math.nan),
            rejected_score=numbers(pairs, "rejected_score", math.nan),
        )
        if self.kept is not None:
            batch[KEPT] = kept_table(self.kept, sequences)
        if self.packing is None:
            return batch
        rows = [
            (side, number, pair["prompt_ids"], pair[f"{side}_ids"])
            for side in ("chosen", "rejected")
            for number, pair in enumerate(pairs)
        ]
        return {**batch, **self.packing.of_sides(rows)}  # type: ignore[typeddict-item]


class UnpairedCollator:
    """Pads single completions to the longest of their batch, and pairs prompts with other rows' completions.

    A mismatched row is the row's prompt with the completion that was drawn for it (:class:`~align.data.order.Order`):
    that of the row before it in its optimiser step, as in KTO's estimate of the KL divergence
    (https://arxiv.org/abs/2402.01306). Rows that were not drawn are matched within their batch in the same way. Where
    a row would so get a completion of its own prompt, as the two sides of a pair that was taken apart would, the
    completions move on by as many rows more as it takes; TRL leaves such rows matched. No move helps a batch that is
    mostly one prompt: then it is one row.

    Args:
        pad_token_id: what padding is filled with; any id, nothing is told from it.
        mismatched: whether batches hold mismatched rows.
        max_length: longest mismatched prompt + completion, in tokens; the end of the completion is cut.
        stand_ins: rows for a step of one row, which has no other completion: that of the first with another prompt
            (else the first with another completion) is used. For the last step of an epoch or an evaluation; without
            them such a step is an error.
        packing: how rows are laid out beside the padded ones; None for not at all.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        mismatched: bool,
        max_length: int | None,
        stand_ins: Sequence[Row] = (),
        packing: Packing | None = None,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.mismatched = mismatched
        self.max_length = max_length
        self.stand_ins = tuple(stand_ins)
        self.packing = packing
        self.kept: LogpStore | None = None

    def __call__(self, rows: Sequence[Row]) -> UnpairedBatch:
        """Return the batch of rows with ``prompt_ids``, ``completion_ids``, ``desirable`` and perhaps ``weight``.

        A missing weight is 1; other keys are left alone.

        Raises:
            ValueError: if a batch of one row is to be mismatched, and no row stands in.
        """
        sequences = [(row["prompt_ids"], row["completion_ids"]) for row in rows]
        ids, real, completion = padded(sequences, self.pad_token_id)
        batch = UnpairedBatch(
            input_ids=ids,
            attention_mask=real,
            completion_mask=completion,
            weight=numbers(rows, "weight", 1.0),
            real=_real(rows),
            desirable=torch.tensor([bool(row["desirable"]) for row in rows]),
        )
        if self.kept is not None:
            batch[KEPT] = kept_table(self.kept, sequences)
        if self.packing is not None:
            batch |= self.packing.keys(prefix_of(()), sequences, range(len(rows)))  # type: ignore[typeddict-item]
        if self.mismatched:
            mismatched = self._mismatched(rows)
            ids, real, completion = padded(mismatched, self.pad_token_id)
            batch["mismatched_input_ids"] = ids
            batch["mismatched_attention_mask"] = real
            batch["mismatched_completion_mask"] = completion
            if self.packing is not None:
                laid = self.packing.keys(prefix_of(("mismatched",)), mismatched, range(len(rows)))
                batch |= laid  # type: ignore[typeddict-item]
        return batch

    def _mismatched(self, rows: Sequence[Row]) -> Sequences:
        return [
            (row["prompt_ids"], self._cut(other, len(row["prompt_ids"])))
            for row, other in zip(rows, self._others(rows), strict=True)
        ]

    def _others(self, rows: Sequence[Row]) -> Sequence[Sequence[int]]:
        """Return a completion of another row for each."""
        if any(MISMATCHED in row for row in rows):
            given = [row[MISMATCHED] for row in rows]
            return [self._stand_in(r) if ids is None else ids for r, ids in zip(rows, given, strict=True)]
        if len(rows) == 1:
            return [self._stand_in(rows[0])]
        move = nearest_other([row["prompt_ids"] for row in rows])
        return [rows[i - move]["completion_ids"] for i in range(len(rows))]

    def _cut(self, completion: Sequence[int], prompt: int) -> Sequence[int]:
        return completion if self.max_length is None else completion[: max(1, self.max_length - prompt)]

    def _stand_in(self, row: Row) -> Sequence[int]:
        for column in ("prompt_ids", "completion_ids"):
            for other in self.stand_ins:
                if other[column] != row[column]:
                    return other["completion_ids"]  # type: ignore[no-any-return]
        raise ValueError(
            "a step of one row has no other completion to pair its prompt with; set "
            "trainer.per_device_train_batch_size (and trainer.per_device_eval_batch_size) to 2 or more, and where only "
            "the last step is left with one row, trainer.dataloader_drop_last to true"
        )


def padded(sequences: Sequences, pad_token_id: int, multiple: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and completion mask of rows, padded on the right.

    Args:
        sequences: prompt and completion of each row.
        pad_token_id: what padding is filled with.
        multiple: the width is rounded up to a multiple of this many tokens.
    """
    whole = [[*prompt, *completion] for prompt, completion in sequences]
    lengths = torch.tensor([len(ids) for ids in whole])
    starts = torch.tensor([len(prompt) for prompt, _ in sequences])
    width = -(-int(lengths.max()) // multiple) * multiple
    position = torch.arange(width)
    real = position < lengths[:, None]
    ids = torch.tensor([[*ids, *[pad_token_id] * (width - len(ids))] for ids in whole])
    return ids, real.long(), real & (position >= starts[:, None])


def numbers(rows: Sequence[Row], column: str, absent: float) -> Tensor:
    """Return a number of each row; ``absent`` where it has none."""
    given = [row.get(column) for row in rows]
    return torch.tensor([absent if number is None else number for number in given], dtype=torch.float32)


def _real(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([not row.get(FILLER, False) for row in rows])
