"""LD-DPO, SamPO and WPO: what they become on pairs where their weights do nothing."""

from dataclasses import replace

import pytest
import torch

from align.objectives.dpo import DPO
from align.objectives.logps import TokenLogps
from align.objectives.token_weighted import LDDPO, WPO, SamPO
from tests.objectives.batches import pairs


def same_lengths(seed):
    batches = pairs(seed)
    full = torch.ones_like(batches[0].chosen.mask)
    return [replace(b, chosen=replace(b.chosen, mask=full), rejected=replace(b.rejected, mask=full)) for b in batches]


@pytest.mark.parametrize("objective", [LDDPO(alpha=0.1), SamPO()], ids=["ld_dpo", "sampo"])
def test_sides_of_one_length_are_dpo(objective):
    policy, reference = same_lengths(0)
    torch.testing.assert_close(objective.of_tokens(policy, reference), DPO().of_tokens(policy, reference))


def test_sampo_draws_the_same_tokens_of_policy_and_reference():
    """Where both agree on every token, the margin is 0 whatever is drawn."""
    policy, _ = pairs(1)
    torch.testing.assert_close(
        SamPO().of_tokens(policy, policy), torch.full((8,), 0.6931471805599453, dtype=torch.float64)
    )


def test_wpo_counts_pairs_less_that_the_policy_would_not_say():
    """A policy certain of what was said has weight 1; one of p a token among two, p / (p^2 + (1-p)^2) on average."""
    policy, reference = pairs(2)
    p = 0.25
    squares = torch.full_like(policy.chosen.logp, p**2 + (1 - p) ** 2).log()

    def said(side):
        return TokenLogps(logp=torch.full_like(side.logp, p).log(), mask=side.mask, log_sum_sq=squares)

    uncertain = replace(policy, chosen=said(policy.chosen), rejected=said(policy.rejected))
    weights = WPO(bounded=False).weights(uncertain)
    torch.testing.assert_close(weights, torch.full((8,), (p / (p**2 + (1 - p) ** 2)) ** 2, dtype=torch.float64))
    plain = DPO().of_tokens(uncertain, reference)
    torch.testing.assert_close(WPO().of_tokens(uncertain, reference), weights.clamp(max=1.0) * plain)


def test_wpo_refuses_sequences_which_do_not_say_its_weights():
    policy, reference = (batch.summed() for batch in pairs(3))
    with pytest.raises(ValueError, match="WPO is no function of sequence log-probabilities"):
        WPO()(policy, reference)


def test_wpo_needs_the_squares():
    policy, reference = pairs(3)
    bare = replace(policy, chosen=replace(policy.chosen, log_sum_sq=None))
    with pytest.raises(ValueError, match="sum of squared probabilities"):
        WPO().of_tokens(bare, reference)


def test_alpha_is_a_share():
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        LDDPO(alpha=1.5)
