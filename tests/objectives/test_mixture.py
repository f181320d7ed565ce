"""Mixtures and smoothed labels: needs, names, rewards, and what label smoothing leaves alone."""

import pytest
import torch

from align.objectives.custom import FunctionObjective
from align.objectives.dpo import DPO
from align.objectives.mixture import Mixture, Part, Smoothed, name_of, row_losses, trains_unpaired
from align.objectives.registry import OBJECTIVES
from tests.objectives.batches import pairs


def mixture(*parts):
    return Mixture(parts=tuple(Part(objective=OBJECTIVES.build(name), weight=weight) for name, weight in parts))


def test_needs_are_those_of_all_parts():
    both = mixture(("npo", 1.0), ("sft", 0.5))
    assert both.needs == ("reference", "lengths")
    assert both.reads == ("chosen", "rejected")
    assert mixture(("simpo", 1.0), ("sft", 0.5)).needs == ("lengths",)
    assert mixture(("sft", 1.0)).reads == ("chosen",)


def test_each_part_weighs_tokens_by_itself():
    policy, reference = pairs(0)
    both = mixture(("ld_dpo", 1.0), ("dpo", 0.5)).of_tokens(policy, reference)
    parts = [OBJECTIVES.build(name).of_tokens(policy, reference) for name in ("ld_dpo", "dpo")]
    torch.testing.assert_close(both, parts[0] + 0.5 * parts[1])


def test_names_and_rewards():
    both = mixture(("dpo", 1.0), ("sft", 0.2))
    assert name_of(both) == "dpo + 0.2 sft"
    assert name_of(Smoothed(objective=DPO(), label_smoothing=0.1)) == "dpo (label_smoothing 0.1)"
    assert name_of(FunctionObjective(function=my_loss)) == "my_loss"
    assert both.reward_scale == 0.1
    assert mixture(("simpo", 1.0), ("sft", 1.0)).mean_rewards


def my_loss(policy):
    return -policy.chosen


@pytest.mark.parametrize("name", ["mpo", "iterative_rpo"])
def test_blends_keep_their_likelihood_with_the_chosen(name):
    """Smoothing a blend is smoothing its other parts: the likelihood drops out of the difference."""
    policy, reference = pairs(5)
    weights = {"mpo": {"generation_weight": 0.0}, "iterative_rpo": {"alpha": 0.0}}[name]
    with_it, without = OBJECTIVES.build(name), OBJECTIVES.build(name, **weights)
    gains = [
        Smoothed(objective=o, label_smoothing=0.3).of_tokens(policy, reference) - o.of_tokens(policy, reference)
        for o in (with_it, without)
    ]
    torch.testing.assert_close(*gains)


def test_smoothed_dpo_is_cdpo():
    policy, reference = pairs(1)
    smoothed = Smoothed(objective=DPO(), label_smoothing=0.2).of_tokens(policy, reference)
    torch.testing.assert_close(smoothed, OBJECTIVES.build("cdpo", label_smoothing=0.2).of_tokens(policy, reference))


@pytest.mark.parametrize("name", ["cpo", "orpo", "slic_hf"])
def test_the_chosens_likelihood_is_not_smoothed(name):
    """Where only the likelihood is left, smoothing changes nothing (as in TRL's CPOTrainer)."""
    policy, _ = pairs(2)
    off = {"cpo": {"beta": 1e-12}, "orpo": {"lam": 0.0}, "slic_hf": {"delta": 0.0}}[name]
    objective = OBJECTIVES.build(name, **off)
    smoothed = Smoothed(objective=objective, label_smoothing=0.3)
    if name == "slic_hf":
        linked = objective.link(objective.score(policy.summed(), None))
        swapped = objective.link(objective.score(policy.summed().swapped(), None))
        expected = objective.of_tokens(policy) + 0.3 * (swapped - linked)
    else:
        expected = objective.of_tokens(policy)
    torch.testing.assert_close(smoothed.of_tokens(policy), expected)


def test_smoothing_reads_both_sides():
    sft = OBJECTIVES.build("sft")
    assert Smoothed(objective=sft, label_smoothing=0.1).reads == ("chosen", "rejected")
    assert Smoothed(objective=sft, label_smoothing=0.0).reads == ("chosen",)


def test_which_train_on_single_completions():
    assert trains_unpaired(mixture(("kto", 1.0), ("sft", 0.1)))
    assert trains_unpaired(Smoothed(objective=OBJECTIVES.build("bco_pair"), label_smoothing=0.1))
    assert not trains_unpaired(mixture(("kto", 1.0), ("dpo", 0.1)))
    policy = pairs(3)[0].summed().chosen_side
    with pytest.raises(ValueError, match="objective 'dpo' is a function of pairs"):
        row_losses(DPO(), policy, policy, torch.ones(8, dtype=torch.bool))


def test_smoothed_completions_change_sides_now_and_then():
    policy, reference = (batch.summed().chosen_side for batch in pairs(4))
    objective, marks = OBJECTIVES.build("bco_pair"), torch.arange(8) % 3 == 0
    right, wrong = (row_losses(objective, policy, reference, m) for m in (marks, ~marks))
    smoothed = row_losses(Smoothed(objective=objective, label_smoothing=0.2), policy, reference, marks)
    torch.testing.assert_close(smoothed, 0.8 * right + 0.2 * wrong)


def test_weights_are_positive():
    with pytest.raises(ValueError, match="weight must be greater than 0"):
        Part(objective=DPO(), weight=0.0)
    with pytest.raises(ValueError, match="at least one objective"):
        Mixture(parts=())
