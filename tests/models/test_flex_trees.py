"""The block mask of GPUs says what the mask of CPUs says; attention itself is compared on a GPU."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from align.data.prefix_tree import lay_out as keys_of
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
