"""Incentives against section A of the entanglement paper: signs, ratios, and whether a loss factors."""

import pytest
import torch

from align.objectives.incentives import incentives
from align.objectives.registry import OBJECTIVES
from tests.objectives.batches import pairs, reference_for


def found(name, seed=0, **settings):
    objective = OBJECTIVES.build(name, **settings)
    policy, reference = pairs(seed)
    return incentives(objective, policy, reference_for(objective, reference)), policy, reference


@pytest.mark.parametrize("name", ["dpo", "r_dpo", "ipo_sum", "robust", "hinge", "odpo"])
def test_one_weight_for_both_sides(name):
    weights, *_ = found(name)
    torch.testing.assert_close(weights.d_w, weights.d_l)


@pytest.mark.parametrize("name", ["simpo", "ipo", "sigmoid_norm"])
def test_length_normalised_losses_weigh_by_lengths(name):
    """d_w / d_l = n_l / n_w."""
    weights, policy, _ = found(name)
    ratio = policy.rejected.lengths / policy.chosen.lengths
    torch.testing.assert_close(weights.d_w / weights.d_l, ratio.double())


@pytest.mark.parametrize("name", ["cpo", "slic_hf", "iterative_rpo"])
def test_a_likelihood_term_pulls_the_chosen_more(name):
    weights, *_ = found(name)
    assert (weights.d_w > weights.d_l).all()


def test_sppo_starts_with_equal_weights():
    objective = OBJECTIVES.build("sppo_hard")
    policy, _ = pairs(1)
    weights = incentives(objective, policy, policy)
    torch.testing.assert_close(weights.d_w, weights.d_l)


@pytest.mark.parametrize(("name", "factors"), [("dpo", True), ("simpo", True), ("wpo", True), ("unlikelihood", False)])
def test_which_losses_read_two_numbers_a_pair(name, factors):
    weights, policy, _ = found(name)
    several = policy.rejected.lengths > 1
    assert weights.factors()[several].all().item() is factors


def test_the_graph_of_the_log_probabilities_is_left_alone():
    policy, reference = pairs(2)
    policy.chosen.logp.requires_grad_()
    with torch.no_grad():
        weights = incentives(OBJECTIVES.build("dpo"), policy, reference)
    assert policy.chosen.logp.grad is None
    assert not weights.d_w.requires_grad
