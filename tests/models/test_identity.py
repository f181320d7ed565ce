"""A model's identity: of weights and configuration; the same beneath adapters, of another one with any change."""

import copy

import torch
from peft import LoraConfig

from align.models.adapters import add_adapter
from align.models.identity import identity_of
from align.models.tree_attention import NAME

LORA = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")


def test_the_same_weights_beneath_adapters(model):
    identity = identity_of(model, adapters=True)
    assert identity_of(copy.deepcopy(model), adapters=True) == identity
    adapted = add_adapter(copy.deepcopy(model), LORA)
    assert identity_of(adapted, adapters=False) == identity
    assert identity_of(adapted, adapters=True) != identity


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
