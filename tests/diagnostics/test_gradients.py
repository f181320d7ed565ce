import pytest
import torch

from align.diagnostics.gradients import PairGradients, part_of


def found():
    torch.manual_seed(0)
    parts = {f"model.layers.{i}.mlp.weight": torch.randn(3, 2, 7).double() for i in (10, 2)}
    parts["model.embed_tokens.weight"] = torch.randn(3, 2, 7).double()
    parts["model.norm.weight"] = torch.randn(3, 2, 7).double()
    whole = torch.cat(list(parts.values()), -1)
    return PairGradients(by_parameter={name: part @ part.mT for name, part in parts.items()}, coverage=0.9), whole


def test_norms_products_and_cosines():
    gradients, whole = found()
    torch.testing.assert_close(gradients.chosen_norm, whole[:, 0].norm(dim=1))
    torch.testing.assert_close(gradients.rejected_norm, whole[:, 1].norm(dim=1))
    torch.testing.assert_close(gradients.inner, (whole[:, 0] * whole[:, 1]).sum(1))
    torch.testing.assert_close(gradients.cosine, torch.cosine_similarity(whole[:, 0], whole[:, 1]))


def test_layers_stand_in_their_order_and_sum_to_the_whole():
    gradients, _ = found()
    layers = gradients.by_layer()
    assert list(layers) == ["embed_tokens", "layer 2", "layer 10", "norm"]
    torch.testing.assert_close(torch.stack(list(layers.values())).sum(0), gradients.products)


def test_units_are_taken_out():
    gradients, whole = found()
    weights = torch.tensor([[0.5, -2.0], [3.0, 0.1], [-1.0, -1.0]])
    scaled = whole * weights[:, :, None].double()
    loss = PairGradients(by_parameter={"w": scaled @ scaled.mT}, coverage=1.0)
    torch.testing.assert_close(loss.of_units(weights).products, gradients.products, rtol=1e-6, atol=1e-6)


def test_some_pairs():
    gradients, _ = found()
    assert torch.equal(gradients.pick(torch.tensor([True, False, True])).inner, gradients.inner[[0, 2]])
    assert gradients.pick(torch.tensor([1])).coverage == 0.9


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight", "layer 3"),
        ("transformer.h.11.ln_1.weight", "layer 11"),
        ("transformer.wte.weight", "wte"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_parts_are_told_from_names(name, part):
    assert part_of(name) == part
