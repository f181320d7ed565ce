import pytest
import torch

from align.diagnostics.measure import measure, rows_of_pairs
from align.diagnostics.token_map import token_map
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from tests.conftest import pair_rows
from tests.diagnostics.tiny import llama, pair_batch, suffix_rows, whole_gradients


def prepared(tokenizer, row):
    import datasets

    from align.data.prepare import prepare_pairs

    return prepare_pairs(datasets.Dataset.from_list([row]), tokenizer).dataset[0]


@pytest.mark.parametrize("tie", [True, False])
def test_every_cell_is_the_cosine_of_two_tokens_own_gradients(tokenizer, tie):
    model, row = llama(tokenizer, tie_word_embeddings=tie).eval(), pair_rows(1)[0]
    found = token_map(model, output_head(model), prepared(tokenizer, row))
    policy = pair_logps(model, output_head(model), pair_batch(tokenizer, [row]))
    sides = [side.logp[0][side.mask[0]] for side in (policy.chosen, policy.rejected)]
    whole = [whole_gradients(model, list(side)) for side in sides]
    exact = torch.nn.functional.normalize(whole[0]) @ torch.nn.functional.normalize(whole[1]).T
    torch.testing.assert_close(found.cosines, exact, rtol=0, atol=1e-5)


def test_the_map_sums_to_the_pairs_inner_product_and_the_first_shared_token_is_the_same(tokenizer):
    model, row = llama(tokenizer).eval(), suffix_rows(1)[0]
    found = token_map(model, output_head(model), prepared(tokenizer, row))
    gradients = measure(model, output_head(model), rows_of_pairs(pair_batch(tokenizer, [row]), [0])).gradients
    assert float(found.inner.sum()) == pytest.approx(float(gradients.inner), rel=1e-4)


def test_one_token_in_one_context_has_one_gradient(tokenizer):
    model, row = llama(tokenizer).eval(), suffix_rows(1)[0]
    begun = [{"role": "assistant", "content": f"the {row[side][0]['content']}"} for side in ("chosen", "rejected")]
    found = token_map(
        model, output_head(model), prepared(tokenizer, {**row, "chosen": begun[:1], "rejected": begun[1:]})
    )
    assert found.chosen[0] == found.rejected[0]
    assert float(found.cosines[0, 0]) == pytest.approx(1)


def test_long_sides_are_cut_and_that_is_said(tokenizer):
    model = llama(tokenizer).eval()
    found = token_map(model, output_head(model), prepared(tokenizer, suffix_rows(1)[0]), most=3)
    assert found.cosines.shape == (3, 3)
    assert found.cut > 10
