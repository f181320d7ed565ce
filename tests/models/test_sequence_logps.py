"""Log-probabilities of many completions: batches, shares of processes, and prompts that are computed once."""

import pytest
import torch

from align.data.packing import Packing
from align.models.layout import Layout
from align.models.logprobs import output_head
from align.models.sequence_logps import logps_of
from align.models.tree_attention import NAME

CPU = torch.device("cpu")


@pytest.fixture
def sequences():
    torch.manual_seed(1)
    prompts = [torch.randint(5, 300, (n,)).tolist() for n in (3, 5)]
    answers = [torch.randint(5, 300, (n,)).tolist() for n in (4, 1, 6, 2)]
    return [(prompt, answer) for answer in answers for prompt in prompts]


def by_hand(model, prompt, answer):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)])


def lay_out(some):
    return Layout.of(Packing().keys("", some, [tuple(prompt) for prompt, _ in some]), "")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("processes", [1, 3])
def test_every_sequence_once_by_some_process(model, sequences, packed, processes):
    expected = [by_hand(model, *sequence) for sequence in sequences]
    model.set_attn_implementation(NAME)
    calls, found = [], {}
    for rank in range(processes):
        handle = model.register_forward_hook(lambda *_, rank=rank: calls.append(rank))
        batches = logps_of(
            model,
            output_head(model),
            sequences,
            label="some",
            device=CPU,
            lay_out=lay_out if packed else None,
            share=(rank, processes),
            tokens=16,
        )
        for batch in batches:
            for i, logp in batch:
                assert i not in found
                found[i] = logp
        handle.remove()
    assert len({calls.count(rank) for rank in range(processes)}) == 1  # equally many forwards in each
    for i, logp in enumerate(expected):
        torch.testing.assert_close(found[i], logp, rtol=1e-4, atol=1e-4)


def test_prompts_are_computed_once(model, sequences):
    model.set_attn_implementation(NAME)
    seen = []
    model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True)
    list(logps_of(model, output_head(model), sequences, label="some", device=CPU, lay_out=lay_out))
    assert sum(seen) == 3 + 5 + 2 * (4 + 1 + 6 + 2)
