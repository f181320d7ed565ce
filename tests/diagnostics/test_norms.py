import pytest
import torch

from align.diagnostics.measure import rows_of_pairs
from align.diagnostics.norms import NormProbe
from align.models.adapters import add_adapter
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from tests.conftest import pair_rows
from tests.diagnostics.tiny import LORA, llama, pair_batch, whole_gradients


def probed(model, batch, **options):
    head = output_head(model)
    probe = NormProbe(model, head, **options)
    with probe.forward(rows_of_pairs(batch, range(2))):
        policy = pair_logps(model, head, batch)
    products = probe.products(policy)
    return probe, policy, products


@pytest.mark.parametrize("own_pass", [False, True])
def test_norms_before_the_step_are_those_of_whole_gradients_and_leave_the_graph(tokenizer, own_pass):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(2))
    probe, policy, products = probed(model, batch, own_pass=own_pass)
    sums = policy.summed()
    whole = whole_gradients(model, [*sums.chosen, *sums.rejected])
    probe.release()
    expected = torch.stack([whole[[k, 2 + k]] @ whole[[k, 2 + k]].T for k in range(2)])
    torch.testing.assert_close(products, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_of_the_head_alone(tokenizer):
    model, batch = llama(tokenizer, tie_word_embeddings=False), pair_batch(tokenizer, pair_rows(2))
    probe, policy, products = probed(model, batch, head_only=True)
    probe.release()
    weight = model.lm_head.weight
    sums = policy.summed()
    exact = torch.stack(
        [torch.autograd.grad(s, weight, retain_graph=True)[0].flatten() for s in (*sums.chosen, *sums.rejected)]
    )
    for k in range(2):
        mine = exact[[k, 2 + k]] @ exact[[k, 2 + k]].T
        torch.testing.assert_close(products[k].float(), mine, rtol=1e-4, atol=1e-3)


def test_of_a_tied_head_the_embeddings_part_is_left_out(tokenizer):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(2))
    _, _, whole = probed(model, batch)
    probe, _, head = probed(model, batch, head_only=True)
    probe.release()
    assert bool((head[:, 0, 0] < whole[:, 0, 0]).all())
    assert bool((head[:, 0, 0] > 0).all())


def test_of_adapters_the_last_layers_stand_for_the_head(tokenizer):
    model = llama(tokenizer)
    model.name_or_path = "tiny"
    model = add_adapter(model, LORA)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    probe, policy, products = probed(model, pair_batch(tokenizer, pair_rows(2)), head_only=True)
    probe.release()
    last = [w for name, w in model.named_parameters() if w.requires_grad and ".layers.1." in name]
    gradient = torch.autograd.grad(policy.summed().chosen[0], last)
    assert float(products[0, 0, 0]) == pytest.approx(float(sum((g.double() ** 2).sum() for g in gradient)), rel=1e-4)
