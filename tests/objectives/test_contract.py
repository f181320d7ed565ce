"""What every registered objective promises, tested once for all of them."""

from dataclasses import FrozenInstanceError, asdict, fields

import pytest
import torch

from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES


@pytest.fixture(params=sorted(OBJECTIVES))
def objective(request):
    return OBJECTIVES.build(request.param)


def logps(seed: int, n: int = 8, dtype: torch.dtype = torch.float64) -> PairLogps:
    generator = torch.Generator().manual_seed(seed)
    sides = [(-40 * torch.rand(n, generator=generator, dtype=torch.float64) - 0.1).to(dtype) for _ in range(2)]
    lengths = [torch.randint(1, 30, (n,), generator=generator) for _ in range(2)]
    return PairLogps(chosen=sides[0], rejected=sides[1], chosen_lengths=lengths[0], rejected_lengths=lengths[1])


def reference_for(objective, seed: int, dtype: torch.dtype = torch.float64):
    return logps(seed, dtype=dtype) if objective.needs_reference else None


def permuted(batch: PairLogps, order: torch.Tensor) -> PairLogps:
    return PairLogps(**{f.name: getattr(batch, f.name)[order] for f in fields(PairLogps)})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_finite_loss_a_pair_in_the_dtype_given(objective, dtype):
    losses = objective(logps(0, dtype=dtype), reference_for(objective, 1, dtype))
    assert losses.shape == (8,)
    assert losses.dtype == dtype
    assert torch.isfinite(losses).all()


def test_gradient_is_finite_and_checks_numerically(objective):
    policy, reference = logps(0), reference_for(objective, 1)

    def loss(chosen, rejected):
        return objective(
            PairLogps(
                chosen=chosen,
                rejected=rejected,
                chosen_lengths=policy.chosen_lengths,
                rejected_lengths=policy.rejected_lengths,
            ),
            reference,
        )

    inputs = (policy.chosen.clone().requires_grad_(), policy.rejected.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


def test_the_order_of_pairs_does_not_matter(objective):
    policy, reference = logps(0), reference_for(objective, 1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    shuffled = objective(permuted(policy, order), reference and permuted(reference, order))
    torch.testing.assert_close(shuffled, objective(policy, reference)[order])


def test_inputs_are_left_alone(objective):
    policy, reference = logps(0), reference_for(objective, 1)
    before = policy.chosen.clone(), policy.rejected.clone()
    objective(policy, reference)
    assert torch.equal(policy.chosen, before[0])
    assert torch.equal(policy.rejected, before[1])


def test_settings_are_frozen_and_rebuild_the_objective(objective):
    settings = asdict(objective)
    assert OBJECTIVES.build(OBJECTIVES.name_of(objective), **settings) == objective
    for name in settings:
        with pytest.raises(FrozenInstanceError):
            setattr(objective, name, settings[name])


def test_every_setting_is_documented_and_the_source_named(objective):
    text = type(objective).__doc__ or ""
    assert all(f"{field.name}:" in text for field in fields(objective))
    module = __import__(type(objective).__module__, fromlist=["x"])
    assert "arXiv:" in (module.__doc__ or "")
    assert "Departures:" in module.__doc__
