import pytest
import torch

from align.diagnostics.given import GivenLogps
from align.diagnostics.measure import brute_force, largest_error, rows_of_pairs
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from tests.conftest import pair_rows
from tests.diagnostics.tiny import llama, pair_batch


def at_once(model, batch):
    ids, mask, completion = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    logp = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0]
    return (logp * completion[:, 1:]).sum(-1).chunk(2)


def twice(model, batch):
    return at_once(model, batch)[0], at_once(model, batch)[1]


def scored_positions_alone(model, batch):
    sums = pair_logps(model, output_head(model), batch).summed()
    return sums.chosen, sums.rejected


@pytest.mark.parametrize(("logps", "by_itself"), [(at_once, False), (twice, True), (scored_positions_alone, True)])
def test_both_ways_are_exact_and_touch_no_gradient(tokenizer, logps, by_itself):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(3))
    found = GivenLogps(logps)(model, batch, 2, keep=True)
    exact = brute_force(model, output_head(model), rows_of_pairs(batch, range(2)))
    assert largest_error(found.gradients, exact) < 1e-5
    assert found.by_itself is by_itself
    assert all(p.grad is None for p in model.parameters())
    weights = {id(p): torch.ones_like(p) for p in model.parameters()}
    along = sum(piece.along(weights[key]) for key, pieces in found.pieces.items() for piece in pieces)
    sums = at_once(model, batch)
    total = torch.autograd.grad(sums[1][1], list(model.parameters()))
    assert float(along[1, 1]) == pytest.approx(float(sum(g.double().sum() for g in total)), rel=1e-3)


def test_all_pairs_where_no_number_is_given(tokenizer):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(3))
    assert len(GivenLogps(at_once)(model, batch, None, keep=False).gradients.cosine) == 3
