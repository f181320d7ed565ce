"""Each kind of reference computes what it says, and combinations that cannot work are refused."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from align.models.adapters import add_adapter
from align.models.reference import AdapterOffReference, FrozenReference, KeptReference, resolve_reference

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


def of_a_file(weight, folder):
    """Return whether a tensor's memory is that of a file which was in a folder."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    return any(start <= weight.data_ptr() < stop for start, stop in ranges)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the system does not say what memory is of")
def test_weights_that_are_put_by_take_no_memory_and_are_there_again(model, tmp_path):
    before = model(IDS).logits
    reference = resolve_reference("auto", model, needed=True)
    head, embedding = reference.module.lm_head.weight, reference.module.get_input_embeddings().weight
    assert head is embedding
    kept = KeptReference(reference, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []  # the file has no name any more
    assert all(of_a_file(weight, tmp_path) for weight in reference.module.parameters())
    train_a_bit(model)
    with kept.model(model) as frozen:
        torch.testing.assert_close(frozen(IDS).logits, before)
    assert kept.equals_policy_at_start
    assert reference.module.lm_head.weight is reference.module.get_input_embeddings().weight


def test_a_folder_that_cannot_be_written_leaves_them_in_memory(model, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    reference = resolve_reference("auto", model, needed=True)
    before = model(IDS).logits
    with KeptReference(reference, tmp_path).model(model) as frozen:
        torch.testing.assert_close(frozen(IDS).logits, before)
