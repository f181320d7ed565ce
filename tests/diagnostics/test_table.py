import datasets
import numpy as np
import pytest
import torch

from align.data.prepare import prepare_pairs
from align.diagnostics.measure import brute_force, rows_of_pairs
from align.diagnostics.table import COLUMNS, Plan, drawn, measured, together
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from align.objectives.registry import OBJECTIVES
from tests.conftest import pair_rows
from tests.diagnostics.tiny import llama, pair_batch, suffix_rows, whole_gradients


def table(tokenizer, model, rows, **plan):
    pairs = drawn(prepare_pairs(datasets.Dataset.from_list(rows), tokenizer).dataset, None, 0)
    found = list(measured(model, pairs, Plan(**{"objective": OBJECTIVES.build("dpo"), **plan}), tokenizer.pad_token_id))
    return together(found)


def test_rows_are_those_of_whole_gradients_whatever_the_batch(tokenizer):
    model, rows = llama(tokenizer).eval(), pair_rows(5)
    found = table(tokenizer, model, rows, batch_size=2, verify=3)
    exact = brute_force(model, output_head(model), rows_of_pairs(pair_batch(tokenizer, rows), range(5)))
    np.testing.assert_allclose([row["cosine"] for row in found.rows], exact.cosine, atol=1e-5)
    np.testing.assert_allclose([row["chosen_norm"] for row in found.rows], exact.chosen_norm, rtol=1e-4)
    assert found.max_rel_error < 1e-5
    assert [row["row"] for row in found.rows] == [1, 2, 3, 4, 5]
    total = np.sum([np.array(part) for part in found.layers.values()], axis=0)
    np.testing.assert_allclose(total, exact.products.mean(0), rtol=1e-4, atol=1e-2)
    assert COLUMNS.keys() <= found.rows[0].keys()


def test_of_the_objective_the_weights_are_used(tokenizer):
    model, rows = llama(tokenizer).eval(), pair_rows(3)
    plain, normed = (table(tokenizer, model, rows, objective=OBJECTIVES.build(n)) for n in ("dpo", "simpo"))
    for one, other in zip(plain.rows, normed.rows, strict=True):
        assert one["ratio"] == pytest.approx(1)
        assert other["ratio"] == pytest.approx(other["length_rejected"] / other["length_chosen"], rel=1e-5)


def test_a_reference_of_its_own_changes_the_weights(tokenizer):
    model, other, rows = llama(tokenizer).eval(), llama(tokenizer, seed=1).eval(), pair_rows(2)
    alone, compared = table(tokenizer, model, rows), table(tokenizer, model, rows, reference=other)
    assert [row["d_chosen"] for row in alone.rows] == pytest.approx([0.05, 0.05])
    assert abs(compared.rows[0]["d_chosen"] - 0.05) > 1e-3


def test_where_tokens_are_weighed_changes_are_of_the_loss_itself(tokenizer):
    """ld_dpo weighs the tokens that only one side has."""
    torch.manual_seed(0)
    row = suffix_rows(1)[0]
    row["rejected"] = [{"role": "assistant", "content": row["rejected"][0]["content"] + " the warm rain and tea"}]
    model, objective = llama(tokenizer).double().eval(), OBJECTIVES.build("ld_dpo", alpha=0.2)
    found = table(tokenizer, model, [row], objective=objective).rows[0]
    batch, head = pair_batch(tokenizer, [row]), output_head(model)
    policy, sums = pair_logps(model, head, batch), pair_logps(model, head, batch).summed()
    with torch.no_grad():
        reference = pair_logps(model, head, batch)
    loss = objective.of_tokens(policy, reference).sum()
    chosen, rejected, slope = whole_gradients(model, [sums.chosen.sum(), sums.rejected.sum(), loss])
    assert found["chosen_change"] == pytest.approx(-float(chosen @ slope), rel=1e-4)
    assert found["rejected_change"] == pytest.approx(-float(rejected @ slope), rel=1e-4)


def test_pairs_are_drawn_by_the_seed_and_keep_their_numbers(tokenizer):
    pairs = prepare_pairs(datasets.Dataset.from_list(pair_rows(10)), tokenizer).dataset
    one, same, other = drawn(pairs, 4, 1), drawn(pairs, 4, 1), drawn(pairs, 4, 2)
    assert one["row"][:] == same["row"][:] == sorted(one["row"][:])
    assert one["row"][:] != other["row"][:]
    assert len(drawn(pairs, 99, 1)) == 10


def test_random_weights_are_refused(tokenizer):
    with pytest.raises(ValueError, match="draws tokens at random"):
        table(tokenizer, llama(tokenizer).eval(), pair_rows(1), objective=OBJECTIVES.build("sampo"))
