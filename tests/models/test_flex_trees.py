"""The block mask of GPUs says what the mask of CPUs says; attention itself is compared on a GPU."""

import gc
import random

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from align.data.prefix_tree import lay_out as keys_of
from align.models import flex_trees
from align.models.flex_trees import BLOCK, block_mask
from align.models.layout import Layout
from align.models.tree_attention import seen, tree_attention


def lay_out(*args, **options):
    return Layout.of(keys_of(*args, **options), "")


ROWS = [[1, 2, 3, 4], [1, 2, 5], [6, 7], *[[8, *range(9, 9 + n)] for n in range(1, 30)]]
GROUPS = [0, 0, 1, *[2 + n // 3 for n in range(29)]]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("budget", [None, 100])
def test_the_mask(window, budget):
    layout = lay_out(ROWS, [1] * len(ROWS), GROUPS, budget=budget, multiple=BLOCK)
    count, time = layout.input_ids.shape
    made = block_mask(layout.spans, window)
    assert made is block_mask(layout.spans, window)  # made once
    dense = create_mask(made.mask_mod, count, 1, time, time, device="cpu")
    for sequence in range(count):
        whole = slice(0, time)
        assert torch.equal(dense[sequence, 0], seen(layout.spans, sequence, whole, whole, window))


def drawn(seed):
    """Return a layout of random trees: long and short, deep and flat, in one sequence or several."""
    draw = random.Random(seed)
    rows, groups = [], []
    for group in range(draw.randint(1, 6)):
        stem = [draw.randint(0, 9) for _ in range(draw.choice([1, 5, 150, 400]))]
        for _ in range(draw.randint(1, 4)):
            rows.append([*stem[: draw.randint(1, len(stem))], *range(10, 10 + draw.choice([1, 3, 90, 300]))])
            groups.append(group)
    budget = draw.choice([None, 600, 1500])
    return lay_out(rows, [1] * len(rows), groups, budget=budget, multiple=draw.choice([1, BLOCK]))


@pytest.mark.parametrize("seed", range(40))
def test_blocks_are_those_of_the_whole_mask(seed):
    spans = drawn(seed).spans
    count, time = len(spans), spans.shape[-1]
    made = block_mask(spans, None)
    expected = create_block_mask(made.mask_mod, count, None, time, time, device="cpu", BLOCK_SIZE=BLOCK)
    assert made.seq_lengths == expected.seq_lengths
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(made, name), getattr(expected, name)), name
    for name in ("kv_indices", "full_kv_indices", "q_indices", "full_q_indices"):
        assert torch.equal(getattr(made, name), getattr(expected, name)), name
        assert getattr(made, name).dtype == torch.int32


@pytest.mark.parametrize("window", [1, 60, 200, 10_000])
@pytest.mark.parametrize("seed", range(8))
def test_blocks_with_a_window_leave_nothing_out(seed, window):
    """Full blocks are the same; of the others, some may hold nothing that is seen."""
    spans = drawn(seed).spans
    count, time = len(spans), spans.shape[-1]
    made = block_mask(spans, window)
    dense = create_mask(made.mask_mod, count, 1, time, time, device="cpu")
    expected = create_block_mask(made.mask_mod, count, None, time, time, device="cpu", BLOCK_SIZE=BLOCK)
    for sequence in range(count):
        assert torch.equal(dense[sequence, 0], seen(spans, sequence, slice(0, time), slice(0, time), window))
    assert torch.equal(made.full_kv_num_blocks, expected.full_kv_num_blocks)
    assert torch.equal(made.full_kv_indices, expected.full_kv_indices)
    assert bool((made.to_dense() >= expected.to_dense()).all())


def test_nothing_as_large_as_queries_times_keys_is_made(monkeypatch):
    """65,536 tokens, whose mask would have 4 thousand million entries."""
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                largest = max(largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return out

    stem = list(range(1000))
    rows = [[*stem, 2000 + side, *range(1, 1023 + 24)] for side in (0, 1) for _ in range(21)]
    layout = lay_out(rows, [1] * len(rows), [i % 21 for i in range(len(rows))], multiple=BLOCK)
    time = layout.spans.shape[-1]
    assert time > 64_000
    with Sizes():
        block_mask(layout.spans, None)
    assert largest <= max((time // BLOCK) * (time // BLOCK + 1), time + BLOCK)


def test_masks_go_with_their_spans():
    layout = drawn(1)
    for window in (None, 3):
        block_mask(layout.spans, window)
    gc.collect()
    before = len(flex_trees._known)
    assert before >= 1
    del layout
    gc.collect()
    assert len(flex_trees._known) == before - 1


@pytest.fixture
def counter(monkeypatch):
    """Count what is traced for a kernel of its own; no kernels are made of it here."""
    torch._dynamo.reset()
    found = CompileCounter()
    monkeypatch.setattr(flex_trees, "_compiled", torch.compile(flex_attention, backend=found))
    yield found
    torch._dynamo.reset()


def attend(blocks, window=None, heads=2):
    spans = lay_out([list(range(blocks * BLOCK))], [1], [0], multiple=BLOCK).spans
    query = torch.randn(1, heads, blocks * BLOCK, 16)
    return flex_trees.flex_trees(query, query, query, spans, 0.3, window, None)


@pytest.mark.parametrize("window", [None, 50])
def test_other_lengths_share_a_kernel(counter, window):
    for blocks in (3, 5, 8, 4, 13, 7):
        attend(blocks, window)
    assert counter.frame_count == 2


def test_torchs_limit_of_kernels_is_not_reached(counter):
    for heads in range(1, 11):
        attend(2, heads=heads)
    assert counter.frame_count == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, None), (None, 2.0)])
def test_attention_on_a_gpu(window, softcap):
    torch.manual_seed(0)
    layout = lay_out(ROWS, [1] * len(ROWS), GROUPS, multiple=BLOCK)
    time = layout.input_ids.shape[1]
    query, key, value = (torch.randn(1, heads, time, 16) for heads in (4, 2, 2))
    options = {"scaling": 0.3, "sliding_window": window, "softcap": softcap}
    expected, _ = tree_attention(torch.nn.Module(), query, key, value, layout.spans, **options)
    device = [tensor.cuda() for tensor in (query, key, value, layout.spans)]
    found, _ = tree_attention(torch.nn.Module(), *device, **options)
    torch.testing.assert_close(found.cpu(), expected, rtol=2e-3, atol=2e-3)
