"""Composed batches: each row at most once an epoch, neighbours beside each other, the same again from a state."""

import numpy as np
import pytest
import torch

from align.wings.parts import composer
from align.wings.parts.composer import ClassBatches, NeighbourBatches, nearest

ROWS, BATCH = 41, 8


def on_a_line(rows=ROWS, reach=12):
    places = torch.arange(rows).double()
    return nearest(-(places[:, None] - places[None]).abs(), reach)


def batches(neighbours=lambda epoch: on_a_line(), **changes):
    options = {"batch": BATCH, "select": 4, "reach": 12, "seed": 3, **changes}
    return NeighbourBatches(ROWS, neighbours=neighbours, **options)


def of_epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_nearest_rows_come_first_and_without_the_row_itself():
    closeness = torch.tensor([[9.0, 1.0, 3.0], [2.0, 0.0, 1.0], [5.0, 4.0, -1.0]])
    assert nearest(closeness, 2).tolist() == [[2, 1], [0, 2], [0, 1]]
    assert closeness[0, 0] == 9  # what is given stays
    assert all(row not in found for row, found in enumerate(on_a_line().tolist()))
    with pytest.raises(ValueError, match=r"reach must lie in 0 \.\.\. 2, got 3"):
        nearest(closeness, 3)


@pytest.mark.parametrize("neighbours", [lambda epoch: on_a_line(), lambda epoch: None])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_each_row_comes_at_most_once_and_only_whole_batches(neighbours, epoch):
    drawn = of_epoch(batches(neighbours), epoch)
    assert len(drawn) == len(set(drawn)) == 40 == len(batches())


def test_a_seed_brings_its_nearest_and_some_of_the_others():
    table = on_a_line()
    for epoch in range(20):
        seed, *others = of_epoch(batches(), epoch)[:5]
        assert others[:2] == table[seed, :2].tolist()
        assert set(others[2:]) <= set(table[seed, 2:12].tolist())
        assert len({*others}) == 4


def test_the_others_differ_from_epoch_to_epoch():
    table = on_a_line()
    ranks = set()
    for epoch in range(60):
        seed, *others = of_epoch(batches(), epoch)[:5]
        ranks |= {table[seed].tolist().index(row) for row in others[2:]}
    assert ranks == set(range(2, 12))


def test_row_0_is_a_neighbour_like_any_other():
    first = [of_epoch(batches(), epoch)[:5] for epoch in range(200)]
    assert any(0 in drawn[1:] for drawn in first)


def test_batches_hold_neighbours():
    together = torch.tensor(of_epoch(batches(), 0)[:8])
    apart = torch.tensor(of_epoch(batches(lambda epoch: None), 0)[:8])

    def closest(rows):
        return (rows[:, None] - rows[None]).abs().fill_diagonal_(ROWS).amin(1).double().mean()

    assert closest(together) < closest(apart)


def test_epochs_differ_and_come_again():
    assert of_epoch(batches(), 1) == of_epoch(batches(), 1) != of_epoch(batches(), 2)
    assert of_epoch(batches(), 1) != of_epoch(batches(seed=4), 1)


def test_nothing_new_keeps_the_neighbours_of_before():
    asked = []

    def once(epoch):
        asked.append(epoch)
        return on_a_line() if epoch == 1 else None

    sampler = batches(once)
    assert of_epoch(sampler, 0) == of_epoch(batches(lambda epoch: None), 0)
    for epoch in (1, 2):
        assert of_epoch(sampler, epoch) == of_epoch(batches(), epoch)
    list(sampler)
    assert asked == [0, 1, 2]  # once an epoch, however often it is drawn


def test_a_state_goes_on_in_the_middle_of_an_epoch():
    moved = torch.flip(on_a_line(), (0,))
    first = batches()
    drawn = of_epoch(first, 1)

    def later(epoch):
        return moved

    resumed, without = batches(later), batches(later)
    resumed.load_state_dict(first.state_dict())
    assert of_epoch(resumed, 1) == drawn != of_epoch(without, 1)
    assert of_epoch(resumed, 2) == of_epoch(without, 2)  # the next epoch asks anew


def test_processes_take_what_the_first_one_found(monkeypatch):
    def broadcast(held, src):
        assert src == 0
        held[0] = on_a_line()

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    second = batches(lambda epoch: torch.flip(on_a_line(), (0,)))
    drawn = of_epoch(second, 1)
    monkeypatch.undo()
    assert drawn == of_epoch(batches(), 1)
    assert composer.torch.distributed.is_initialized() is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": 13}, "need 0 <= select <= reach < rows, got select=13, reach=12, rows=41"),
        ({"reach": 41}, "need 0 <= select <= reach < rows"),
        ({"batch": 42}, "a batch of 42 rows cannot be drawn from 41 rows"),
    ],
)
def test_what_cannot_be_composed_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes)


# ---- classes ----------------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 2, 3]).repeat_interleave(torch.tensor([9, 12, 10, 9]))


def of_classes(**changes):
    return ClassBatches(LABELS, **{"each": 3, "batch": 9, "seed": 1, **changes})


def test_batches_have_equally_many_rows_of_some_classes():
    drawn = of_epoch(of_classes(), 0)
    assert len(drawn) == len(of_classes()) == 36
    for batch in torch.tensor(drawn).split(9):
        assert len(set(batch.tolist())) == 9
        found, counts = LABELS[batch].unique(return_counts=True)
        assert len(found) == 3
        assert counts.tolist() == [3, 3, 3]
    sets = {tuple(LABELS[batch].unique().tolist()) for batch in torch.tensor(drawn).split(9)}
    assert len(sets) > 1  # of classes, drawn anew for each batch


def test_classes_of_an_epoch_come_again_whatever_else_was_drawn():
    sampler = of_classes()
    first = of_epoch(sampler, 1)
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    assert of_epoch(sampler, 0) != first
    assert np.random.get_state()[1].tolist() == before  # nor does it disturb what others draw
    assert of_epoch(sampler, 1) == of_epoch(of_classes(), 1) == first


@pytest.mark.parametrize("changes", [{"batch": 10}, {"batch": 15}, {"each": 0}])
def test_batches_that_classes_do_not_fill_are_refused(changes):
    with pytest.raises(ValueError, match="needs a multiple of each="):
        of_classes(**changes)


def test_more_rows_than_there_are_are_refused():
    with pytest.raises(ValueError, match="a batch of 60 rows cannot be drawn from 40 rows"):
        of_classes(each=15, batch=60)
