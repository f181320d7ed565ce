"""What sharding leaves to one process: copies, whole tensors, bytes. With several processes: tests/test_engines.py."""

import os
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers.integrations import deepspeed as zero3

from align.models.sharding import (
    duplicate,
    held_bytes,
    is_partitioned,
    kept_whole,
    prepared_reference,
    whole,
    whole_state,
)


def test_a_model_that_is_whole_is_copied(model):
    copied = duplicate(model)
    assert copied is not model
    for name, weight in whole_state(model).items():
        assert torch.equal(weight, dict(copied.named_parameters())[name])
    with torch.no_grad():
        next(copied.parameters()).add_(1.0)
    assert not torch.equal(next(copied.parameters()), next(model.parameters()))


def test_a_tensor_that_is_whole_is_copied():
    tensor = torch.arange(3.0, requires_grad=True)
    copied = whole(tensor)
    assert copied.tolist() == [0.0, 1.0, 2.0]
    assert not copied.requires_grad
    assert not is_partitioned(tensor)


def test_bytes_of_tied_weights_count_once():
    layer = nn.Linear(4, 8, bias=False)
    tied = nn.ModuleList([layer, nn.Linear(4, 8, bias=False)])
    tied[1].weight = layer.weight
    assert held_bytes(tied) == 4 * 8 * 4


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_a_reference_beside_a_replicated_policy_has_its_type(kind, dtype):
    plugin = SimpleNamespace(zero_stage=2)
    beside = Mock(
        spec=Accelerator,
        distributed_type=DistributedType.DEEPSPEED,
        mixed_precision=kind,
        device=torch.device("cpu"),
        state=SimpleNamespace(deepspeed_plugin=plugin),
    )
    assert prepared_reference(nn.Linear(2, 2), beside).weight.dtype == dtype
    assert prepared_reference(nn.Linear(2, 2), Accelerator(cpu=True)).weight.dtype == torch.float32


def test_engines_are_out_of_the_way_where_whole_models_are_used(monkeypatch):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    config = SimpleNamespace(is_zero3=lambda: True)
    monkeypatch.setattr(zero3, "_hf_deepspeed_config_weak_ref", lambda: config)
    assert zero3.is_deepspeed_zero3_enabled()
    with kept_whole():
        assert not zero3.is_deepspeed_zero3_enabled()
        assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert zero3.is_deepspeed_zero3_enabled()
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
