"""What is forecast, beside what transformers' trainer really does, and beside numbers by hand."""

import pytest
import torch
from transformers import TrainerCallback

from align.models.dry_step import DryStep, Work
from align.models.machine import Speed
from align.models.skeleton import Counts
from align.trainers.forecast import (
    EFFICIENCY,
    HIGH,
    LOW,
    SampledTokens,
    checkpoint_bytes,
    duration,
    schedule,
    seconds_of,
    spoken,
)
from align.trainers.pair import PairTrainer
from align.trainers.run import last_evaluation
from tests.conftest import arguments, rows


class Counting(TrainerCallback):
    """Counts what happens."""

    def __init__(self):
        self.evaluations = self.saves = self.micro_steps = 0

    def on_evaluate(self, *_, **__):
        self.evaluations += 1

    def on_save(self, *_, **__):
        self.saves += 1

    def on_substep_end(self, *_, **__):
        self.micro_steps += 1

    def on_step_end(self, *_, **__):
        self.micro_steps += 1


@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": -1, "num_train_epochs": 2.0},
        {"max_steps": -1, "num_train_epochs": 1.5, "gradient_accumulation_steps": 2},
        {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 3},
        {"max_steps": 5, "eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True},
        {"max_steps": -1, "num_train_epochs": 2.0, "eval_strategy": "epoch", "save_strategy": "epoch"},
        {"max_steps": -1, "num_train_epochs": 1.0, "dataloader_drop_last": True, "eval_strategy": "steps"},
        {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 0.5, "save_strategy": "steps", "save_steps": 0.5},
        {
            **{"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2},
            "load_best_model_at_end": True,
        },
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_it_is_what_happens(settings, model, tokenizer, tmp_path):
    given = arguments(tmp_path, **settings)
    counting = Counting()
    trainer = PairTrainer(
        model,
        given,
        train_dataset=rows(18),
        eval_dataset=rows(5),
        processing_class=tokenizer,
        max_length=64,
        callbacks=[counting],
    )
    said = schedule(given, 18, 5)
    trainer.train()
    last_evaluation(trainer)
    assert said.steps == trainer.state.global_step
    assert said.micro_steps == counting.micro_steps
    assert said.evaluations == counting.evaluations
    assert said.checkpoints == counting.saves
    assert said.epochs == pytest.approx(trainer.state.epoch, abs=0.2)


def test_processes_share_the_pairs(tmp_path):
    given = arguments(tmp_path, max_steps=-1, num_train_epochs=1.0, gradient_accumulation_steps=2)
    said = schedule(given, 100, 30, processes=3)
    assert (said.batch, said.batches, said.steps) == (4 * 2 * 3, 9, 5)
    assert said.eval_batches == 2  # 30 pairs by eights are 4 batches, of which a process has 2


def test_an_epoch_without_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"3 pairs are fewer pairs than one batch of 4.*dataloader_drop_last=false"):
        schedule(arguments(tmp_path, dataloader_drop_last=True), 3, 0)


def test_warm_up_by_share_and_by_steps(tmp_path):
    assert schedule(arguments(tmp_path, max_steps=40, warmup_steps=0.1), 18, 0).warmup == 4
    assert schedule(arguments(tmp_path, max_steps=40, warmup_steps=7), 18, 0).warmup == 7


def test_checkpoints_on_disk(tmp_path):
    counts = Counts(parameters=10, trainable=10, weight_bytes=40, trainable_bytes=40)
    assert checkpoint_bytes(counts, 80) == 132
    given = arguments(tmp_path, max_steps=40, save_strategy="steps", save_steps=10, save_total_limit=2)
    said = schedule(given, 18, 0)
    assert (said.checkpoints, said.kept) == (4, 3)


SPEED = Speed(flops=1e9, traffic=1e6, dtype=torch.float32, threads=1)
STEP = DryStep(
    kept=0,
    peak=0,
    working=0,
    gradients=0,
    small=0,
    forward=Work(flops=1e9, traffic=1e6),
    reference=Work(flops=1e9),
    backward=Work(flops=2e9),
)
NOTHING = Counts(parameters=10, trainable=0, weight_bytes=40, trainable_bytes=0)


def test_time_by_hand(tmp_path):
    assert seconds_of(Work(flops=3e9, traffic=2e6), SPEED) == pytest.approx(5 / EFFICIENCY)
    plan = schedule(arguments(tmp_path, max_steps=3, eval_strategy="steps", eval_steps=3), 18, 5)
    taken = duration(plan, STEP, 100, SPEED, counts=NOTHING, eval_tokens=50)
    assert taken.training == pytest.approx(3 * 5 / EFFICIENCY)  # 4 s of products, 1 s of moving
    assert taken.evaluation == pytest.approx(1 * 0.5 * 3 / EFFICIENCY)  # half a batch, both forwards
    assert (taken.making_pairs, taken.generation) == (0, 0)
    assert taken.range == (LOW * taken.total, HIGH * taken.total)


def test_the_optimiser_takes_its_time_too(tmp_path):
    plan = schedule(arguments(tmp_path, max_steps=3), 18, 0)
    many = Counts(parameters=10**6, trainable=10**6, weight_bytes=4 * 10**6, trainable_bytes=4 * 10**6)
    more = (
        duration(plan, STEP, 100, SPEED, counts=many).training
        - duration(plan, STEP, 100, SPEED, counts=NOTHING).training
    )
    assert more == pytest.approx(3 * 7 * 4)  # 28 bytes a number at a million a second


def test_before_and_after_samples_twice(tmp_path):
    plan = schedule(arguments(tmp_path, max_steps=3), 18, 0)
    sampled = SampledTokens(sequences=2, prompt_tokens=20, new_tokens=30)
    taken = duration(plan, STEP, 100, SPEED, counts=NOTHING, synth=sampled, generation=sampled)
    assert taken.generation > 2 * taken.making_pairs > 0


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1.2, 2.4, "1.2-2.4 s"), (30.0, 31.0, "30-31 s"), (89.0, 91.0, "1.5 min"), (3600.0, 36_000.0, "1.0-10.0 h")],
)
def test_ranges_as_people_say_them(low, high, text):
    assert spoken(low, high) == text
