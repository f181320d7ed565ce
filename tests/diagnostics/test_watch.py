import torch

from align.diagnostics.measure import rows_of_pairs
from align.diagnostics.watch import doubled
from tests.conftest import pair_rows
from tests.diagnostics.tiny import pair_batch


def test_rows_are_there_plain_and_as_the_loss_weighs_them(tokenizer):
    rows = rows_of_pairs(pair_batch(tokenizer, pair_rows(3)), [0, 1, 2])
    widths = [int(rows.completion_mask[part].sum(-1).max()) for part in (slice(0, 3), slice(3, 6))]
    d_w, d_l = torch.rand(3, widths[0]), torch.rand(3, widths[1])
    twice, weights = doubled(rows, d_w, d_l)
    assert twice.groups.tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert torch.equal(twice.input_ids[6:], rows.input_ids)
    assert bool((weights[:6] == 1).all())
    assert torch.equal(weights[6:9, : widths[0]], d_w)
    assert torch.equal(weights[9:, : widths[1]], d_l)
