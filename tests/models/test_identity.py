"""A model's identity: of weights and configuration; the same beneath adapters, of another one with any change."""

import copy

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig

from align.models.adapters import add_adapter
from align.models.identity import depends_on_batch, identity_of
from align.models.tree_attention import NAME

LORA = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")


def test_the_same_weights_beneath_adapters(model):
    identity = identity_of(model, adapters=True)
    assert identity_of(copy.deepcopy(model), adapters=True) == identity
    adapted = add_adapter(copy.deepcopy(model), LORA)
    assert identity_of(adapted, adapters=False) == identity
    assert identity_of(adapted, adapters=True) != identity


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_adapters_count_where_they_add_something(model):
    """New ones add nothing, on linear layers and on embeddings; whole copies that are saved always count."""
    beneath = identity_of(model, adapters=False)
    assert identity_of(model, adapters=None) == beneath
    for target in ("all-linear", ["embed_tokens"]):
        lora = LoraConfig(r=2, target_modules=target, task_type="CAUSAL_LM")
        adapted = add_adapter(copy.deepcopy(model), lora)
        assert identity_of(adapted, adapters=None) == beneath
        factor = ".lora_embedding_A." if target == ["embed_tokens"] else ".lora_B."
        with torch.no_grad():
            [weight for name, weight in adapted.named_parameters() if factor in name][-1].fill_(0.3)
        assert identity_of(adapted, adapters=None) == identity_of(adapted, adapters=True) != beneath
    saved = LoraConfig(r=2, target_modules="all-linear", modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    assert identity_of(add_adapter(copy.deepcopy(model), saved), adapters=None) != beneath


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_what_codes_are_multiplied_by_counts(kind):
    """Weights four times as large have the same codes."""
    import bitsandbytes

    def layer(factor):
        made = torch.nn.Module()
        made.config = LlamaConfig()
        weight = factor * torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
        if kind == "nf4":
            made.layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4")
            made.layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        else:
            made.layer = bitsandbytes.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False)
            made.layer.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return made.to("cpu")

    one, four = layer(1.0), layer(4.0)
    assert torch.equal(one.layer.weight.data, four.layer.weight.data)
    assert identity_of(layer(1.0), adapters=True) == identity_of(one, adapters=True)
    assert identity_of(one, adapters=True) != identity_of(four, adapters=True)


def test_every_change_counts(model):
    identity = identity_of(model, adapters=True)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1e-3
    assert identity_of(changed, adapters=True) != identity
    assert identity_of(copy.deepcopy(model).to(torch.bfloat16), adapters=True) != identity
    scaled = copy.deepcopy(model)
    scaled.config.rms_norm_eps = 0.1
    assert identity_of(scaled, adapters=True) != identity


def test_what_does_not_count(model):
    identity = identity_of(model, adapters=True)
    moved = copy.deepcopy(model)
    moved.config._name_or_path, moved.config.use_cache = "elsewhere", False
    moved.set_attn_implementation(NAME)
    assert identity_of(moved, adapters=True) == identity
    wrapped = torch.nn.Module()
    wrapped.module = moved
    assert identity_of(wrapped, adapters=True) == identity


def test_how_strong_adapters_are_and_which_are_on_counts(model):
    """The same weights, multiplied by another number, are another model."""
    adapted = add_adapter(copy.deepcopy(model), LORA)
    adapted.add_adapter("other", LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    identity = identity_of(adapted, adapters=True)
    assert identity_of(copy.deepcopy(adapted), adapters=True) == identity
    stronger = copy.deepcopy(adapted)
    for module in stronger.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] *= 2
    assert identity_of(stronger, adapters=True) != identity
    switched = copy.deepcopy(adapted)
    switched.set_adapter("other")
    switched.requires_grad_(False)
    assert identity_of(switched, adapters=True) != identity
    assert identity_of(stronger, adapters=False) == identity_of(switched, adapters=False)


def test_weights_that_adapters_replace_whole_are_not_what_is_beneath(model):
    whole = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["mlp"], task_type="CAUSAL_LM")
    adapted = add_adapter(copy.deepcopy(model), whole)
    assert identity_of(adapted, adapters=False) == identity_of(model, adapters=True)


def test_buffers_that_are_saved_count(model):
    identity = identity_of(model, adapters=True)
    buffered = copy.deepcopy(model)
    buffered.model.register_buffer("bias_of_experts", torch.ones(3), persistent=True)
    first = identity_of(buffered, adapters=True)
    buffered.model.bias_of_experts[0] = 2.0
    assert len({identity, first, identity_of(buffered, adapters=True)}) == 3
    passing = copy.deepcopy(model)
    passing.model.register_buffer("mask", torch.ones(3), persistent=False)
    assert identity_of(passing, adapters=True) == identity


@pytest.mark.parametrize(
    ("rope", "longest", "depends"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None, False),
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, None, False),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 65, True),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, None, True),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 64, False),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 257, True),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 256, False),
        ({"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 64}}, 65, True),
    ],
)
def test_ropes_that_read_the_longest_row_of_a_batch(model, rope, longest, depends):
    model.config.rope_parameters = rope
    assert bool(depends_on_batch(model, longest)) is depends
