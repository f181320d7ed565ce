"""Objectives that couple pairs, cut into processes: the losses and gradients of one batch."""

from dataclasses import replace

import pytest
import torch

from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps, TokenLogps
from align.objectives.mixture import Mixture, Part, Smoothed
from align.objectives.registry import OBJECTIVES
from align.objectives.together import Processes, Together, together

AOT = OBJECTIVES.build("aot", beta=0.7)
CASES = {
    "aot": AOT,
    "aot_unpaired": OBJECTIVES.build("aot_unpaired", label_smoothing=0.2),
    "orpo": OBJECTIVES.build("orpo", nll="batch_mean_with_prompt"),
    "smoothed cpo": Smoothed(objective=OBJECTIVES.build("cpo", nll="batch_mean"), label_smoothing=0.1),
    "mixture": Mixture(parts=(Part(objective=OBJECTIVES.build("dpo")), Part(objective=AOT, weight=0.3))),
}


def tokens(seed, pairs=6):
    draw = torch.Generator().manual_seed(seed)

    def side(width):
        lengths = torch.randint(1, width + 1, (pairs,), generator=draw)
        logp = -torch.rand(pairs, width, generator=draw, dtype=torch.float64) - 0.01
        return TokenLogps(logp=logp.requires_grad_(), mask=torch.arange(width) < lengths[:, None])

    return PairTokenLogps(chosen=side(5), rejected=side(4), prompt=side(3))


def rows(given, start, stop):
    sides = {name: getattr(given, name).rows(start, stop) for name in ("chosen", "rejected", "prompt")}
    return PairTokenLogps(**sides)


def losses_of_processes(objective, policy, reference, real):
    """Return the losses of two processes of three rows each; each sees what the other gathers."""
    halves = [(rows(policy, *cut), rows(reference, *cut), real[slice(*cut)]) for cut in ((0, 3), (3, 6))]
    seen: list[list[torch.Tensor]] = [[], []]

    def run(rank, gather):
        mine, other, there = halves[rank]
        return together(objective, Processes(gather=gather, rank=rank, real=there)).of_tokens(mine, other)

    def note(rank):
        def gather(matrix):
            seen[rank].append(matrix)
            return torch.cat([matrix, matrix])

        return gather

    for rank in (0, 1):
        run(rank, note(rank))
    calls = [iter(zip(*seen, strict=True)) for _ in (0, 1)]
    return torch.cat([run(rank, lambda _, rank=rank: torch.cat(next(calls[rank]))) for rank in (0, 1)])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_lose_what_one_does(name):
    objective, policy, reference = CASES[name], tokens(1), tokens(2)
    real = torch.ones(6, dtype=torch.bool)
    compared = reference if objective.needs_reference else None
    whole = objective.of_tokens(policy, compared)
    cut = losses_of_processes(objective, policy, reference, real)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)
    leaves = [policy.chosen.logp, policy.rejected.logp]
    for mine, other in zip(
        torch.autograd.grad(cut.sum(), leaves), torch.autograd.grad(whole.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_rows_that_fill_up_couple_with_nothing_and_lose_nothing():
    policy, reference = tokens(1), tokens(2)
    real = torch.tensor([True, True, True, True, False, False])
    whole = AOT.of_tokens(rows(policy, 0, 4), rows(reference, 0, 4))
    cut = losses_of_processes(AOT, policy, reference, real)
    torch.testing.assert_close(cut[:4], whole, rtol=1e-12, atol=1e-12)
    assert cut[4:].tolist() == [0.0, 0.0]


def test_what_couples_nothing_stays_as_it_is():
    processes = Processes(gather=torch.clone, rank=0, real=torch.ones(2, dtype=torch.bool))
    dpo = OBJECTIVES.build("dpo")
    assert together(dpo, processes) is dpo
    mixed = together(CASES["mixture"], processes)
    assert [type(part.objective) for part in mixed.parts] == [type(dpo), Together]
    assert mixed.parts[1].objective.anchor(numbers(0.0, 0.0)) is None


def numbers(*logps):
    given, lengths = torch.tensor(logps), torch.tensor([5, 6])
    return PairLogps(chosen=given, rejected=given, chosen_lengths=lengths, rejected_lengths=lengths)


def test_numbers_of_prompts_come_along():
    found = []

    class Seen(type(AOT)):
        def losses(self, policy, reference):
            found.append(policy)
            return policy.chosen

    processes = Processes(gather=lambda m: torch.cat([m, m]), rank=1, real=torch.ones(2, dtype=torch.bool))
    prompt = SequenceLogps(logps=torch.tensor([-1.0, -2.0]), lengths=torch.tensor([3, 4]))
    given = replace(numbers(5.0, 6.0), prompt=prompt, chosen_scores=torch.tensor([0.5, 0.25]))
    assert Together(objective=Seen(), processes=processes).losses(given, None).tolist() == [5.0, 6.0]
    assert found[0].prompt.lengths.tolist() == [3, 4, 3, 4]
    assert found[0].chosen_scores.tolist() == [0.5, 0.25, 0.5, 0.25]
    assert found[0].rejected_scores is None
