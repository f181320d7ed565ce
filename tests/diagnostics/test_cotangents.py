import pytest
import torch

from align.diagnostics.cotangents import Watched, Weights, constant_sides
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.registry import OBJECTIVES


def weights_of(objective, seed=0):
    torch.manual_seed(seed)
    masks = [torch.arange(6) < torch.tensor([[4], [6]]), torch.arange(5) < torch.tensor([[5], [2]])]
    leaves = [(-torch.rand(m.shape)).requires_grad_() for m in masks]
    chosen, rejected = (TokenLogps(logp=x, mask=m) for x, m in zip(leaves, masks, strict=True))
    policy = PairTokenLogps(chosen=chosen, rejected=rejected)
    watched = [Watched(leaf) for leaf in leaves]
    reference = PairTokenLogps(
        **{
            side: TokenLogps(logp=getattr(policy, side).logp.detach(), mask=getattr(policy, side).mask)
            for side in ("chosen", "rejected")
        }
    )
    losses = objective.of_tokens(policy, reference if objective.needs_reference else None)
    kept = Watched(losses)
    (losses * torch.tensor([0.25, 0.5])).sum().backward()
    return Weights(
        chosen=watched[0].get(),
        rejected=watched[1].get(),
        chosen_mask=masks[0],
        rejected_mask=masks[1],
        loss=kept.get(),
        others=torch.zeros(2, dtype=torch.bool),
    )


@pytest.mark.parametrize("name", ["dpo", "simpo", "ipo", "cpo", "orpo", "dpop", "sigmoid_norm"])
def test_functions_of_two_sums_factor(name):
    assert weights_of(OBJECTIVES.build(name)).factors().all()


def test_the_weight_a_pair_has_in_the_step_is_taken_out():
    found = weights_of(OBJECTIVES.build("dpo", beta=0.2))
    assert found.d_w.tolist() == pytest.approx([0.1, 0.1])
    assert found.d_l.tolist() == pytest.approx([0.1, 0.1])
    assert found.of_sides[:, 0].tolist() == pytest.approx([-0.025, -0.05])
    d_w, d_l = found.incentives
    assert d_w[0].tolist() == pytest.approx([0.1] * 4 + [0.0] * 2)
    assert d_l[1].tolist() == pytest.approx([0.1] * 2 + [0.0] * 3)


def test_what_weighs_tokens_does_not_factor():
    found = weights_of(OBJECTIVES.build("ld_dpo", alpha=0.3))
    assert not found.factors().any()


def test_what_goes_past_the_two_sums_does_not_factor():
    found = weights_of(OBJECTIVES.build("dpo"))
    other = Weights(
        **{f: getattr(found, f) for f in Weights.__slots__ if f != "others"}, others=torch.tensor([True, False])
    )
    assert other.factors().tolist() == [False, True]
    assert other.pick(torch.tensor([1])).factors().tolist() == [True]


def test_faint_weights_are_told_by_type():
    found = weights_of(OBJECTIVES.build("dpo", beta=1e-4))
    assert found.strong(torch.float32).all()
    assert not found.strong(torch.float16).any()


def test_nothing_that_came_is_zero():
    tensor = torch.ones(3, requires_grad=True)
    assert Watched(tensor).get().tolist() == [0, 0, 0]
    assert Watched(torch.ones(3)).get().tolist() == [0, 0, 0]


def test_constant_within_a_side_outside_of_it_anything():
    values, mask = torch.tensor([[1.0, 1.0, 9.0], [1.0, 1.1, 1.0]]), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    assert constant_sides([values], [mask]).tolist() == [True, False]
