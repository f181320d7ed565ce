import pytest
import torch
from torch import nn

from align.wings import processes
from align.wings.processes import BatchNorm1d, BatchNorm2d, drawn, own


@pytest.fixture
def twins(monkeypatch):
    """Pretend that another process has the very same rows."""
    monkeypatch.setattr(processes, "processes", lambda: 2)
    monkeypatch.setattr(processes, "gather_with_gradient", lambda rows: torch.cat([rows, rows]))


def test_alone_all_rows_are_ones_own():
    assert processes.processes() == 1
    assert own(5) == slice(0, 5)
    torch.manual_seed(0)
    expected = torch.rand(5, 2)
    torch.manual_seed(0)
    assert torch.equal(drawn(lambda rows: torch.rand(rows, 2), 5), expected)


def test_processes_take_their_parts_of_one_draw(monkeypatch):
    torch.manual_seed(3)
    whole = torch.rand(6)
    monkeypatch.setattr(processes, "processes", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(3)
        parts.append(drawn(torch.rand, 3))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (BatchNorm1d, nn.BatchNorm1d, (6, 4)),
        (BatchNorm1d, nn.BatchNorm1d, (6, 4, 3)),
        (BatchNorm2d, nn.BatchNorm2d, (6, 4, 3, 5)),
    ],
)
def test_alone_it_is_torchs(ours, theirs, shape):
    mine, other, rows = ours(4), theirs(4), torch.randn(shape)
    assert torch.equal(mine(rows), other(rows))
    assert all(torch.equal(a, b) for a, b in zip(mine.buffers(), other.buffers(), strict=True))
    assert mine.state_dict().keys() == other.state_dict().keys()
    assert isinstance(mine, theirs)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 5)])
def test_over_all_rows_it_is_torchs_of_the_whole_batch(twins, shape):
    kind = (BatchNorm1d, nn.BatchNorm1d) if len(shape) == 2 else (BatchNorm2d, nn.BatchNorm2d)
    mine, other = (one(4, dtype=torch.float64) for one in kind)
    for norm in (mine, other):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
            norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    given = torch.randn(shape, dtype=torch.float64)
    rows, same = given.clone().requires_grad_(), given.clone().requires_grad_()
    found, expected = mine(rows), other(torch.cat([same, same]))
    torch.testing.assert_close(found, expected[:6])
    weights = torch.randn(shape, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * torch.cat([weights, weights])).sum().backward()
    torch.testing.assert_close(2 * rows.grad, same.grad)  # both halves pull at the same rows
    for a, b in zip(mine.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_under_autocast_it_is_as_exact_as_torchs(twins):
    mine, other = BatchNorm2d(4), nn.BatchNorm2d(4)
    rows = (torch.randn(6, 4, 3, 5) + 20).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = mine(rows), other(torch.cat([rows, rows]))[:6]
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    for a, b in zip(mine.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_in_evaluation_nobody_is_asked(monkeypatch):
    norm = BatchNorm1d(4)
    norm(torch.randn(6, 4))
    monkeypatch.setattr(processes, "processes", lambda: 2)
    monkeypatch.setattr(processes, "gather_with_gradient", lambda rows: pytest.fail("gathered"))
    assert norm.eval()(torch.randn(3, 4)).shape == (3, 4)


def test_rows_of_another_shape_are_refused(twins):
    with pytest.raises(ValueError, match="expected 4D input"):
        BatchNorm2d(4)(torch.randn(6, 4))
