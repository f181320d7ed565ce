"""Windows that a model does not say where it calls attention: taken from its layers' kinds, or refused in words."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.phimoe.modeling_phimoe import PhimoeAttention

from align.models.windows import hidden_window, layer_window
from align.recipe.speed import SpeedSettings
from align.trainers.speed import Speed
from tests.models.test_tree_attention import HEADS, SIZES, compare

EXPERTS = {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}


def model_of(kind, sizes=SIZES, **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **more})).eval()


def phimoe(**more):
    return model_of("phimoe", num_local_experts=2, num_experts_per_tok=2, **more)


def test_a_window_in_the_mask_alone_is_refused():
    model = phimoe(sliding_window=5)
    assert hidden_window(model) == "PhimoeForCausalLM puts its sliding_window into the mask that it builds alone"
    speed = Speed(policy=model)
    assert not speed.packs
    assert "rows are padded, a row each: PhimoeForCausalLM puts its sliding_window" in speed.notes[0]
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match=r"speed.sharing: true cannot be had: PhimoeForCausalLM puts its sliding"):
        Speed(SpeedSettings(sharing=True), policy=model)


def test_without_its_window_the_same_model_is_served():
    model = phimoe(sliding_window=None)
    assert hidden_window(model) == ""
    assert Speed(policy=model).packs


@pytest.mark.parametrize("kind", ["mistral", "mixtral", "phi3", "starcoder2", "ministral3"])
def test_models_that_say_their_window_are_served(kind):
    """None of them has ``layer_types``, as Phi-MoE has none."""
    model = model_of(kind, **({"num_local_experts": 2} if kind == "mixtral" else {}), sliding_window=5)
    assert model.config.sliding_window == 5
    assert hidden_window(model) == ""
    assert Speed(policy=model).packs


def test_a_config_with_a_window_that_nothing_uses_is_served():
    model = model_of("llama", sliding_window=5)
    assert model.config.sliding_window == 5
    assert hidden_window(model) == ""


def test_what_cannot_be_looked_at_is_refused(monkeypatch):
    monkeypatch.setattr(PhimoeAttention, "forward", lambda *args, **kwargs: (args[0].no_such_thing, None))
    found = hidden_window(phimoe(sliding_window=5))
    assert (
        found
        == "PhimoeForCausalLM has a sliding_window, and how it comes to the attention is not known (AttributeError)"
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_kinds_of_layers_say_which_have_it(layers):
    """Qwen2-MoE's first layers have a window, which its attention is called without."""
    options = {**EXPERTS, "shared_expert_intermediate_size": 16, "num_hidden_layers": 3}
    model = model_of("qwen2_moe", **options, use_sliding_window=True, sliding_window=5, max_window_layers=layers)
    assert "sliding_attention" in model.config.layer_types
    assert Speed(SpeedSettings(sharing=True), policy=model).packs
    model.set_attn_implementation("sdpa")
    compare(model)


def test_layers_of_other_models_keep_what_attention_is_called_with():
    for kind in ("gemma3_text", "qwen2"):
        window = {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}
        model = model_of(kind, HEADS, **window)
        for layer in model.model.layers:
            said = layer.self_attn.sliding_window
            assert layer_window(layer.self_attn, said) == said
            assert layer_window(layer.self_attn, None) == said
    assert layer_window(nn.Module(), None) is None
    assert layer_window(nn.Module(), 3) == 3
    assert layer_window(nn.Module(), 0) is None
