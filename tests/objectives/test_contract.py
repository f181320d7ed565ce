"""What every registered objective promises, tested once for all, under defaults and under its card's examples."""

from dataclasses import FrozenInstanceError, asdict, fields, replace
from itertools import product

import pytest
import torch

from align.objectives.base import Objective, SidedObjective
from align.objectives.describe import settings_of
from align.objectives.incentives import incentives
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.mixture import Mixture, Part, Smoothed, row_losses, trains_unpaired
from align.objectives.registry import OBJECTIVES
from tests.objectives.batches import every_setting, formulas, label, pairs, reference_for

CASES = every_setting()
EXTREMES = (0.0, -1e-7, -1.0, -100.0, -1e4)


@pytest.fixture(params=CASES, ids=label)
def case(request):
    name, settings = request.param
    return name, OBJECTIVES.build(name, **settings)


@pytest.fixture
def objective(case):
    return case[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_finite_loss_a_pair_in_the_dtype_given(objective, dtype):
    policy, reference = pairs(0, dtype=dtype)
    losses = objective.of_tokens(policy, reference_for(objective, reference))
    assert losses.shape == (8,)
    assert losses.dtype == dtype
    assert torch.isfinite(losses).all()


def test_the_loss_is_the_cards_formula(case):
    name, objective = case
    for seed in (1, 2, 3):
        policy, reference = pairs(seed, even=OBJECTIVES.card(name).per_token)
        expected = formulas(objective, name, policy, reference)(OBJECTIVES.card(name).loss)
        losses = objective.of_tokens(policy, reference_for(objective, reference))
        torch.testing.assert_close(losses, expected, rtol=1e-11, atol=1e-11)


def test_incentives_are_the_cards_closed_forms(case):
    """Automatic differentiation of the code that trains, against d_w and d_l as the card states them."""
    name, objective = case
    card = OBJECTIVES.card(name)
    for seed in (4, 5, 6):
        policy, reference = pairs(seed, even=card.per_token)
        found = incentives(objective, policy, reference_for(objective, reference))
        says = formulas(objective, name, policy, reference)
        for side, text in (("chosen", card.d_w), ("rejected", card.d_l)):
            token = _heaviest(objective, policy, side)
            slopes = getattr(found, side).gather(1, token[:, None])[:, 0]
            torch.testing.assert_close(slopes, says(text), rtol=1e-12, atol=1e-12)


def _heaviest(objective, policy, side):
    """Return the token of each row with the largest weight in its sequence log-probability; it is 1 everywhere here."""
    tokens = getattr(policy, side)
    logp = tokens.logp.detach().clone().requires_grad_()
    total = getattr(objective.weigh(replace(policy, **{side: replace(tokens, logp=logp)})), side).sum()
    (weights,) = torch.autograd.grad(total, logp)
    assert weights.amax(1).eq(1).all()
    return weights.argmax(1)


def test_gradient_checks_numerically(objective):
    if objective.needs_collision:
        pytest.skip("its weight is without gradient, which a finite difference would see")
    policy, reference = pairs(7, rows=4, width=4)

    def loss(chosen, rejected):
        moved = replace(
            policy,
            chosen=replace(policy.chosen, logp=chosen),
            rejected=replace(policy.rejected, logp=rejected),
        )
        return objective.of_tokens(moved, reference_for(objective, reference))

    inputs = [side.logp.clone().requires_grad_() for side in (policy.chosen, policy.rejected)]
    assert torch.autograd.gradcheck(loss, inputs)


def permuted(batch: PairTokenLogps, order: torch.Tensor) -> PairTokenLogps:
    def rows(side):
        return TokenLogps(logp=side.logp[order], mask=side.mask[order], log_sum_sq=side.log_sum_sq[order])

    return PairTokenLogps(
        chosen=rows(batch.chosen),
        rejected=rows(batch.rejected),
        chosen_scores=batch.chosen_scores[order],
        rejected_scores=batch.rejected_scores[order],
        prompt=rows(batch.prompt),
        draws=tuple(draw[order] for draw in batch.draws),
    )


def test_the_order_of_pairs_does_not_matter(objective):
    policy, reference = pairs(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    other = permuted(reference, order) if objective.needs_reference else None
    shuffled = objective.of_tokens(permuted(policy, order), other)
    torch.testing.assert_close(shuffled, objective.of_tokens(policy, reference_for(objective, reference))[order])


def test_pairs_are_coupled_only_where_it_is_declared(objective):
    policy, reference = pairs(9)
    whole = objective.of_tokens(policy, reference_for(objective, reference))
    alone = torch.cat(
        [
            objective.of_tokens(permuted(policy, row), reference_for(objective, permuted(reference, row)))
            for row in torch.arange(8).split(1)
        ]
    )
    assert torch.allclose(whole, alone) is not objective.couples_pairs


def test_padding_does_not_matter(objective):
    policy, reference = pairs(10)

    def wider(batch):
        def pad(side):
            logp = torch.nn.functional.pad(side.logp, (0, 3), value=torch.nan)
            squares = torch.nn.functional.pad(side.log_sum_sq, (0, 3), value=torch.nan)
            return TokenLogps(logp=logp, mask=torch.nn.functional.pad(side.mask, (0, 3)), log_sum_sq=squares)

        draws = tuple(torch.nn.functional.pad(d, (0, 3)) for d in batch.draws)
        parts = {"chosen": pad(batch.chosen), "rejected": pad(batch.rejected), "prompt": pad(batch.prompt)}
        return replace(batch, **parts, draws=draws)

    expected = objective.of_tokens(policy, reference_for(objective, reference))
    torch.testing.assert_close(objective.of_tokens(wider(policy), reference_for(objective, wider(reference))), expected)


def test_inputs_are_left_alone(objective):
    policy, reference = pairs(11)
    before = policy.chosen.logp.clone(), policy.rejected.logp.clone()
    objective.of_tokens(policy, reference_for(objective, reference))
    assert torch.equal(policy.chosen.logp, before[0])
    assert torch.equal(policy.rejected.logp, before[1])


def test_sides_that_are_not_read_may_hold_anything(objective):
    policy, reference = pairs(12)
    expected = objective.of_tokens(policy, reference_for(objective, reference))
    for side in {"chosen", "rejected"} - set(objective.reads):
        for batch in (policy, reference):
            getattr(batch, side).logp.fill_(torch.nan)
    assert torch.equal(objective.of_tokens(policy, reference_for(objective, reference)), expected)
    for side in objective.reads:
        slopes = getattr(incentives(objective, policy, reference_for(objective, reference)), side)
        assert slopes.abs().sum() > 0


def test_what_is_not_needed_may_be_missing(objective):
    policy, reference = pairs(13)
    kept = {"scores": ("chosen_scores", "rejected_scores"), "prompt": ("prompt",), "draws": ("draws",)}
    gone = {field: None for need, names in kept.items() if need not in objective.needs for field in names}
    bare, bare_reference = replace(policy, **gone), replace(reference, **gone)
    if "collision" not in objective.needs:
        for side in ("chosen", "rejected"):
            bare = replace(bare, **{side: replace(getattr(bare, side), log_sum_sq=None)})
    losses = objective.of_tokens(bare, reference_for(objective, bare_reference))
    assert torch.equal(losses, objective.of_tokens(policy, reference_for(objective, reference)))


def test_lengths_matter_where_it_is_declared_and_nowhere_else(objective):
    policy, reference = (objective.weigh(side) for side in pairs(14))
    other = reference if objective.needs_reference else None
    by_tokens = type(objective).weigh is not Objective.weigh or type(objective).of_tokens is not Objective.of_tokens
    if by_tokens:
        pytest.skip("lengths are read when tokens are weighed")
    longer = replace(policy, chosen_lengths=policy.chosen_lengths * 3 + 1, rejected_lengths=policy.rejected_lengths * 2)
    assert torch.equal(objective(policy, other), objective(longer, other)) is not objective.needs_lengths


def test_settings_are_frozen_and_rebuild_the_objective(objective):
    settings = asdict(objective)
    assert OBJECTIVES.build(OBJECTIVES.name_of(objective), **settings) == objective
    for name in settings:
        with pytest.raises(FrozenInstanceError):
            setattr(objective, name, settings[name])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_cards_say_what_users_ask(name):
    card, cls = OBJECTIVES.card(name), OBJECTIVES[name]
    assert card.title
    assert card.does
    assert "arXiv:" in card.source or "https://" in card.source
    assert {s.name for s in settings_of(cls)} == {f.name for f in fields(cls)}
    assert all(s.meaning for s in settings_of(cls))
    assert card.examples or not fields(cls)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_make_no_sense_are_refused(name, value):
    for field in fields(OBJECTIVES[name]):
        if isinstance(field.default, float):
            with pytest.raises(ValueError, match=f"^{field.name} must"):
                OBJECTIVES.build(name, **{field.name: value})


LIMITS = [(name, limit) for name in OBJECTIVES for limit in OBJECTIVES.card(name).limits]


@pytest.mark.parametrize(("name", "limit"), LIMITS, ids=lambda x: x if isinstance(x, str) else x.says)
def test_limits_hold(name, limit):
    here, there = OBJECTIVES.build(name, **limit.at), OBJECTIVES.build(limit.of, **limit.settings)
    batch = {"rows": limit.pairs or 8, "width": limit.tokens or 9}
    policy, reference = pairs(15, **batch)
    found = [incentives(o, policy, reference_for(o, reference)) for o in (here, there)]
    for d in ("d_w", "d_l"):
        torch.testing.assert_close(
            getattr(found[0], d), limit.scale * getattr(found[1], d), rtol=limit.within, atol=limit.within
        )
    if not limit.gradient_only:
        values = [o.of_tokens(policy, reference_for(o, reference)) for o in (here, there)]
        torch.testing.assert_close(values[0], limit.scale * values[1], rtol=limit.within, atol=limit.within)


def extreme_pairs(length, dtype=torch.float32):
    """Every combination of the extreme sequence log-probabilities, spread over tokens."""
    grid = torch.tensor(list(product(EXTREMES, repeat=4)), dtype=torch.float64)

    def side(column):
        logp = (grid[:, column, None] / length).expand(-1, length).to(dtype).clone()
        mask = torch.ones_like(logp, dtype=torch.bool)
        return TokenLogps(logp=logp, mask=mask, log_sum_sq=torch.full_like(logp, -2.0))

    rows = len(grid)
    rest = {
        "chosen_scores": torch.full((rows,), 0.9, dtype=dtype),
        "rejected_scores": torch.full((rows,), 0.2, dtype=dtype),
        "draws": (torch.rand(rows, length), torch.rand(rows, length)),
        "prompt": side(0),
    }
    policy = PairTokenLogps(chosen=side(0), rejected=side(1), **rest)
    return policy, PairTokenLogps(chosen=side(2), rejected=side(3), **rest)


@pytest.mark.parametrize("length", [1, 7])
def test_values_and_gradients_are_finite_at_extremes(objective, length):
    policy, reference = extreme_pairs(length)
    losses = objective.of_tokens(policy, reference_for(objective, reference))
    found = incentives(objective, policy, reference_for(objective, reference))
    assert torch.isfinite(losses).all()
    assert torch.isfinite(found.chosen).all()
    assert torch.isfinite(found.rejected).all()


NEVER_BACKWARDS = (
    *(
        "dpo",
        "hinge",
        "sigmoid_norm",
        "robust",
        "r_dpo",
        "dpop",
        "odpo",
        "dpo_shift",
        "ld_dpo",
        "sampo",
        "wpo",
        "bco_pair",
    ),
    *(
        "apo_zero",
        "kto",
        "simpo",
        "alphapo",
        "cpo",
        "slic_hf",
        "rrhf",
        "orpo",
        "sft",
        "unlikelihood",
        "gradient_ascent",
    ),
    *("npo", "simnpo", "iterative_rpo", "mpo", "d2o"),
)
"""Objectives that pull the chosen up and push the rejected down wherever they are."""


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("name", NEVER_BACKWARDS)
def test_the_sign_is_right_at_extremes(name, length):
    objective = OBJECTIVES.build(name)
    policy, reference = extreme_pairs(length)
    found = incentives(objective, policy, reference_for(objective, reference))
    assert (found.chosen >= 0).all()
    assert (found.rejected >= 0).all()


DIVERGENCES = ("forward_kl", "js_divergence", "alpha_divergence")
LOG_RATIO = [name for name in OBJECTIVES if "f_divergence" in OBJECTIVES[name].__dataclass_fields__]


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", LOG_RATIO)
def test_divergences_are_finite_at_extremes(name, divergence, length):
    objective = OBJECTIVES.build(name, f_divergence=divergence)
    test_values_and_gradients_are_finite_at_extremes(objective, length)
    if name in NEVER_BACKWARDS:
        policy, reference = extreme_pairs(length)
        found = incentives(objective, policy, reference)
        assert (found.chosen >= 0).all()
        assert (found.rejected >= 0).all()


SLOPES = {
    "reverse_kl": (lambda h: h, torch.ones_like),
    "forward_kl": (lambda h: 1 - torch.exp(-h), lambda h: torch.exp(-h)),
    "js_divergence": (lambda h: torch.log(2 * torch.exp(h) / (torch.exp(h) + 1)), lambda h: 1 / (1 + torch.exp(h))),
    "alpha_divergence": (lambda h: (torch.exp(-0.7 * h) - 1) / -0.7, lambda h: torch.exp(-0.7 * h)),
}


@pytest.mark.parametrize("divergence", SLOPES)
@pytest.mark.parametrize("name", LOG_RATIO)
def test_an_f_divergence_replaces_the_log_ratio_in_the_cards_formulas(name, divergence):
    """Wang et al., 2023: h becomes f'(e^h), and the incentives multiply by its slope."""
    settings = {"f_alpha": 0.3} if divergence == "alpha_divergence" else {}
    objective, card = OBJECTIVES.build(name, f_divergence=divergence, **settings), OBJECTIVES.card(name)
    policy, reference = pairs(16)
    score, slope = SLOPES[divergence]
    p, r = policy.summed(), reference.summed()
    h_w, h_l = p.chosen - r.chosen, p.rejected - r.rejected
    shifted = replace(
        policy,
        chosen=_with_total(policy.chosen, r.chosen + score(h_w)),
        rejected=_with_total(policy.rejected, r.rejected + score(h_l)),
    )
    says = formulas(objective, name, shifted, reference)
    found = incentives(objective, policy, reference)
    torch.testing.assert_close(objective.of_tokens(policy, reference), says(card.loss), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.d_w, says(card.d_w) * slope(h_w), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.d_l, says(card.d_l) * slope(h_l), rtol=1e-11, atol=1e-11)


def _with_total(side, total):
    logp = side.logp.clone()
    logp[:, 0] += total - side.summed().logps
    return replace(side, logp=logp)


def test_label_smoothing_composes_with_any(objective):
    policy, reference = pairs(17)
    reference = reference_for(objective, reference)
    assert torch.equal(
        Smoothed(objective=objective, label_smoothing=0.0).of_tokens(policy, reference),
        objective.of_tokens(policy, reference),
    )
    epsilon = 0.2
    smoothed = Smoothed(objective=objective, label_smoothing=epsilon).of_tokens(policy, reference)
    assert torch.isfinite(smoothed).all()
    if objective.anchor(objective.weigh(policy)) is None:
        wrong = objective.of_tokens(policy.swapped(), None if reference is None else reference.swapped())
        right = objective.of_tokens(policy, reference)
        torch.testing.assert_close(smoothed, (1 - epsilon) * right + epsilon * wrong)


def test_mixtures_add_up_with_any(objective):
    policy, reference = pairs(18)
    sft = OBJECTIVES.build("sft")
    mixture = Mixture(parts=(Part(objective=objective, weight=0.7), Part(objective=sft, weight=0.2)))
    assert mixture.needs_reference == objective.needs_reference
    expected = 0.7 * objective.of_tokens(policy, reference_for(objective, reference)) + 0.2 * sft.of_tokens(policy)
    torch.testing.assert_close(mixture.of_tokens(policy, reference_for(mixture, reference)), expected)


def test_single_completions_lose_what_pairs_lose(objective):
    """A loss of two sides, taken apart: the rows of a batch sum to its pairs."""
    if not isinstance(objective, SidedObjective):
        assert not trains_unpaired(objective)
        return
    policy, reference = (batch.summed() for batch in pairs(19))
    rows, other = (
        replace(
            side.chosen_side,
            logps=torch.cat([side.chosen, side.rejected]),
            lengths=torch.cat([side.chosen_lengths, side.rejected_lengths]),
        )
        for side in (policy, reference)
    )
    desirable = torch.arange(16) < 8
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    taken = [replace(side, logps=side.logps[order], lengths=side.lengths[order]) for side in (rows, other)]
    losses = row_losses(objective, taken[0], taken[1] if objective.needs_reference else None, desirable[order])
    whole = objective(policy, reference if objective.needs_reference else None)
    torch.testing.assert_close(losses.sum(), whole.sum())
