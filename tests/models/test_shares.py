"""What a process holds under each engine, by hand: a model of a million numbers on eight GPUs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from align.models.load import Source
from align.models.shares import (
    ENGINES,
    LIVE,
    REDUCE_BUCKET,
    SHARDS_WEIGHTS,
    SUB_GROUP,
    Training,
    Units,
    buffers,
    gathered,
    share,
    training_of,
    units_of,
    updating,
)
from align.models.skeleton import Counts, skeleton
from align.recipe.schema import LoraSettings

MILLION = 10**6
FULL = Counts(parameters=MILLION, trainable=MILLION, weight_bytes=4 * MILLION, trainable_bytes=4 * MILLION)
UNITS = Units(layer=10_000, tail=50_000)
AMP = Training(counts=FULL, reference=FULL, optim="adamw_torch", shapes=(), mixed=2, units=UNITS)
"""Full training as ``model.dtype: auto`` has it on GPUs: float32 weights, bfloat16 arithmetic, AdamW."""
PLAIN = replace(AMP, mixed=None)


@pytest.mark.parametrize(
    ("engine", "weights", "gradients", "optimiser", "reference"),
    [
        ("ddp", 4.0, 4.0, 8.0, 4.0),
        ("zero1", 2.0, 2.0, 12 / 8, 2.0),  # a copy in float32 and two moments, an eighth
        ("zero2", 2.0, 2 / 8, 12 / 8, 2.0),
        ("fsdp2", 4 / 8, 4 / 8, 8 / 8, 4 / 8),
        ("zero3", 2 / 8, 2 / 8, 12 / 8, 2 / 8),
    ],
)
def test_bytes_a_number_on_eight_gpus(engine, weights, gradients, optimiser, reference):
    held = share(engine, 8, AMP)
    expected = (weights, gradients, optimiser, reference)
    assert (held.weights, held.gradients, held.optimiser, held.reference) == tuple(MILLION * each for each in expected)
    assert held.total == pytest.approx(MILLION * sum(expected))


def test_without_mixed_precision_zero_copies_float32_weights_and_adds_up_in_float32():
    held = share("zero2", 2, PLAIN)
    assert (held.weights, held.gradients, held.optimiser) == (4 * MILLION, 2 * MILLION, 6 * MILLION)
    low = replace(PLAIN, counts=replace(FULL, weight_bytes=2 * MILLION, trainable_bytes=2 * MILLION))
    assert share("zero1", 2, low).gradients == 4 * MILLION
    assert share("ddp", 2, low).gradients == 2 * MILLION
    assert share("fsdp2", 2, low).optimiser == 2 * MILLION  # moments in the weights' own 16 bits
    assert share("zero3", 2, low).optimiser == 6 * MILLION


@pytest.mark.parametrize("training", [AMP, PLAIN, replace(AMP, optim="sgd"), replace(AMP, reference=None)])
@pytest.mark.parametrize("processes", [2, 8, 64])
def test_each_stage_holds_no_more_than_the_one_before(training, processes):
    ddp, zero1, zero2, _, zero3 = (share(name, processes, training).total for name in ENGINES)
    assert zero3 <= zero2 <= zero1
    if training.mixed:  # else ZeRO's copy of the weights is more than DDP holds, where there is no other state
        assert zero1 <= ddp


@pytest.mark.parametrize("engine", SHARDS_WEIGHTS)
def test_twice_the_gpus_are_half_the_share(engine):
    alone = replace(AMP, reference=None)
    assert share(engine, 8, alone).total == 2 * share(engine, 16, alone).total


def test_one_gpu_holds_the_same_whatever_the_engine():
    alone = replace(AMP, reference=None)
    assert {share(name, 1, alone).total for name in ENGINES} == {16 * MILLION}
    assert buffers("ddp", 1, alone) == {"gradient buckets": 0}


def test_fsdp2_keeps_gradients_whole_between_the_batches_of_a_step():
    several = replace(AMP, accumulates=True)
    assert share("fsdp2", 8, several).gradients == 2 * MILLION
    assert share("fsdp2", 8, replace(several, reduces_each=True)).gradients == MILLION / 2
    assert share("fsdp2", 8, replace(several, mixed=None)).gradients == 4 * MILLION
    for name in ("ddp", "zero1", "zero2", "zero3"):
        assert share(name, 8, several) == share(name, 8, AMP)


def test_adapters_are_all_that_gradients_and_state_are_of():
    counts = Counts(parameters=MILLION, trainable=1000, weight_bytes=2 * MILLION + 2000, trainable_bytes=4000)
    adapters = replace(AMP, counts=counts, reference=None)
    assert [share("ddp", 8, adapters).gradients, share("ddp", 8, adapters).optimiser] == [4000, 8000]
    assert [share("zero2", 8, adapters).gradients, share("zero2", 8, adapters).optimiser] == [250, 1500]
    assert share("zero2", 8, adapters).weights == 2 * MILLION
    assert buffers("fsdp2", 8, adapters)["gradients on their way"] == 0.001 * 50_000 * 2


def test_buckets_by_hand():
    assert buffers("ddp", 8, AMP) == {"gradient buckets": 4 * MILLION}
    assert buffers("zero2", 8, AMP) == {"gradient buckets": 2 * (REDUCE_BUCKET + MILLION)}
    huge = replace(
        AMP, counts=Counts(**dict.fromkeys(("parameters", "trainable"), 8 * 10**9), weight_bytes=0, trainable_bytes=0)
    )
    assert buffers("zero1", 8, huge) == {"gradient buckets": 2 * 2 * REDUCE_BUCKET}
    assert buffers("zero3", 8, huge)["gathered weights"] == 2 * (LIVE + 50_000)
    assert updating("zero3", 2, huge) == 6 * SUB_GROUP
    assert updating("zero2", 8, huge) == 6 * 10**9
    assert updating("fsdp2", 8, huge) == 0


@pytest.mark.parametrize(
    ("units", "weights", "gradients"),
    [(Units(layer=10, tail=50), 60, 50), (Units(layer=50, tail=10), 100, 100)],
)
def test_fsdp2_gathers_its_tail_or_two_layers(units, weights, gradients):
    training = replace(AMP, units=units)
    assert buffers("fsdp2", 8, training) == {"gathered weights": 2 * weights, "gradients on their way": 2 * gradients}


def test_forwards_gather_no_more_than_there_is():
    assert gathered("fsdp2", AMP) == 2 * (3 * 10_000 + 50_000)
    assert gathered("zero3", AMP) == 2 * MILLION
    assert gathered("zero2", AMP) == gathered("ddp", AMP) == 0


def test_adafactor_factors_matrices_and_not_flat_shards():
    training = replace(AMP, optim="adafactor", shapes=[(1000, 1000)])
    assert share("ddp", 1, training).optimiser == 4 * 2000
    assert share("zero1", 1, training).optimiser == (4 + 4) * MILLION


def test_units_are_the_layers_and_the_head(model_dir):
    model = skeleton(Source(path=str(model_dir)))
    layer, head = model.model.layers[0], model.get_output_embeddings()
    sizes = [sum(p.numel() for p in module.parameters()) for module in (layer, head)]
    assert units_of(model) == Units(layer=sizes[0], tail=sizes[1])
    adapted = units_of(skeleton(Source(path=str(model_dir)), LoraSettings(r=2)))
    assert adapted.layer > sizes[0]
    assert adapted.tail == sizes[1]
    model._no_split_modules = None
    assert units_of(model).layer == sum(p.numel() for p in model.parameters())


def test_what_is_divided_of_two_models(model_dir):
    model = skeleton(Source(path=str(model_dir), dtype=torch.bfloat16))
    training = training_of(model, model, optim="sgd")
    assert training.counts == training.reference
    assert training.computed == 2
    assert training_of(model, optim="sgd", mixed=4).computed == 4
    assert training_of(model, optim="sgd").reference is None


def test_engines_are_the_configurations_that_come_with_align():
    from pathlib import Path

    folder = Path(__file__).parents[2] / "accelerate_configs"
    assert {*ENGINES, "cpu"} == {path.stem for path in folder.glob("*.yaml")}
    assert set(SHARDS_WEIGHTS) < set(ENGINES)


def test_bucket_sizes_are_deepspeeds_own():
    config = pytest.importorskip("deepspeed.runtime.zero.config")
    defaults = config.DeepSpeedZeroConfig(stage=3)
    assert defaults.reduce_bucket_size == REDUCE_BUCKET
    assert defaults.max_live_parameters == defaults.max_reuse_distance == LIVE
    assert defaults.sub_group_size == SUB_GROUP
    assert defaults.contiguous_gradients
    assert defaults.overlap_comm
    assert not config.DeepSpeedZeroConfig(stage=2).overlap_comm


MEASURED = Path(__file__).parents[2] / "docs" / "results" / "engine_memory.json"


@pytest.mark.parametrize("engine", ENGINES)
def test_shares_are_those_that_two_processes_were_seen_to_hold(engine):
    """SmolLM2-135M in float32, measured by scripts/studies/engine_memory.py."""
    row = next(row for row in json.loads(MEASURED.read_text()) if row["run"] == f"training-{engine}")
    numbers, tail = row["whole"] // 4, 49_152 * 576 + 576
    whole = Counts(parameters=numbers, trainable=numbers, weight_bytes=4 * numbers, trainable_bytes=4 * numbers)
    units = Units(layer=3_540_096, tail=tail)
    training = replace(AMP, counts=whole, reference=whole, mixed=None, units=units)
    found = share(engine, 2, training)
    assert found.weights == pytest.approx(row["policy"], rel=0.01)
    assert found.optimiser == pytest.approx(row["optimiser"], rel=0.01)
    assert found.reference == pytest.approx(row["reference"], rel=0.01)
