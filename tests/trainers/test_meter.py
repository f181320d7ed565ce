"""Interval means and throughput, from one collective."""

import math
import time

import pytest
import torch

from align.trainers.meter import Meter

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def alone(vector):
    return vector


def test_means_are_over_rows_not_over_batches():
    meter = Meter()
    meter.add({"x": torch.tensor([1.0, 2.0, 3.0])}, MASK)
    meter.add({"x": torch.tensor([10.0])}, MASK)
    assert meter.read(alone)["x"] == 4.0
    assert meter.read(alone) == {}


def test_rows_that_fill_up_do_not_count():
    meter = Meter()
    real = torch.tensor([True, False])
    nan = float("nan")
    given = {"x": torch.tensor([1.0, 50.0]), "y": torch.tensor([nan, 2.0]), "z": torch.tensor([2.0, nan])}
    meter.add(given, torch.cat([MASK, MASK]) * torch.tensor([[1], [0], [1], [0]]), {"y"}, real)
    meter.add(
        {name: torch.tensor([3.0, 5.0]) for name in "xyz"},
        torch.cat([MASK, MASK]),
        {"y"},
        torch.ones(2, dtype=torch.bool),
    )
    means = meter.read(alone)
    assert (means["x"], means["y"], means["z"]) == (3.0, 4.0, pytest.approx(10 / 3))
    assert means["padding_fraction"] == pytest.approx(1 - (3 + 3 + 10) / 32)


def test_padding_counts_positions_without_tokens():
    meter = Meter()
    meter.add({"x": torch.zeros(1)}, MASK)
    assert meter.read(alone)["padding_fraction"] == pytest.approx(3 / 8)


def test_one_gather_whatever_the_number_of_metrics_and_batches():
    calls = []

    def gather(vector):
        calls.append(vector)
        return torch.cat([vector, 3 * vector])

    meter = Meter()
    for _ in range(4):
        meter.add({"x": torch.ones(2), "y": torch.zeros(2)}, MASK)
    means = meter.read(gather)
    assert len(calls) == 1
    assert (means["x"], means["y"]) == (1.0, 0.0)


def test_paused_time_does_not_count():
    meter = Meter()
    meter.add({"x": torch.ones(1)}, MASK)
    with meter.paused():
        time.sleep(0.3)
    assert meter.read(alone)["tokens_per_second"] > 5 / 0.2


SOME = frozenset({"some"})


def test_a_metric_that_applies_to_some_rows_is_their_mean():
    meter = Meter()
    meter.add({"all": torch.tensor([1.0, 3.0, 5.0]), "some": torch.tensor([1.0, torch.nan, 2.0])}, MASK, SOME)
    meter.add({"all": torch.tensor([3.0]), "some": torch.tensor([6.0])}, MASK, SOME)
    means = meter.read(alone)
    assert (means["all"], means["some"]) == (3.0, 3.0)


def test_a_metric_that_applied_to_no_row_is_left_out():
    meter = Meter()
    meter.add({"some": torch.tensor([torch.nan, torch.nan]), "all": torch.zeros(2)}, MASK, SOME)
    means = meter.read(alone)
    assert "some" not in means
    assert means["all"] == 0.0


def test_processes_to_which_it_did_not_apply_do_not_count_and_one_gather_is_enough():
    mine, theirs, seen = Meter(), Meter(), []
    theirs.add({"some": torch.tensor([torch.nan]), "all": torch.tensor([4.0])}, MASK, SOME)
    theirs.read(lambda vector: seen.append(vector) or vector)
    mine.add({"some": torch.tensor([2.0, 4.0]), "all": torch.tensor([1.0, 1.0])}, MASK, SOME)
    means = mine.read(lambda vector: torch.cat([vector, *seen]))
    assert (means["some"], means["all"]) == (3.0, 2.0)


def test_nan_that_is_a_fault_is_still_seen():
    meter = Meter()
    meter.add({"all": torch.tensor([1.0, torch.nan]), "some": torch.tensor([torch.inf, torch.nan])}, MASK, SOME)
    means = meter.read(alone)
    assert math.isnan(means["all"])
    assert means["some"] == math.inf


def test_numbers_that_are_not_of_rows_are_averaged_whatever_their_number():
    meter = Meter()
    meter.add({"x": torch.zeros(2)}, MASK)
    meter.note({"seen": torch.tensor([1.0, 2.0, torch.nan]), "unseen": torch.tensor([torch.nan])})
    meter.note({"seen": torch.tensor(6.0), "unseen": torch.zeros(0)})
    means = meter.read(alone)
    assert means["seen"] == 3.0
    assert "unseen" not in means


def test_noted_numbers_of_all_processes_count_alike_and_are_forgotten_once_read():
    mine, theirs, seen = Meter(), Meter(), []
    for meter, values in ((mine, [1.0, 2.0, 3.0]), (theirs, [10.0])):
        meter.add({"x": torch.zeros(1)}, MASK)
        meter.note({"seen": torch.tensor(values)})
    theirs.read(lambda vector: seen.append(vector) or vector)
    assert mine.read(lambda vector: torch.cat([vector, *seen]))["seen"] == 4.0
    mine.add({"x": torch.zeros(1)}, MASK)
    assert "seen" not in mine.read(alone)
