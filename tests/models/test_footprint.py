"""Sums of bytes by hand, and the advice that follows from them."""

import pytest
from transformers.training_args import OptimizerNames

from align.models.dry_step import DryStep, Work
from align.models.footprint import (
    KEPT_BY_MALLOC,
    PROCESS,
    STATE_BYTES,
    Copies,
    Footprint,
    Sampling,
    Stage,
    advice,
    cache_bytes,
    footprint,
    optimiser_bytes,
)
from align.models.machine import Memory
from align.models.skeleton import Counts
from tests.conftest import tiny_config

COUNTS = Counts(parameters=1000, trainable=100, weight_bytes=4000, trainable_bytes=400)
COPIES = Copies(policy=4000, reference=4000, sampling=2000, loading=2)
STEP = DryStep(
    kept=500, peak=900, working=600, gradients=400, small=10_000, forward=Work(), reference=Work(), backward=Work()
)
SAMPLING = Sampling(sequences=2, width=10, new_tokens=4, cache_bytes=8, vocabulary=50)


def parts(plan, name):
    return next(stage.parts for stage in plan.stages if stage.name == name)


def test_training_on_a_gpu_by_hand():
    plan = footprint(COPIES, COUNTS, STEP, optim="adamw_torch_fused", on_cpu=False)
    assert dict(parts(plan, "training")) == {
        "weights": 4000,
        "reference copy": 4000,
        "optimiser state": 800,
        "gradients": 400,
        "activations": 500,
    }
    assert plan.peak.name == "training"
    assert plan.total == 9700
    assert parts(plan, "loading") == {"weights": 8000}


def test_main_memory_holds_libraries_and_what_malloc_keeps():
    training = parts(footprint(COPIES, COUNTS, STEP, optim="sgd"), "training")
    assert training["libraries"] == PROCESS
    assert training["kept by malloc"] == KEPT_BY_MALLOC * 10_000
    assert training["optimiser state"] == 0


def test_stages_that_sample():
    plan = footprint(COPIES, COUNTS, STEP, optim="sgd", synth=SAMPLING, generation=SAMPLING, on_cpu=False)
    assert SAMPLING.decoding == 2 * (10 * 8 + 16 * 50)
    assert SAMPLING.scoring == 12 * 2 * 4 * 50
    assert sum(parts(plan, "making pairs").values()) == 4000 + 2000 + SAMPLING.decoding
    # Two copies while the base is made (8000) are more than its copy and the scoring (2000 + 4800).
    assert sum(parts(plan, "before and after").values()) == 4000 + 4000 + 2000 + 8000
    few = Copies(policy=400, reference=0, sampling=200)
    compared = parts(footprint(few, COUNTS, STEP, optim="sgd", generation=SAMPLING, on_cpu=False), "before and after")
    assert sum(compared.values()) == 400 + 200 + 200 + 4800


def test_processes_share_main_memory_and_not_a_gpu():
    here = footprint(COPIES, COUNTS, STEP, optim="sgd", processes=3)
    apart = footprint(COPIES, COUNTS, STEP, optim="sgd", processes=3, on_cpu=False)
    assert here.total == 3 * here.peak.total
    assert apart.total == apart.peak.total
    assert parts(apart, "training")["gradient buckets"] == 400


@pytest.mark.parametrize(
    ("optim", "expected"),
    [("adamw_torch", 800), ("adamw_8bit", 200), ("lion_8bit", 100), ("sgd", 0), ("ademamix", 1200)],
)
def test_optimisers_by_hand(optim, expected):
    assert optimiser_bytes(optim, COUNTS) == expected


def test_state_of_16_bit_numbers_is_half_as_large():
    half = Counts(parameters=1000, trainable=100, weight_bytes=2000, trainable_bytes=200)
    assert optimiser_bytes("adamw_torch", half) == 400
    assert optimiser_bytes("adamw_8bit", half) == 200


def test_adafactor_keeps_rows_and_columns():
    assert optimiser_bytes("adafactor", COUNTS, [(10, 7), (5,), (2, 3, 4)]) == 4 * (10 + 7 + 5 + 2 * (3 + 4))


def test_an_optimiser_that_is_not_known_is_said_to_be():
    plan = footprint(COPIES, COUNTS, STEP, optim="galore_adamw")
    assert plan.unknown == ["optimiser state: how much galore_adamw keeps is not known here"]
    assert set(STATE_BYTES) <= {name.value for name in OptimizerNames}


@pytest.mark.parametrize(("available", "verdict"), [(9699, "does not fit"), (9700, "tight"), (12_000, "fits")])
def test_verdicts(available, verdict):
    plan = footprint(COPIES, COUNTS, STEP, optim="adamw_torch", on_cpu=False)
    assert plan.verdict(Memory(kind="memory", available=available, total=20_000, source="test")) == verdict


def test_advice_begins_with_what_saves_most():
    plan = footprint(COPIES, COUNTS, STEP, optim="adamw_torch", on_cpu=False)
    ways = advice(plan, STEP, lora=False, checkpointing=False, rows=4)
    assert ways[0] == ("set model.lora: no second copy, and optimiser state only for adapters", 4000 + 400 + 800)
    assert [saved for _, saved in ways] == sorted((saved for _, saved in ways), reverse=True)
    texts = " ".join(text for text, _ in advice(plan, STEP, lora=True, checkpointing=True, rows=1))
    assert "lora" not in texts
    assert "checkpointing" not in texts
    assert "batch_size" not in texts


def test_keys_and_values_of_a_token(tokenizer):
    # 2 layers x 2 heads of 8 numbers x keys and values x 4 bytes
    assert cache_bytes(tiny_config(tokenizer), 4) == 2 * 2 * 8 * 2 * 4


def test_adapters_do_not_spare_a_reference_that_is_a_copy_anyway():
    parts = {"weights": 100, "reference copy": 100, "gradients": 100, "optimiser state": 200, "activations": 10}
    plan = Footprint(stages=[Stage(name="training", parts=parts)])
    spared = [
        dict(advice(plan, STEP, lora=False, checkpointing=True, rows=1, copied=copied)) for copied in (False, True)
    ]
    assert spared[0]["set model.lora: no second copy, and optimiser state only for adapters"] == 400
    assert spared[1]["set model.lora: optimiser state only for adapters"] == 300
