"""A reference that follows the policy: its weights by hand, with adapters, and through a checkpoint."""

import copy

import pytest
import torch
from peft import LoraConfig

from align import PairTrainer
from align.models.adapters import add_adapter
from align.models.reference import FrozenReference, moving_copy, whole_weights
from align.recipe.sync import ReferenceSyncSettings
from tests.conftest import arguments, rows

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
IDS = torch.arange(3, 12)[None]


def moved_adapters(model):
    torch.manual_seed(0)
    adapted = add_adapter(model, LORA)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return adapted


def test_the_reference_is_the_stated_mixture(model):
    policy, reference = copy.deepcopy(model), moving_copy(model)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    before = {name: weight.clone() for name, weight in reference.module.named_parameters()}
    reference.move_towards(policy, 0.25)
    for name, weight in reference.module.named_parameters():
        expected = 0.25 * policy.get_parameter(name) + 0.75 * before[name]
        torch.testing.assert_close(weight, expected.detach())


def test_a_hard_update_with_adapters_is_the_adapted_model(model):
    policy = moved_adapters(model)
    reference = moving_copy(add_adapter(copy.deepcopy(policy.unload()), LORA))
    assert not any("lora" in name for name, _ in reference.module.named_parameters())
    reference.move_towards(policy, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(reference.module(IDS).logits, policy(IDS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_small_moves_are_not_rounded_away_in_bfloat16(tokenizer, tied, tmp_path):
    """Thirty moves by a fiftieth towards a policy a little away: bfloat16 by itself would stand still."""
    from transformers import LlamaForCausalLM

    from align.trainers.moving import load_reference, save_reference
    from tests.conftest import tiny_config

    torch.manual_seed(0)
    policy = LlamaForCausalLM(tiny_config(tokenizer, tie_word_embeddings=tied)).to(torch.bfloat16)
    reference = moving_copy(policy)
    start = {name: weight.float() for name, weight in reference.module.named_parameters()}
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    aim = {name: weight.detach().float() for name, weight in policy.named_parameters()}
    for _ in range(30):
        reference.move_towards(policy, 0.02)
    save_reference(reference, tmp_path, 30)
    again = moving_copy(policy)
    load_reference(again, tmp_path / "checkpoint-30")
    for moved in (reference, again):
        for name, weight in moved.module.named_parameters():
            assert weight.dtype == torch.bfloat16
            share = 1 - 0.98**30
            expected = (share * aim[name] + (1 - share) * start[name]).to(torch.bfloat16)
            torch.testing.assert_close(weight, expected, rtol=1e-2, atol=1e-4)
        moved.move_towards(policy, 0.02)
    for a, b in zip(reference.state().values(), again.state().values(), strict=True):
        assert torch.equal(a, b)


def test_only_what_is_trained_is_kept_finer(tokenizer):
    from transformers import LlamaForCausalLM

    from tests.conftest import tiny_config

    policy = LlamaForCausalLM(tiny_config(tokenizer)).to(torch.bfloat16)
    adapted = add_adapter(policy, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    reference = moving_copy(adapted)
    reference.move_towards(adapted, 0.5)
    finer = [name for name, value in reference.state().items() if value.dtype == torch.float32]
    assert finer
    assert all("q_proj" in name for name in finer)


def test_a_state_of_another_model_is_refused(model):
    reference = moving_copy(model)
    state = reference.state()
    for wrong in ({"strange": torch.zeros(1), **state}, dict(list(state.items())[1:])):
        with pytest.raises(ValueError, match="is of another model"):
            reference.load_state(wrong)


def test_whole_weights_have_the_plain_models_names(model):
    names = {name for name, _ in model.named_parameters()}
    assert {name for name, _ in whole_weights(moved_adapters(copy.deepcopy(model)))} == names


def trainer(model_dir, folder, lora=None, **settings):
    return PairTrainer(
        str(model_dir),
        arguments(folder, max_steps=6, save_strategy="steps", save_steps=3, learning_rate=1e-2, **settings),
        train_dataset=rows(),
        peft_config=lora,
        reference_sync=ReferenceSyncSettings(alpha=0.5, every=2),
    )


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_run_that_was_cut_off_goes_on_with_the_reference_it_had(model_dir, tmp_path, lora):
    whole = trainer(model_dir, tmp_path / "whole", lora)
    whole.train()
    assert whole.start_margin == 0.0
    resumed = trainer(model_dir, tmp_path / "resumed", lora)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    first = trainer(model_dir, tmp_path / "first", lora).reference.module.state_dict()
    now = resumed.reference.module.state_dict()
    assert any(not torch.equal(first[name], now[name]) for name in first)
    for name, weight in whole.reference.module.state_dict().items():
        assert torch.equal(weight, now[name])


def test_a_checkpoint_without_the_reference_is_refused(model_dir, tmp_path):
    fixed = PairTrainer(
        str(model_dir),
        arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=1),
        train_dataset=rows(),
    )
    fixed.train()
    with pytest.raises(ValueError, match="had no copy of the policy that moves"):
        trainer(model_dir, tmp_path / "moving").train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_adapters_that_are_no_sums_are_refused(model):
    dora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=True)
    with pytest.raises(ValueError, match="cannot take over adapters with use_dora"):
        moving_copy(add_adapter(model, dora))


def test_a_reference_of_another_structure_is_refused(model, tokenizer):
    from transformers import LlamaForCausalLM

    from tests.conftest import tiny_config

    other = LlamaForCausalLM(tiny_config(tokenizer, num_hidden_layers=3))
    with pytest.raises(ValueError, match=r"its weight 'model.layers.2.* has no counterpart"):
        FrozenReference(other, equals_policy_at_start=False, description="").move_towards(model, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "simpo"}, "reference_sync would not be used"),
        ({"reference": "adapter_off"}, "no weights of its own to move"),
    ],
)
def test_what_cannot_move(model, tokenizer, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        PairTrainer(
            model,
            arguments(tmp_path),
            train_dataset=rows(),
            processing_class=tokenizer,
            reference_sync=ReferenceSyncSettings(),
            **settings,
        )
