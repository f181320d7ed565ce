"""Pair log-probabilities: the sides that are asked for, prompts, and squares, against a plain forward."""

import datasets
import pytest
import torch

from align.data.collate import PairCollator
from align.data.prepare import prepare_pairs
from align.models.logprobs import output_head
from align.models.pair_logps import kept_tokens, pair_logps, row_range
from tests.conftest import pair_rows


@pytest.fixture
def batch(tokenizer):
    prepared = prepare_pairs(datasets.Dataset.from_list(pair_rows(4)), tokenizer)
    return PairCollator(tokenizer.pad_token_id)([prepared.dataset[i] for i in range(4)])


def normal(model, batch):
    """Return the log-softmax at every position, predicting the next token."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[:, :-1].float().log_softmax(-1)


def by_hand(model, batch, mask):
    logp = normal(model, batch).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return [row[kept] for row, kept in zip(logp, mask[:, 1:], strict=True)]


def rows_of(side):
    return [row[kept].detach() for row, kept in zip(side.logp, side.mask, strict=True)]


def same(found, expected):
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


def test_both_sides(model, batch):
    found = pair_logps(model, output_head(model), batch)
    same([*rows_of(found.chosen), *rows_of(found.rejected)], by_hand(model, batch, batch["completion_mask"]))
    assert found.prompt is None
    assert found.chosen.log_sum_sq is None


@pytest.mark.parametrize(("side", "rows"), [("chosen", slice(0, 4)), ("rejected", slice(4, 8))])
def test_one_side_alone_runs_its_rows_alone(model, batch, side, rows):
    seen = []
    handle = model.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    found = pair_logps(model, output_head(model), batch, sides=(side,))
    handle.remove()
    width = int(batch["attention_mask"][rows].sum(-1).max())
    assert seen == [(4, width)]
    assert row_range(4, (side,)) == rows
    same(rows_of(getattr(found, side)), by_hand(model, batch, batch["completion_mask"])[rows])
    other = getattr(found, {"chosen": "rejected", "rejected": "chosen"}[side])
    assert torch.isnan(other.logp[other.mask]).all()
    assert (
        other.lengths.tolist()
        == batch["completion_mask"].sum(-1)[slice(4, 8) if side == "chosen" else slice(4)].tolist()
    )


def test_prompts_but_their_first_token(model, batch):
    found = pair_logps(model, output_head(model), batch, prompt=True)
    whole = pair_logps(model, output_head(model), batch)
    same(rows_of(found.chosen), rows_of(whole.chosen))
    same(rows_of(found.rejected), rows_of(whole.rejected))
    prompts = batch["attention_mask"].bool() & ~batch["completion_mask"]
    prompts[:, 0] = False
    same(rows_of(found.prompt), by_hand(model, batch, prompts)[:4])


def test_squares_of_the_whole_vocabulary(model, batch):
    found = pair_logps(model, output_head(model), batch, collision=True)
    expected = normal(model, batch).exp().square().sum(-1).log()
    mask = batch["completion_mask"][:, 1:]
    plain = [row[kept] for row, kept in zip(expected, mask, strict=True)]
    sides = [s.log_sum_sq[i][s.mask[i]] for s in (found.chosen, found.rejected) for i in range(4)]
    same(sides, plain)
    assert not found.chosen.log_sum_sq.requires_grad


def test_what_was_kept_is_read_as_it_is():
    """Padding counts nothing; a value that is no number is not taken for certainty."""
    kept = torch.tensor([[-1.0, -2.0], [-3.0, torch.nan], [torch.nan, -1.0]])
    mask = torch.tensor([[False, True, True], [False, True, False], [False, True, True]])
    found = kept_tokens(kept, mask)
    assert found.logp[:2].tolist() == [[-1.0, -2.0], [-3.0, 0.0]]
    assert found.summed().logps.isnan().tolist() == [False, False, True]
