import pytest
import torch

from align.diagnostics.measure import (
    activations_alone,
    brute_force,
    largest_error,
    measure,
    rows_of_pairs,
    without_checkpointing,
)
from align.models.logprobs import output_head
from tests.conftest import pair_rows
from tests.diagnostics.brute import KINDS, error_of, exact_products, model_of, rows_of
from tests.diagnostics.tiny import llama, pair_batch, whole_gradients


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_of_its_own_is_exact_and_makes_no_gradient(kind, lora):
    model, rows = model_of(kind, lora=lora), rows_of()
    found = measure(model, output_head(model), rows)
    exact = exact_products(model, rows)
    assert error_of(found.gradients.products, exact) < 1e-5
    assert error_of(brute_force(model, output_head(model), rows).products, exact) < 1e-5
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_off_inside_and_on_again(reentrant):
    model, rows = model_of("llama"), rows_of()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    on = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    assert on
    with without_checkpointing(model):
        assert not any(m.gradient_checkpointing for m in on)
    found = measure(model, output_head(model), rows).gradients.products
    assert all(m.gradient_checkpointing for m in on)
    assert error_of(found, exact_products(model_of("llama"), rows)) < 1e-5


def test_tokens_may_be_weighed(tokenizer):
    model = llama(tokenizer)
    rows = rows_of_pairs(pair_batch(tokenizer, pair_rows(2)), [0, 1])
    head = output_head(model)
    plain = measure(model, head, rows).tokens
    weights = torch.rand(plain.logp.shape)
    found = measure(model, head, rows, weights=weights).gradients.products
    from align.models.logprobs import completion_logps

    logp = completion_logps(
        model,
        head,
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        completion_mask=rows.completion_mask,
    )
    sums = (logp.logp * weights).masked_fill(~logp.mask, 0).sum(-1)
    whole = whole_gradients(model, list(sums))[rows.groups]
    assert error_of(found, whole @ whole.mT) < 1e-5


def test_rows_of_some_pairs_are_trimmed(tokenizer):
    batch = pair_batch(tokenizer, pair_rows(6))
    rows = rows_of_pairs(batch, [1, 4])
    assert rows.groups.tolist() == [[0, 2], [1, 3]]
    assert torch.equal(rows.input_ids[2], batch["input_ids"][7, : rows.input_ids.shape[1]])
    assert rows.input_ids.shape[1] == int(batch["attention_mask"][[1, 4, 7, 10]].sum(-1).max())
    alone = rows.group(1)
    assert alone.input_ids.shape[1] == int(batch["attention_mask"][[4, 10]].sum(-1).max())


def test_errors_are_relative_to_the_norms(tokenizer):
    model = model_of("llama")
    exact = brute_force(model, output_head(model), rows_of())
    wrong = exact._changed(lambda products: products * 1.5)
    assert largest_error(wrong, exact) == pytest.approx(0.5)
    assert largest_error(exact, exact) == 0


def test_draws_of_training_are_the_same_afterwards():
    model = model_of("llama")
    model.model.layers[0].self_attn.attention_dropout = 0.5
    state = torch.get_rng_state()
    measure(model, output_head(model), rows_of())
    brute_force(model, output_head(model), rows_of())
    assert torch.equal(torch.get_rng_state(), state)


def test_shards_are_refused():
    model = model_of("llama")
    next(model.parameters()).ds_id = 1
    with pytest.raises(ValueError, match="verify under one process or ddp"):
        brute_force(model, output_head(model), rows_of())


def test_outputs_of_embeddings_are_where_the_graph_ends():
    model = model_of("gpt2")
    with activations_alone(model) as leaves, torch.enable_grad():
        out = model(torch.ones(1, 3).long()).logits
        torch.autograd.grad(out.sum(), leaves)
    assert len(leaves) == 2  # tokens and places
    assert all(p.grad is None for p in model.parameters())
