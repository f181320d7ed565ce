"""Every registered objective trains on the data it declares, and nothing is computed in vain."""

import copy

import datasets
import pytest
import torch

from align import Mixture, PairTrainer, Part, Smoothed, UnpairedTrainer
from align.objectives.mixture import trains_unpaired
from align.objectives.registry import OBJECTIVES
from align.recipe.speed import OFF
from align.trainers.preference import length_limit
from tests.conftest import arguments, losses, pair_rows, rows

PAIRED = [name for name in OBJECTIVES if not OBJECTIVES.build(name).needs_mismatched]


def scored(count=12):
    made = [{**row, "chosen_score": 0.5 + i / 30, "rejected_score": 0.1} for i, row in enumerate(pair_rows(count))]
    return datasets.Dataset.from_list(made)


class Forwards:
    """Counts the rows that a model is run on."""

    def __init__(self, model):
        self.rows = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        self.rows += len(kwargs["input_ids"])


@pytest.mark.parametrize("name", PAIRED)
def test_every_objective_of_pairs_trains(name, model, tokenizer, tmp_path):
    trainer = PairTrainer(
        copy.deepcopy(model),
        arguments(tmp_path, max_steps=2),
        objective=name,
        train_dataset=scored(),
        eval_dataset=scored(4),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(losses(trainer)) == 2
    held_out = trainer.evaluate()
    assert held_out["eval_pairs"] == 4
    assert all(torch.isfinite(torch.tensor(value)) for value in held_out.values())


@pytest.mark.parametrize(
    ("objective", "policy_rows", "reference_rows"),
    [
        ("dpo", 8, 8),
        ("simpo", 8, None),
        ("sft", 4, None),
        ("npo", 4, 4),
        ("gradient_ascent", 4, None),
        ("mix", 8, 8),
        ("negatives", 8, 8),
    ],
)
def test_only_what_is_read_is_run(model, tokenizer, tmp_path, objective, policy_rows, reference_rows):
    """A step of four pairs: both sides or one, a reference or none; a mixture runs what its parts read, once."""

    def mixture(*names):
        return Mixture(parts=tuple(Part(objective=OBJECTIVES.build(name)) for name in names))

    named = {"mix": mixture("dpo", "sft"), "negatives": mixture("npo", "sft")}
    trainer = PairTrainer(
        model,
        arguments(tmp_path, max_steps=1),
        objective=named.get(objective, objective),
        train_dataset=rows(),
        processing_class=tokenizer,
        speed=OFF,
    )
    policy = Forwards(trainer.model)
    reference = Forwards(trainer.reference.module) if trainer.reference is not None else None
    trainer.train()
    assert policy.rows == policy_rows
    assert (reference.rows if reference else None) == reference_rows


@pytest.mark.parametrize("objective", ["sft", "npo"])
def test_metrics_of_a_side_that_is_not_computed_are_left_out(model, tokenizer, tmp_path, objective):
    trainer = PairTrainer(
        model,
        arguments(tmp_path, max_steps=1),
        objective=objective,
        train_dataset=rows(),
        eval_dataset=rows(4),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    there, gone = ("chosen", "rejected") if objective == "sft" else ("rejected", "chosen")
    assert f"logps/{there}" in logged
    assert not {f"logps/{gone}", "rewards/margins", "rewards/accuracies"} & logged.keys()
    held_out = trainer.evaluate()
    assert {"eval_logps/chosen", "eval_logps/rejected", "eval_accuracy"} <= held_out.keys()


@pytest.mark.parametrize("name", PAIRED)
def test_steps_are_finite_under_bf16_autocast_where_the_model_is_certain(name, model, tokenizer, tmp_path):
    """Logits a thousand times larger: completions of log-probability 0 and of thousands of nats below."""
    with torch.no_grad():
        model.model.norm.weight.mul_(1000.0)
    trainer = PairTrainer(
        model,
        arguments(tmp_path, bf16=True),
        objective=name,
        train_dataset=scored(),
        processing_class=tokenizer,
    )
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in trainer.model.parameters() if p.grad is not None)


def test_scores_that_cannot_be_used_are_said_before_training(model, tokenizer, tmp_path):
    made = [{**row, "chosen_score": 0.5, "rejected_score": 0.5 * (i == 3)} for i, row in enumerate(pair_rows(6))]
    message = r"train_dataset row 4: chosen_score must be above .* \(scores 0.5 and 0.5; 1 such rows\)"
    with pytest.raises(ValueError, match=message):
        PairTrainer(
            model,
            arguments(tmp_path),
            objective="odpo",
            train_dataset=datasets.Dataset.from_list(made),
            processing_class=tokenizer,
        )


def test_scores_that_are_missing_are_said_before_training(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"train_dataset row 1: the objective needs a score of both completions"):
        PairTrainer(model, arguments(tmp_path), objective="odpo", train_dataset=rows(), processing_class=tokenizer)


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if trains_unpaired(OBJECTIVES.build(n))])
def test_every_sided_objective_trains_on_single_completions(name, model, tokenizer, tmp_path):
    trainer = UnpairedTrainer(
        copy.deepcopy(model),
        arguments(tmp_path, max_steps=2),
        objective=name,
        train_dataset=rows(),
        eval_dataset=rows(4),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(losses(trainer)) == 2
    held_out = trainer.evaluate()
    assert (held_out["eval_desirable"], held_out["eval_undesirable"]) == (4, 4)
    assert 0 <= held_out["eval_auc"] <= 1


def test_label_smoothing_of_a_step_is_the_expected_loss(model, tokenizer, tmp_path):
    simpo = OBJECTIVES.build("simpo")
    trainer = PairTrainer(
        model,
        arguments(tmp_path),
        objective=Smoothed(objective=simpo, label_smoothing=0.3),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        policy = trainer.forward_logps(trainer.model, batch)
        expected = 0.7 * simpo.of_tokens(policy) + 0.3 * simpo.of_tokens(policy.swapped())
        torch.testing.assert_close(trainer.row_losses(trainer.model, batch).losses, expected)


class Anchored(PairTrainer):
    def extra_loss(self, model, batch, policy):
        return -0.1 * policy.mean_chosen


def test_a_subclass_sees_both_sides(model, tokenizer, tmp_path):
    trainer = Anchored(
        model, arguments(tmp_path, max_steps=1), objective="npo", train_dataset=rows(), processing_class=tokenizer
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {"logps/chosen", "logps/rejected"} <= logged.keys()
    assert torch.isfinite(torch.tensor(logged["loss"]))


def test_the_length_limit_is_the_least_of_both(model):
    assert length_limit(model, 100) == 100
    assert length_limit(model, 1000) == 256
    assert length_limit(model, None) == 256


def test_rows_that_come_later_are_prepared_as_the_trainers_own(model, tokenizer, tmp_path):
    """Raw, by name, prepared, or given at the start: the same figures; rows that are there are not prepared again."""
    given = {"eval_dataset": rows(6), "max_length": 26, "processing_class": tokenizer}
    trainer = PairTrainer(model, arguments(tmp_path, dataloader_drop_last=True), train_dataset=rows(8), **given)
    own = trainer.evaluate()
    later = trainer.evaluate(rows(6))
    assert later["eval_loss"] == own["eval_loss"]
    assert later["eval_logps/chosen"] == own["eval_logps/chosen"]
    assert trainer.evaluate({"a": rows(6)})["eval_a_loss"] == own["eval_loss"]
    assert trainer.evaluate(trainer.eval_dataset)["eval_loss"] == own["eval_loss"]
    predicted = trainer.predict(rows(6), metric_key_prefix="test")
    assert predicted.metrics["test_loss"] == own["eval_loss"]
    assert len(predicted.predictions) == 6
    assert len(trainer._later) == 1
    lists = [trainer.evaluate(pair_rows(24)[start : start + 6])["eval_logps/chosen"] for start in (0, 12)]
    assert lists[0] == own["eval_logps/chosen"]
    assert lists[1] == trainer.evaluate(rows(24).select(range(12, 18)))["eval_logps/chosen"] != lists[0]
    with pytest.raises(ValueError, match="predict takes one data set, got a, b"):
        trainer.predict({"a": rows(2), "b": rows(2)})
    with pytest.raises(ValueError, match="evaluated_dataset"):
        trainer.evaluate(datasets.Dataset.from_list([{"prompt": "a", "chosen": "b"}]))


def test_single_completions_that_come_later(model, tokenizer, tmp_path):
    given = {"objective": "kto", "train_dataset": rows(8), "eval_dataset": rows(6), "processing_class": tokenizer}
    trainer = UnpairedTrainer(model, arguments(tmp_path), **given)
    assert trainer.evaluate(rows(6))["eval_loss"] == trainer.evaluate()["eval_loss"]
