"""Each kind of reference computes what it says, and combinations that cannot work are refused."""

import pytest
import torch
from peft import LoraConfig

from align.models.adapters import add_adapter
from align.models.reference import AdapterOffReference, FrozenReference, resolve_reference

IDS = torch.arange(7)[None]


@pytest.fixture
def adapted(model):
    return add_adapter(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def train_a_bit(model):
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.05


def test_auto_is_a_frozen_copy_that_stays_where_the_policy_was(model):
    before = model(IDS).logits
    reference = resolve_reference("auto", model, needed=True)
    assert isinstance(reference, FrozenReference)
    assert reference.equals_policy_at_start
    train_a_bit(model)
    with reference.model(model) as frozen:
        torch.testing.assert_close(frozen(IDS).logits, before)
        assert not any(p.requires_grad for p in frozen.parameters())


def test_auto_with_adapters_takes_them_off_and_puts_them_back(adapted):
    before = adapted(input_ids=IDS).logits
    reference = resolve_reference("auto", adapted, needed=True)
    assert isinstance(reference, AdapterOffReference)
    train_a_bit(adapted)
    with reference.model(adapted) as off:
        torch.testing.assert_close(off(input_ids=IDS).logits, before)
    assert not torch.allclose(adapted(input_ids=IDS).logits, before)


def test_none_is_loaded_where_none_is_needed(model):
    assert resolve_reference("auto", model, needed=False) is None
    assert resolve_reference("none", model, needed=False) is None


@pytest.mark.parametrize(
    ("kind", "needed", "message"),
    [
        ("base", False, "would not be used"),
        ("none", True, "compares with a reference"),
        ("adapter_off", True, "needs adapters"),
        ("some/path", True, "was not loaded"),
    ],
)
def test_refusals(model, kind, needed, message):
    with pytest.raises(ValueError, match=message):
        resolve_reference(kind, model, needed=needed)
