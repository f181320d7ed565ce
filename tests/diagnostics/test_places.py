import pytest
import torch

from align.diagnostics.places import ForeignShapeError, Sequences


def sequences():
    real = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    predicted = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    groups = torch.tensor([[0, 2], [1, 3]])
    return Sequences(real, predicted, groups, torch.arange(16).view(4, 4))


def test_tokens_of_the_measured_rows_are_found_in_whole_tensors():
    flat, places = sequences().find(torch.arange(16).view(4, 4, 1).float())
    found = places.take(flat)[..., 0]
    assert found.shape == (2, 2, 4)
    assert found.tolist() == [[[0, 1, 2, 0], [8, 9, 0, 0]], [[4, 5, 6, 7], [12, 13, 14, 0]]]


@pytest.mark.parametrize("shape", [(16, 1), (4, 4, 1)])
def test_flattened_or_not(shape):
    flat, places = sequences().find(torch.arange(16).view(shape).float())
    assert places.take(flat)[1, 0, :, 0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("shape", [(1, 4, 1), (4, 1)])
def test_scored_positions_stand_one_after_the_other(shape):
    flat, places = sequences().find(torch.tensor([10.0, 11.0, 12.0, 13.0]).view(shape))
    assert places.take(flat)[..., 0].tolist() == [[[10, 0], [13, 0]], [[11, 12], [0, 0]]]


def test_strange_shapes_are_refused():
    with pytest.raises(ForeignShapeError, match=r"shape \(3, 5\), in a forward of 4 x 4"):
        sequences().find(torch.zeros(3, 5))


def test_chunks_hold_all_groups():
    places = sequences().all
    assert [len(part.index) for part in places.chunks(1)] == [1, 1]
    assert [len(part.index) for part in places.chunks(0)] == [1, 1]
    assert [len(part.index) for part in places.chunks(9)] == [2]


def test_no_group_is_no_fault():
    none = Sequences(
        torch.ones(2, 3).bool(), torch.ones(2, 3).bool(), torch.zeros(0, 2).long(), torch.zeros(2, 3).long()
    )
    assert none.all.take(torch.zeros(6, 2)).shape[:2] == (0, 2)
