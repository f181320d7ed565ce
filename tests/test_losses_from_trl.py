"""A file of TRL's and the recipe that it becomes train the same loss: both are run, on the same rows and seeds."""

import dataclasses

import datasets
import pytest
import torch
import yaml
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from align import PairTrainer
from align.data.order import nearest_other
from align.objectives.logps import PairLogps
from align.objectives.mixture import Smoothed
from align.objectives.registry import OBJECTIVES
from align.recipe.foreign.bring_over import bring_over
from align.recipe.load import load_recipe
from align.trainers.unpaired import UnpairedTrainer
from tests.conftest import pair_rows

TRAINERS = {
    "dpo": (DPOConfig, DPOTrainer),
    "kto": (KTOConfig, KTOTrainer),
    "cpo": (CPOConfig, CPOTrainer),
    "orpo": (ORPOConfig, ORPOTrainer),
}
SHARED = {
    "per_device_train_batch_size": 4,
    "max_steps": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "seed": 3,
    "gradient_checkpointing": False,
    "bf16": False,
}


def recipe_of(settings, method, place):
    """Write a file of TRL's, bring it over without a decision, and load what came of it."""
    theirs, ours = place / "theirs.yaml", place / "ours.yaml"
    theirs.write_text(yaml.safe_dump({"model_name_or_path": "m", "dataset_name": "d", **settings}))
    made = bring_over(theirs, "trl", method)
    assert not made.decisions
    ours.write_text(made.text)
    return load_recipe(ours)


def plain_text():
    """Rows of plain text with sides of different lengths, which both libraries tokenise to the same ids."""
    keep = ("chosen", "rejected")
    found = [
        {"prompt": row["prompt"][0]["content"], **{k: " " + row[k][0]["content"] for k in keep}} for row in pair_rows()
    ]
    return [row | {"chosen": row["chosen"] + " good" * (i % 3)} for i, row in enumerate(found)]


def single_completions():
    """A completion of each pair, desirable or not by turns."""
    sides = ("chosen", "rejected")
    return [
        {"prompt": row["prompt"] + f" {i}", "completion": row[sides[i % 2]], "label": i % 2 == 0}
        for i, row in enumerate(plain_text())
    ]


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def both(settings, method, model_dir, place):
    """Return the losses of two steps of both libraries."""
    recipe = recipe_of(settings, method, place)
    rows = datasets.Dataset.from_list(single_completions() if method == "kto" else plain_text())
    order = {"train_sampling_strategy": "sequential"} if method == "kto" else {}
    ours = (UnpairedTrainer if method == "kto" else PairTrainer)(
        model=str(model_dir),
        args=TrainingArguments(str(place / "ours"), **SHARED, **order),
        objective=recipe.objective,
        train_dataset=rows,
        max_length=1024,
    )
    config, trainer = TRAINERS[method]
    known = {field.name for field in dataclasses.fields(config)}
    theirs = trainer(
        model=str(model_dir),
        args=config(str(place / "theirs"), **{k: v for k, v in (SHARED | settings).items() if k in known}),
        train_dataset=rows,
        processing_class=ours.processing_class,
    )
    return losses(ours), losses(theirs)


DPO_FILES = [
    *({"loss_type": [kind], "beta": 0.3} for kind in ("sigmoid", "hinge", "nca_pair", "bco_pair", "sppo_hard")),
    *({"loss_type": [kind], "beta": 0.3} for kind in ("apo_zero", "apo_down", "sft", "sigmoid_norm", "ipo")),
    {"loss_type": ["discopop"], "discopop_tau": 0.2},
    *({"loss_type": [kind], "label_smoothing": 0.2} for kind in ("sigmoid", "robust", "exo_pair")),
    *({"loss_type": [kind], "label_smoothing": 0.2} for kind in ("aot", "aot_unpaired")),
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    {"loss_type": ["hinge"], "loss_weights": [0.5]},
    {"loss_type": ["sigmoid"], "ld_alpha": 0.3},
    {"loss_type": ["sigmoid", "sft"], "ld_alpha": 0.3},
    {"loss_type": ["sigmoid"], "use_weighting": True},
    *({"loss_type": ["ipo", "sft"], "f_divergence_type": kind} for kind in ("forward_kl", "js_divergence")),
    {"loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    {"sync_ref_model": False},
]
OTHER_FILES = [
    ("kto", {"desirable_weight": 1.5, "undesirable_weight": 0.7, "beta": 0.3}),
    ("kto", {"loss_type": "apo_zero_unpaired", "desirable_weight": 2.0, "undesirable_weight": 2.0}),
    ("cpo", {"cpo_alpha": 0.5, "beta": 0.3, "label_smoothing": 0.1}),
    ("cpo", {"cpo_alpha": 0.0, "loss_type": "hinge", "label_smoothing": 0.1}),
    ("cpo", {"cpo_alpha": 0.5, "loss_type": "ipo"}),
    ("cpo", {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7}),
    ("cpo", {"loss_type": "alphapo", "beta": 2.0, "alpha": 0.25}),
    ("orpo", {"beta": 0.3}),
]


@pytest.mark.parametrize("settings", DPO_FILES, ids=str)
def test_a_loss_of_dpo_is_brought_over_exactly(settings, model_dir, tmp_path):
    ours, theirs = both(settings, "dpo", model_dir, tmp_path)
    assert len(ours) == 2
    assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("method", "settings"), OTHER_FILES, ids=str)
