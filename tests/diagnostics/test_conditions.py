"""The conditions of Yuan et al., 2024, by hand, by law, and against steps that are taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from align.diagnostics.conditions import CASES, METRICS, STEP_METRICS, Pull, cases, step_metrics
from align.diagnostics.gradients import PairGradients
from align.objectives.incentives import incentives
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.registry import OBJECTIVES

sizes, weights, cosines = st.floats(0.1, 10), st.floats(0.01, 10), st.floats(-1, 1)


def pull(s_w, s_l, cosine, d_w=1.0, d_l=1.0):
    inner = cosine * s_w * s_l
    products = torch.tensor([[[s_w**2, inner], [inner, s_l**2]]], dtype=torch.float64)
    gradients = PairGradients(by_parameter={"w": products}, coverage=1.0)
    return Pull(gradients=gradients, d_w=torch.tensor([d_w]).double(), d_l=torch.tensor([d_l]).double())


@pytest.mark.parametrize(
    ("s_w", "s_l", "cosine", "case"),
    [
        (1.0, 1.0, 0.5, "ideal"),
        (1.0, 2.0, 0.9, "both_down"),
        (2.0, 1.0, 0.9, "both_up"),
        (1.0, 5.0, -0.9, "ideal"),
        (1.0, 2.0, 0.49, "ideal"),
    ],
)
def test_table_1(s_w, s_l, cosine, case):
    found = pull(s_w, s_l, cosine).metrics()
    assert [name for name in CASES if float(found[f"share_{name}"]) == 1] == [case]


def test_the_rejected_norm_decides():
    """The published code divided by min(s_w^2, s_w^2): the rejected norm was never used."""
    short, long = pull(2.0, 1.0, 0.9), pull(2.0, 2.0, 0.9)
    assert float(short.rejected_change) > 0 > float(long.rejected_change)
    assert float(short.rejected_slack) == pytest.approx(0.5 - 0.9)
    assert float(long.rejected_slack) == pytest.approx(1.0 - 0.9)


def test_figures_by_hand():
    found = pull(2.0, 3.0, 0.5, d_w=0.4, d_l=0.1)
    assert float(found.chosen_change) == pytest.approx(0.4 * 4 - 0.1 * 3)
    assert float(found.rejected_change) == pytest.approx(0.4 * 3 - 0.1 * 9)
    assert float(found.ratio) == pytest.approx(4)
    assert float(found.norm_ratio) == pytest.approx(1.5)
    assert [float(end) for end in found.band] == pytest.approx([0.75, 3.0])
    assert float(found.chosen_slack) == pytest.approx(4 / 1.5 - 0.5)
    assert float(found.rejected_slack) == pytest.approx(1.5 / 4 - 0.5)
    assert set(found.metrics()) == set(METRICS)
    assert float(found.metrics(0.1)["sgd_chosen"]) == pytest.approx(0.13)


@given(sizes, sizes, cosines, weights, weights)
def test_conditions_hold_exactly_within_the_band(s_w, s_l, cosine, d_w, d_l):
    found = pull(s_w, s_l, cosine, d_w, d_l)
    low, high = (float(end) for end in found.band)
    ratio = d_w / d_l
    assume(abs(ratio / low - 1) > 1e-6 if low else True)
    assume(abs(ratio / high - 1) > 1e-6)
    assert (float(found.chosen_change) > 0) == (ratio > low)
    assert (float(found.rejected_change) < 0) == (ratio < high)
    assert (float(found.chosen_slack) > 0) == (ratio > low)
    assert (float(found.rejected_slack) > 0) == (ratio < high)


@given(sizes, sizes, cosines, weights, weights)
def test_no_pair_of_positive_weights_is_reversed(s_w, s_l, cosine, d_w, d_l):
    found = pull(s_w, s_l, cosine, d_w, d_l)
    gap = float(found.chosen_change - found.rejected_change)
    assume(abs(float(found.chosen_change)) > 1e-9 or abs(float(found.rejected_change)) > 1e-9)
    assert gap >= -1e-9 or d_w != d_l
    assert not (float(found.chosen_change) < -1e-9 and float(found.rejected_change) > 1e-9)


@given(sizes, sizes, st.floats(-1, 0.999))
def test_the_centre_of_the_band_is_right_for_every_cosine(s_w, s_l, cosine):
    found = pull(s_w, s_l, cosine, d_w=s_l / s_w, d_l=1.0)
    assert float(found.chosen_slack) == pytest.approx(1 - cosine, rel=1e-5, abs=1e-6)
    assert float(found.rejected_slack) == pytest.approx(1 - cosine, rel=1e-5, abs=1e-6)


def test_conditions_say_nothing_of_negative_weights():
    found = pull(1.0, 2.0, 0.9, d_w=-1.0, d_l=-1.0)
    assert found.ratio.isnan().all()
    assert found.chosen_slack.isnan().all()
    assert float(found.chosen_change) > 0  # directions turn: past its target, IPO lets both rise


def test_what_does_not_move_is_of_no_case():
    found = step_metrics(torch.tensor([0.0, 1.0]), torch.tensor([0.0, -1.0]))
    assert set(found) == set(STEP_METRICS)
    assert found["step_share_ideal"].isnan().tolist() == [True, False]
    assert {name: bool(found[0]) for name, found in cases(torch.tensor([-1.0]), torch.tensor([1.0])).items()} == {
        "ideal": False,
        "both_down": False,
        "both_up": False,
        "reversed": True,
    }


def test_what_is_no_number_is_of_no_case():
    found = step_metrics(torch.tensor([torch.nan]), torch.tensor([torch.nan]))
    assert all(found[name].isnan().all() for name in STEP_METRICS)


def logps_at(weight, hidden, tokens):
    return torch.log_softmax(hidden @ weight.T, -1).gather(1, tokens[:, None]).T


@pytest.mark.parametrize(
    "name", ["dpo", "ipo", "simpo", "cpo", "orpo", "dpop", "r_dpo", "sppo_hard", "slic_hf", "rrhf", "hinge", "apo_down"]
)
def test_changes_are_those_of_a_step_that_is_taken(name):
    """A learnable last layer, several tokens; plain descent on the pair alone."""
    torch.manual_seed(1)
    weight = (0.3 * torch.randn(9, 5)).double().requires_grad_()
    states = [torch.randn(n, 5).double() for n in (3, 4)]
    tokens = [torch.randint(0, 9, (n,)) for n in (3, 4)]
    objective = OBJECTIVES.build(name)

    def pair(of, lowered=0.0):
        sides = [logps_at(of, h, y) - lowered for h, y in zip(states, tokens, strict=True)]
        masks = [torch.ones_like(side, dtype=torch.bool) for side in sides]
        chosen, rejected = (TokenLogps(logp=s, mask=m) for s, m in zip(sides, masks, strict=True))
        return PairTokenLogps(chosen=chosen, rejected=rejected)

    policy, reference = pair(weight), pair(weight.detach(), lowered=0.05)
    compared = reference if objective.needs_reference else None
    pulls = incentives(objective, policy, compared)
    sums = policy.summed()
    g = [torch.autograd.grad(one.sum(), weight, retain_graph=True)[0].flatten() for one in (sums.chosen, sums.rejected)]
    stacked = torch.stack(g)[None]
    gradients = PairGradients(by_parameter={"w": stacked @ stacked.mT}, coverage=1.0)
    found = Pull(gradients=gradients, d_w=pulls.d_w, d_l=pulls.d_l)
    (slope,) = torch.autograd.grad(objective.of_tokens(policy, compared).sum(), weight)
    rate = 1e-6
    moved, sums = pair((weight - rate * slope).detach()).summed(), sums.detach()
    assert float(moved.chosen - sums.chosen) / rate == pytest.approx(float(found.chosen_change), rel=1e-3, abs=1e-5)
    assert float(moved.rejected - sums.rejected) / rate == pytest.approx(
        float(found.rejected_change), rel=1e-3, abs=1e-5
    )


def test_single_tokens_at_a_last_layer_never_entangle():
    """Section A.5, 1: <w,l> = |h|^2 (|p|^2 - p_w - p_l), s_w^2 = |h|^2 (1 - 2 p_w + |p|^2)."""
    torch.manual_seed(0)
    for _ in range(10):
        weight, hidden = torch.randn(7, 4).double().requires_grad_(), torch.randn(1, 4).double()
        g_w, g_l = (
            torch.autograd.grad(logps_at(weight, hidden, torch.tensor([y])).sum(), weight)[0].flatten() for y in (2, 5)
        )
        p = torch.softmax(hidden @ weight.T, -1)[0].detach()
        size = float((hidden**2).sum())
        inner, s_w, s_l = float(g_w @ g_l), float(g_w @ g_w), float(g_l @ g_l)
        assert inner == pytest.approx(size * float((p**2).sum() - p[2] - p[5]))
        assert s_w == pytest.approx(size * float(1 - 2 * p[2] + (p**2).sum()))
        assert s_w - inner == pytest.approx(size * float(1 - p[2] + p[5]))
        assert inner < min(s_w, s_l)


def test_two_outcomes_pull_apart():
    weight, hidden = torch.randn(2, 4).double().requires_grad_(), torch.randn(1, 4).double()
    g = [torch.autograd.grad(logps_at(weight, hidden, torch.tensor([y])).sum(), weight)[0].flatten() for y in (0, 1)]
    assert float(g[0] @ g[1]) < 0


def test_several_tokens_add_up_position_by_position():
    """Section A.5, 2: sum over t, s of (h_t . h'_s)(delta_t . delta'_s), delta = e_y - p."""
    torch.manual_seed(2)
    weight = torch.randn(7, 4).double().requires_grad_()
    states, tokens = [torch.randn(n, 4).double() for n in (3, 5)], [torch.randint(0, 7, (n,)) for n in (3, 5)]
    g = [
        torch.autograd.grad(logps_at(weight, h, y).sum(), weight)[0].flatten()
        for h, y in zip(states, tokens, strict=True)
    ]
    p = [torch.softmax(h @ weight.T, -1).detach() for h in states]
    same = (tokens[0][:, None] == tokens[1][None]).double()
    deltas = same - p[0][:, tokens[1]] - p[1][:, tokens[0]].T + p[0] @ p[1].T
    assert float(g[0] @ g[1]) == pytest.approx(float(((states[0] @ states[1].T) * deltas).sum()))


def test_token_weights_are_taken_from_further_members():
    torch.manual_seed(0)
    whole = torch.randn(1, 4, 6).double()
    found = Pull(
        gradients=PairGradients(by_parameter={"w": whole @ whole.mT}, coverage=1.0),
        d_w=torch.ones(1).double(),
        d_l=torch.ones(1).double(),
    )
    assert float(found.chosen_change) == pytest.approx(float(whole[0, 0] @ (whole[0, 2] - whole[0, 3])))
    assert float(found.rejected_change) == pytest.approx(float(whole[0, 1] @ (whole[0, 2] - whole[0, 3])))
    assert replace(found, d_w=torch.zeros(1).double()).chosen_change == found.chosen_change
