"""Objectives that expect wrong labels: what their share does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.laws import loss, nats, pair

share = st.floats(0.01, 0.45)


@given(nats, nats, nats, nats, share)
def test_cdpo_is_the_expected_loss_and_robust_undoes_it(a, b, a0, b0, epsilon):
    """E over labels of the robust loss is DPO on the true ones (Chowdhury et al.): it is unbiased."""
    right, wrong = (pair(a, b), pair(a0, b0)), (pair(b, a), pair(b0, a0))
    clean = loss("dpo", *right)
    expected = (1 - epsilon) * clean + epsilon * loss("dpo", *wrong)
    assert loss("cdpo", *right, label_smoothing=epsilon) == pytest.approx(expected, rel=1e-9)
    robust = [loss("robust", *sides, label_smoothing=epsilon) for sides in (right, wrong)]
    assert (1 - epsilon) * robust[0] + epsilon * robust[1] == pytest.approx(clean, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
@pytest.mark.parametrize("name", ["cdpo", "exo_pair"])
def test_the_least_loss_is_where_the_model_is_as_sure_as_the_labels(name, epsilon):
    best = math.log((1 - epsilon) / epsilon) / 0.1
    at, below, above = (
        loss(name, pair(best + step, 0.0), pair(0.0, 0.0), label_smoothing=epsilon) for step in (0.0, -0.5, 0.5)
    )
    assert at < min(below, above)


def test_exo_is_a_kl_divergence():
    """0 where the model's preference is the label (1-e, e)."""
    best = math.log(0.8 / 0.2) / 0.1
    assert loss("exo_pair", pair(best, 0.0), pair(0.0, 0.0), label_smoothing=0.2) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \(0, 0.5\)"):
        loss("exo_pair", pair(0.0, 0.0), pair(0.0, 0.0), label_smoothing=0.0)
