"""Interval means and throughput, from one collective."""

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
