"""UnpairedTrainer: parity with TRL's KTOTrainer, its reference point, its metrics, resuming."""

import copy

import datasets
import pytest
import torch
from peft import LoraConfig

from align import PairTrainer, UnpairedTrainer
from align.objectives.kto import KTO
from tests.conftest import arguments, losses, pair_rows, rows

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def singles(count=12):
    """Single completions, each of its own prompt, so that TRL's mismatched rows and ours are the same."""
    made = [
        {
            "prompt": f"{row['prompt'][0]['content']} {i}",
            "completion": " " + row["chosen" if i % 3 else "rejected"][0]["content"],
            "label": bool(i % 3),
        }
        for i, row in enumerate(pair_rows(count))
    ]
    return datasets.Dataset.from_list(made)


def trainer_of(model, tokenizer, folder, data=None, objective=None, **settings):
    return UnpairedTrainer(
        model,
        arguments(folder, **settings),
        objective=objective or KTO(),
        train_dataset=data if data is not None else singles(),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_parity_with_trl(model_dir, tmp_path, loss_type):
    """TRL 1.16's KTOTrainer, the same rows in the same order: the same losses and weights."""
    from trl import KTOConfig, KTOTrainer

    from align.objectives.registry import OBJECTIVES

    shared = {
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "gradient_checkpointing": False,
        "bf16": False,
        "train_sampling_strategy": "sequential",
    }
    from transformers import TrainingArguments

    data = singles(24)
    objective = KTO(beta=0.2, desirable_weight=1.5) if loss_type == "kto" else OBJECTIVES.build(loss_type, beta=0.2)
    ours = UnpairedTrainer(
        str(model_dir),
        TrainingArguments(str(tmp_path / "ours"), **shared),
        objective=objective,
        train_dataset=data,
    )
    ours.train()
    weight = {"desirable_weight": 1.5} if loss_type == "kto" else {}
    theirs = KTOTrainer(
        model=str(model_dir),
        args=KTOConfig(str(tmp_path / "theirs"), beta=0.2, loss_type=loss_type, **weight, **shared),
        train_dataset=data,
        processing_class=ours.processing_class,
    )
    theirs.train()
    keys = ["loss", *(["kl"] if loss_type == "kto" else [])]
    for key in keys:
        mine, other = ([e[key] for e in t.state.log_history if key in e] for t in (ours, theirs))
        assert len(mine) == 6
        mine = [max(0.0, value) for value in mine] if key == "kl" else mine
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5), key
    other = theirs.model.state_dict()
    for name, weight in ours.model.state_dict().items():
        assert float((weight - other[name]).norm() / weight.norm()) < 1e-5, name


def test_pairs_are_taken_apart(model, tokenizer, tmp_path):
    trainer = trainer_of(model, tokenizer, tmp_path, data=rows(6))
    assert len(trainer.train_dataset) == 12
    assert trainer.train_dataset["desirable"][:] == [True, False] * 6


def test_metrics_are_means_over_the_rows_they_are_of(model, tokenizer, tmp_path):
    trainer = trainer_of(model, tokenizer, tmp_path, per_device_train_batch_size=4)
    batch = next(iter(trainer.get_train_dataloader()))
    found = trainer.row_losses(trainer.model, batch)
    plain = trainer.forward_logps(trainer.model, batch).logps.detach()
    chosen = found.metrics["logps/chosen"]
    assert torch.equal(chosen[batch["desirable"]], plain[batch["desirable"]])
    assert chosen[~batch["desirable"]].isnan().all()
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {"logps/chosen", "logps/rejected", "rewards/chosen", "kl"} <= logged.keys()


def test_the_reference_point_is_the_mean_log_ratio_of_mismatched_rows(model, tokenizer, tmp_path):
    trainer = trainer_of(model, tokenizer, tmp_path)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    trainer.start_margin = 0.0  # moved by hand, so that they differ
    batch = next(iter(trainer.get_train_dataloader()))
    found = trainer.row_losses(trainer.model, batch)
    swapped = {
        name.removeprefix("mismatched_"): value for name, value in batch.items() if name.startswith("mismatched_")
    }
    policy = trainer.forward_logps(trainer.model, swapped).logps
    reference = trainer.forward_logps(trainer.reference.module, swapped).logps
    torch.testing.assert_close(found.metrics["kl"][0], (policy - reference).mean().detach())


def test_lora_starts_at_its_reference_and_learns(model_dir, tmp_path):
    trainer = UnpairedTrainer(
        str(model_dir),
        arguments(tmp_path, max_steps=8, learning_rate=1e-2),
        objective="kto",
        train_dataset=rows(),
        peft_config=LORA,
    )
    trainer.train()
    assert trainer.start_margin == 0.0
    assert losses(trainer)[0] == pytest.approx(0.5, abs=1e-5)
    assert losses(trainer)[-1] < 0.49


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(model, tokenizer, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_of(copy.deepcopy(model), tokenizer, tmp_path / "whole", **settings)
    whole.train()
    again = trainer_of(copy.deepcopy(model), tokenizer, tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_objectives_of_pairs_and_of_completions_are_told_apart(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"objective 'dpo' compares the two sides of a pair .* use PairTrainer"):
        trainer_of(model, tokenizer, tmp_path, objective="dpo")
    with pytest.raises(ValueError, match="objective 'kto' is trained on single completions: use UnpairedTrainer"):
        PairTrainer(model, arguments(tmp_path), objective="kto", train_dataset=rows(), processing_class=tokenizer)


@pytest.mark.parametrize(("objective", "kept"), [("sft", True), ("npo", False)])
def test_rows_that_are_not_read_are_left_out(model, tokenizer, tmp_path, objective, kept, capsys):
    trainer = trainer_of(
        model, tokenizer, tmp_path, data=rows(12), objective=objective, max_steps=6, per_device_train_batch_size=2
    )
    assert set(trainer.train_dataset["desirable"][:]) == {kept}
    trainer.train()
    assert len(losses(trainer)) == 6
    only = singles(6).filter(lambda row: row["label"] is not kept)
    with pytest.raises(ValueError, match="rows, and there are none"):
        trainer_of(model, tokenizer, tmp_path, data=only, objective=objective)


def test_a_batch_of_rows_that_are_not_read_has_a_gradient_of_0():
    from align.objectives.logps import SequenceLogps
    from align.objectives.registry import OBJECTIVES

    policy = SequenceLogps(logps=torch.tensor([-1.0, -2.0], requires_grad=True), lengths=torch.tensor([1, 2]))
    loss = OBJECTIVES.build("sft").of_rows(policy, None, torch.tensor([False, False])).sum()
    loss.backward()
    assert policy.logps.grad.tolist() == [0.0, 0.0]


class Scalar(UnpairedTrainer):
    def objective_loss(self, policy, reference, batch):
        return policy.logps.mean()


def test_a_subclass_returns_a_loss_for_each_row(model, tokenizer, tmp_path):
    trainer = Scalar(model, arguments(tmp_path), objective="kto", train_dataset=rows(), processing_class=tokenizer)
    with pytest.raises(ValueError, match=r"objective_loss must return one loss for each row, shape \(4,\); got \(\)"):
        trainer.train()
