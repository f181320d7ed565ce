"""Attention part by part against one whole mask: results, gradients, how many calls, how large their masks are."""

import random

import pytest
import torch
from torch.nn import functional as F

from align.data.prefix_tree import lay_out
from align.models import tree_attention as attention
from align.models import tree_parts
from align.models.tree_attention import plans, seen, tree_attention
from align.models.tree_parts import Plan, plan


def spans_of(rows, groups=None, **options):
    groups = [0] * len(rows) if groups is None else groups
    return lay_out(rows, [1] * len(rows), groups, **options)["spans"]


def completions(count, length, prompt):
    """Return rows of one prompt, none of which begins as another goes on."""
    return [[*range(prompt), 1000 + i, *range(length - 1)] for i in range(count)]


def drawn(seed):
    """Return spans of random trees: branches of branches, rows that end in others, trees of one token, padding."""
    draw = random.Random(seed)
    rows, groups = [], []
    for group in range(draw.randint(1, 8)):
        stem = [draw.randint(0, 9) for _ in range(draw.choice([1, 4, 30]))]
        for _ in range(draw.randint(1, 5)):
            own = [draw.randint(0, 3) for _ in range(draw.choice([0, 1, 2, 5, 40]))]
            rows.append([*stem[: draw.randint(1, len(stem))], *own])
            groups.append(group)
    budget, multiple = draw.choice([None, 60, 200]), draw.choice([1, 32])
    return spans_of(rows, groups, budget=budget, multiple=multiple)


def whole(query, key, value, spans, window, softcap):
    """Return attention with a mask of all queries and keys."""
    found = []
    for number in range(len(spans)):
        every = slice(0, spans.shape[-1])
        mask = seen(spans, number, every, every, window)
        scores = query[number] @ key[number].mT * query.shape[-1] ** -0.5
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        found.append(torch.softmax(scores.masked_fill(~mask, -torch.inf), -1) @ value[number])
    return torch.stack(found).transpose(1, 2)


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (1, None), (7, None), (None, 2.0), (20, 2.0)])
@pytest.mark.parametrize(("small", "largest"), [(None, None), (1, None), (1, 300), (10**9, None)])
@pytest.mark.parametrize("seed", range(6))
def test_results_and_gradients_are_those_of_one_mask(monkeypatch, seed, small, largest, window, softcap):
    if small is not None:
        monkeypatch.setattr(tree_parts, "SMALL", small)
    if largest is not None:
        monkeypatch.setattr(tree_parts, "LARGEST", largest)
    spans = drawn(seed)
    torch.manual_seed(seed)
    size = (len(spans), 2, spans.shape[-1], 8)
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    options = {"sliding_window": window, "softcap": softcap}
    found, _ = tree_attention(torch.nn.Module(), *inputs, spans, **options)
    expected = whole(*inputs, spans, window, softcap)
    # Soft caps go through a softmax in float32, as in the models that have them.
    close = {"rtol": 1e-9, "atol": 1e-10} if softcap is None else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found, expected, **close)
    weights = torch.randn(found.shape, dtype=torch.float64)
    one, other = (torch.autograd.grad((each * weights).sum(), inputs) for each in (found, expected))
    for mine, plain in zip(one, other, strict=True):
        torch.testing.assert_close(mine, plain, **close)


def largest_mask(one):
    masks = [part.mask for part in one.parts if part.mask is not None]
    return max((mask.numel() for mask in [*masks, *([] if one.corner is None else [one.corner])]), default=0)


def test_padding_is_one_part_however_long():
    """Four rows of very different lengths, a sequence each: the tails were 250 calls each."""
    rows = [[group, *range(10, 10 + length)] for group, length in enumerate((300, 50, 40, 30))]
    made = plans(spans_of(rows, range(4), budget=1), None, torch.float32)
    assert [len(one.parts) for one in made] == [1, 2, 2, 2]
    assert [[part.alone for part in one.parts] for one in made] == [[False], *[[False, True]] * 3]
    assert made[3].parts[1].size == 301 - 31


def test_trees_of_one_token_do_not_join_others():
    made = plan(spans_of([[1], [2], [3, 4], [5]], range(4))[0, 0], None, torch.float32)
    assert [(part.size, part.alone) for part in made.parts] == [(2, True), (2, False), (1, True)]


@pytest.mark.parametrize("count", [2, 8, 12])
def test_branches_are_parts_of_their_own(count):
    spans = spans_of(completions(count, 301, 300))
    made = plan(spans[0, 0], None, torch.float32)
    assert [part.size for part in made.parts] == [601, *[301] * (count - 1)]
    assert made.parts[0].above == ()
    assert all(part.above == ((0, (0, 300)),) for part in made.parts[1:])
    assert largest_mask(made) == 301 * 601  # one for all branches, instead of one of all branches


def test_no_mask_is_larger_than_the_bound(monkeypatch):
    monkeypatch.setattr(tree_parts, "LARGEST", 40_000)
    calls = []
    plain = F.scaled_dot_product_attention

    def counted(q, k, v, attn_mask=None, **options):
        calls.append(None if attn_mask is None else tuple(attn_mask.shape))
        return plain(q, k, v, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    spans = spans_of(completions(3, 301, 300))
    query = torch.randn(1, 1, spans.shape[-1], 8)
    tree_attention(torch.nn.Module(), query, query, query, spans)
    assert calls[0] is None  # the prompt and the first completion: a plain row
    masks = [shape for shape in calls if shape is not None]
    assert len(masks) == 2 * 5
    assert max(rows * keys for rows, keys in masks) <= 40_000
    assert largest_mask(attention._known[spans][None, torch.float32][0]) <= 40_000


def test_small_branches_are_one_part():
    made = plan(spans_of(completions(12, 5, 20))[0, 0], None, torch.float32)
    assert len(made.parts) == 1
    assert made.parts[0].mask.shape == (80, 80)
    assert len(plan(spans_of(completions(12, 5, 200))[0, 0], None, torch.float32).parts) < 6


def test_windows_leave_out_what_they_do_not_reach():
    made = plan(spans_of(completions(2, 50, 400))[0, 0], 30, torch.float32)
    assert made.parts[1].above == ((0, (371, 400)),)
    keys = [keys for _, keys, _ in made.parts[0].calls(450, made.corner)]
    assert max(each.stop - each.start for each in keys) <= 450
    assert isinstance(made, Plan)