def test_a_loss_of_another_trainer_is_brought_over_exactly(method, settings, model_dir, tmp_path):
    ours, theirs = both(settings, method, model_dir, tmp_path)
    assert len(ours) == 2
    assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-5)


# ---- what differs --------------------------------------------------------------------------------------------------


def test_defaults_that_convert_writes_over():
    ours = {name: OBJECTIVES.build(name) for name in ("sft", "orpo", "cpo", "simpo", "wpo")}
    assert [ours[name].nll for name in ("sft", "orpo", "cpo")] == ["mean", "mean", "sum"]
    assert ours["wpo"].bounded
    assert (ours["simpo"].beta, CPOConfig("x", use_cpu=True, bf16=False).beta) == (2.0, 0.1)


def test_label_smoothing_goes_with_plain_dpo_here_only(model_dir, tmp_path):
    plain, smoothed = ({"loss_type": ["sigmoid"], "label_smoothing": share} for share in (0.0, 0.2))
    (_, first), (_, second) = (both(settings, "dpo", model_dir, tmp_path) for settings in (plain, smoothed))
    assert first == second
    dpo, sides = OBJECTIVES.build("dpo"), {"chosen_lengths": torch.tensor([2]), "rejected_lengths": torch.tensor([2])}
    policy = PairLogps(chosen=torch.tensor([-1.0]), rejected=torch.tensor([-3.0]), **sides)
    reference = PairLogps(chosen=torch.tensor([-2.0]), rejected=torch.tensor([-2.0]), **sides)
    assert Smoothed(objective=dpo, label_smoothing=0.2)(policy, reference) > dpo(policy, reference)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_mismatched_rows_of_kto_keep_their_own_prompt_there_only(model_dir, tokenizer, tmp_path):
    sides = (("chosen", True), ("rejected", False))
    rows = datasets.Dataset.from_list(
        [
            {"prompt": row["prompt"], "completion": row[side], "label": good}
            for row in plain_text()[:4]
            for side, good in sides
        ]
    )
    config = KTOConfig(str(tmp_path), **SHARED)
    theirs = KTOTrainer(str(model_dir), args=config, train_dataset=rows, processing_class=tokenizer).train_dataset
    own = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in theirs}
    assert own & {(tuple(row["prompt_ids"]), tuple(row["KL_completion_ids"])) for row in theirs}
    prompts = [1, 1, 2, 2]
    back = nearest_other(prompts)
    assert all(prompt != prompts[place - back] for place, prompt in enumerate(prompts))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_pairs_that_are_taken_apart_come_in_another_order_there(model_dir, tokenizer, tmp_path):
    rows = datasets.Dataset.from_list(plain_text()[:4])
    config = KTOConfig(str(tmp_path), **SHARED)
    theirs = KTOTrainer(str(model_dir), args=config, train_dataset=rows, processing_class=tokenizer).train_dataset
    args = TrainingArguments(str(tmp_path), **SHARED)
    ours = UnpairedTrainer(str(model_dir), args, objective="kto", train_dataset=rows, processing_class=tokenizer)
    assert list(theirs["label"]) == [True] * 4 + [False] * 4
    assert [bool(good) for good in ours.train_dataset["desirable"]] == [True, False] * 4
