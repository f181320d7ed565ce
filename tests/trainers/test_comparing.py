"""A trainer and its reference: which sets it keeps, whether training sees all of them, and who says no."""

import pytest

from align import PairTrainer
from align.models.reference import KeptReference
from align.recipe.speed import OFF
from tests.conftest import arguments
from tests.trainers.test_speed import data, fresh


def made(tokenizer, folder, *, held_out=None, speed=OFF, objective="dpo", **changes):
    return PairTrainer(
        fresh(tokenizer),
        arguments(folder, **changes),
        objective=objective,
        train_dataset=data(),
        eval_dataset=held_out,
        processing_class=tokenizer,
        speed=speed,
    )


@pytest.mark.parametrize(
    ("changes", "all_rows"),
    [
        ({"max_steps": 2}, False),
        ({"max_steps": 3}, True),
        ({"max_steps": -1, "num_train_epochs": 1}, True),
        ({"max_steps": -1, "num_train_epochs": 0.5}, False),
    ],
)
def test_whether_training_sees_all_rows(tokenizer, tmp_path, changes, all_rows):
    assert made(tokenizer, tmp_path, **changes).sees_all_rows() is all_rows


def test_sets_by_name(tokenizer, tmp_path):
    assert set(made(tokenizer, tmp_path).row_sets()) == {"training"}
    assert set(made(tokenizer, tmp_path, held_out=data()).row_sets()) == {"training", "held-out"}
    assert set(made(tokenizer, tmp_path, held_out={"a": data(), "b": data()}).row_sets()) == {"training", "a", "b"}


def test_asked_for_it_is_kept_whatever_the_settings(tokenizer, tmp_path):
    trainer = made(tokenizer, tmp_path)
    assert trainer.keep_reference() is None
    keeper = trainer.keep_reference(asked=True)
    assert keeper is not None
    assert keeper.has(trainer.sequences_of(trainer.train_dataset))
    assert isinstance(trainer.reference, KeptReference)
    with trainer.reference.model(trainer.model) as weights:  # put by, for rows that come later
        assert weights is trainer.reference.before.module


def test_objectives_that_read_more(tokenizer, tmp_path):
    reason = made(tokenizer, tmp_path, objective="wpo").keeps_no_reference()
    assert reason == "objective 'wpo' reads the reference's log-probabilities of whole distributions"
