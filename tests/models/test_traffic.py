"""What a step sends under each engine, counted by hand in bytes of whole tensors."""

from dataclasses import replace

import pytest

from align.models.gpus import Gpus
from align.models.shares import Training, Units
from align.models.skeleton import Counts
from align.models.traffic import Passes, StepTime, Traffic, step_time, traffic

COUNTS = Counts(parameters=100, trainable=100, weight_bytes=400, trainable_bytes=400)
UNITS = Units(layer=10, tail=10)
TRAINING = Training(counts=COUNTS, reference=COUNTS, optim="sgd", shapes=(), mixed=2, units=UNITS)
PASSES = Passes(batches=4.0, policy=2, reference=1, last_backward=0.1)


@pytest.mark.parametrize(
    ("engine", "beside", "apart"),
    [
        ("ddp", 2 * 400, 0),  # to everyone: as much as to shards and back
        ("zero1", 0, 2 * 200 + 200),  # and the weights
        ("zero2", 0, 4 * 2 * 200 + 200),  # after every batch
        ("fsdp2", 4 * (2 * 200 + 200) + 200, 0),  # forward, backward and the reference's forward; gradients once
        ("zero3", 4 * (2 * 200 + 200) + 4 * 200, 0),
    ],
)
def test_bytes_of_a_step_of_four_batches(engine, beside, apart):
    sent = traffic(engine, TRAINING, PASSES)
    assert (sent.beside, sent.apart) == (beside, apart)


def test_fsdp2_reduces_after_each_batch_where_it_is_told_to():
    each = traffic("fsdp2", replace(TRAINING, reduces_each=True), PASSES)
    assert each.beside == traffic("zero3", TRAINING, PASSES).beside


def test_without_mixed_precision_numbers_are_twice_as_long():
    plain = replace(TRAINING, mixed=None)
    for engine in ("zero1", "zero2", "fsdp2", "zero3"):
        half, whole = traffic(engine, TRAINING, PASSES), traffic(engine, plain, PASSES)
        assert (whole.beside, whole.apart) == (2 * half.beside, 2 * half.apart)
    assert traffic("ddp", plain, PASSES) == traffic("ddp", TRAINING, PASSES)


def test_no_reference_is_gathered_where_there_is_none():
    alone = traffic("zero3", replace(TRAINING, reference=None), replace(PASSES, reference=0))
    assert alone.beside == 4 * 2 * 200 + 4 * 200


GPUS = Gpus(count=2, node_bandwidth=0.5e-9 * 10, network_bandwidth=1.0)
"""Of what is gathered, half comes from the other one: 10 bytes take a second."""


def test_what_is_sent_meanwhile_is_waited_for_only_where_it_takes_longer():
    hidden = step_time(Traffic(beside=20.0, during=1.0, apart=0.0), 5.0, GPUS)
    assert hidden == StepTime(computing=5.0, sending=2.0, waiting=0.0)
    late = step_time(Traffic(beside=20.0, during=0.1, apart=0.0), 5.0, GPUS)
    assert (late.waiting, late.total) == (1.5, 6.5)
    apart = step_time(Traffic(beside=0.0, during=0.0, apart=20.0), 5.0, GPUS)
    assert (apart.waiting, apart.total) == (2, 7)
