"""Labels and batches that deserve a warning, by counts worked out by hand."""

import pytest

from align.data.row_columns import read_columns
from align.objectives.mixture import Mixture, Part, Smoothed
from align.objectives.registry import OBJECTIVES
from align.trainers.forecast import schedule
from align.trainers.unpaired_cautions import batch_cautions, label_cautions, parts_of
from tests.conftest import arguments
from tests.data.test_row_columns import completions

KTO, BCO, SFT = (OBJECTIVES.build(name) for name in ("kto", "bco_pair", "sft"))


def labelled(desirable, undesirable):
    return read_columns(completions(*(([1], [2, i], i < desirable) for i in range(desirable + undesirable))))


@pytest.mark.parametrize(
    ("desirable", "undesirable", "weights", "said"),
    [
        (6, 6, {}, None),
        (8, 6, {}, None),  # 4/3 exactly
        (9, 6, {}, "= 1 * 9 / (1 * 6) = 1.5: the KTO paper"),
        (9, 6, {"undesirable_weight": 1.5}, None),
        (9, 6, {"undesirable_weight": 2.0}, "desirable_weight from 1.33 to 1.78"),
        (3, 6, {}, "which is desirable_weight from 2 to 2.67"),
        (3, 6, {"desirable_weight": 2.5}, None),
    ],
)
def test_weights_against_counts(desirable, undesirable, weights, said):
    found = label_cautions(OBJECTIVES.build("kto", **weights), labelled(desirable, undesirable))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_only_kto_has_such_weights():
    assert label_cautions(BCO, labelled(9, 2)) == []


def test_weights_within_a_mixture_count():
    mixed = Mixture(parts=(Part(objective=BCO), Part(objective=Smoothed(objective=KTO, label_smoothing=0.1))))
    assert list(parts_of(mixed)) == [BCO, KTO]
    assert len(label_cautions(mixed, labelled(9, 2))) == 1


def test_a_label_that_is_not_there():
    assert label_cautions(KTO, labelled(3, 0)) == [
        "no training completion is undesirable: the objective reads those too"
    ]
    assert label_cautions(SFT, labelled(3, 0)) == []


def test_a_label_that_is_not_read():
    (said,) = label_cautions(SFT, labelled(3, 2))
    assert said.startswith("2 of 5 training completions are undesirable, which the objective does not read")


@pytest.mark.parametrize(
    ("rows", "changes", "processes", "lone"),
    [
        (9, {}, 1, True),
        (8, {}, 1, False),
        (10, {}, 1, False),
        (9, {"dataloader_drop_last": True}, 1, False),
        (9, {}, 3, False),
        (9, {"max_steps": 2}, 1, False),  # ends before its last step
        (9, {"max_steps": 3}, 1, True),
    ],
)
def test_a_last_step_of_one_row(tmp_path, rows, changes, processes, lone):
    chosen = arguments(tmp_path, **{"max_steps": -1, "num_train_epochs": 1, **changes})
    plan = schedule(chosen, rows, 0, processes)
    found = batch_cautions(KTO, rows, 0, plan, chosen, processes)
    assert [text for text in found if "the last step of an epoch holds one row" in text] == found
    assert bool(found) is lone
    assert batch_cautions(BCO, rows, 0, plan, chosen, processes) == []


def test_held_out_batches_of_one_row(tmp_path):
    chosen = arguments(tmp_path, per_device_eval_batch_size=1)
    plan = schedule(chosen, 8, 4)
    (said,) = batch_cautions(KTO, 8, 4, plan, chosen, 1)
    assert "trainer.per_device_eval_batch_size=1" in said
    assert batch_cautions(KTO, 8, 0, plan, chosen, 1) == []
