"""Sorting: a batch of one is DPO, shuffled sides change nothing, ranks go back to their pairs."""

import torch

from align.objectives.dpo import DPO
from align.objectives.logps import PairLogps
from align.objectives.transport import AOT, AOTUnpaired, same_rank

ONES = torch.ones(3, dtype=torch.long)


def batch(chosen, rejected):
    sides = (torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected))
    return PairLogps(
        **dict(zip(("chosen", "rejected"), sides, strict=True)), chosen_lengths=ONES, rejected_lengths=ONES
    )


def test_ranks_by_hand():
    assert same_rank(torch.tensor([5.0, -1.0, 2.0]), torch.tensor([0.0, 9.0, 4.0])).tolist() == [9.0, 0.0, 4.0]


def test_pairs_in_order_are_dpo():
    """Where margins of policy and reference, or both sides' log-ratios, have one order, sorting moves nothing."""
    same_margins = batch([-1.0, -2.0, -3.0], [-9.0, -9.0, -9.0]), batch([-5.0, -6.0, -7.0], [-8.0, -8.0, -8.0])
    torch.testing.assert_close(AOT()(*same_margins), DPO()(*same_margins))
    same_ratios = batch([-3.0, -2.0, -1.0], [-9.0, -7.0, -6.0]), batch([-5.0, -4.5, -4.4], [-8.0, -8.1, -8.2])
    torch.testing.assert_close(AOTUnpaired()(*same_ratios), DPO()(*same_ratios))


def test_who_answers_whom_does_not_matter_to_the_unpaired_one():
    policy, reference = batch([-3.0, -2.0, -1.0], [-9.0, -7.0, -6.0]), batch([-5.0, -3.5, -4.4], [-8.0, -8.1, -7.2])
    order = torch.tensor([2, 0, 1])

    def shuffled(pairs):
        return PairLogps(
            chosen=pairs.chosen, rejected=pairs.rejected[order], chosen_lengths=ONES, rejected_lengths=ONES
        )

    found = AOTUnpaired()(shuffled(policy), shuffled(reference))
    torch.testing.assert_close(found, AOTUnpaired()(policy, reference))


def test_the_sum_is_over_sorted_differences():
    """Margins 1, 3, 2 against 5, 0, 1: sorted 1-0, 2-1, 3-5."""
    policy, reference = batch([1.0, 3.0, 2.0], [0.0, 0.0, 0.0]), batch([5.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    differences = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(AOT(beta=1.0)(policy, reference), torch.log1p(torch.exp(-differences)))
