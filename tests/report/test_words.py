import pytest

from align.report.words import change_in_words, changes, meaning, trained_sides
from tests.report.conftest import evaluation, training, unpaired_evaluation, unpaired_metrics


def logged(chosen, rejected):
    rows = [{"step": step, "logps/chosen": value} for step, value in enumerate(chosen)]
    return rows + [{"step": 10 + step, "logps/rejected": value} for step, value in enumerate(rejected)]


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        ([-50, -53.14], [-50, -70.36], "training: chosen -3.1 nats, rejected -20.4 (both fell)"),
        ([-50, -48], [-50, -60], "training: chosen +2.0 nats, rejected -10.0 (chosen rose, rejected fell)"),
        ([-50, -48], [-50, -49], "training: chosen +2.0 nats, rejected +1.0 (both rose)"),
        ([-50, -50.01], [-50, -60], "training: chosen +0.0 nats, rejected -10.0"),
        ([-50, float("nan")], [-50, -60], "training: chosen +0.0 nats, rejected -10.0"),
        ([-50, -51], [], "training: chosen -1.0 nats"),
        ([], [], ""),
    ],
)
def test_change_in_words(chosen, rejected, words):
    assert change_in_words(logged(chosen, rejected)) == words


def test_held_out_change_speaks_first_once_there_are_two_evaluations():
    rows = [training(0), training(100), evaluation(0, -60, -60)]
    assert change_in_words(rows).startswith("training: chosen -1.0")
    assert change_in_words([*rows, evaluation(100, -55, -61)]).startswith("held out: chosen +5.0")


def test_changes_are_last_minus_first_to_a_tenth():
    found = changes(logged([-50, -70, -53.14], [-50, -70.36]))
    assert found.where == "training"
    assert found.of == {"chosen": -3.1, "rejected": -20.4}


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        (-3, -20, ("Both answers became less likely", "grew by 17.0", "more slowly than the rejected")),
        (-20, -3, ("Both answers became less likely", "shrank by 17.0", "did not separate them")),
        (-3, -3, ("Both answers became less likely", "stayed", "did not separate them")),
        (-3, 4, ("chosen answers became less likely and the rejected did not", "shrank by 7.0", "against the aim")),
        (3, -4, ("chosen answers became more likely and the rejected less", "grew by 7.0")),
        (3, 1, ("did not become less likely", "grew by 2.0")),
    ],
)
def test_meaning_answers_why_the_chosen_fell(chosen, rejected, words):
    text = meaning(logged([0, chosen], [0, rejected]))
    assert all(part in text for part in words), text


def test_nothing_is_said_of_one_side_alone():
    assert meaning(logged([0, -1], [])) == ""


def test_single_completions_are_called_by_their_labels():
    rows = unpaired_metrics()
    assert change_in_words(rows) == "held out: desirable -3.0 nats, undesirable -30.0 (both fell)"
    assert meaning(rows).startswith("Answers of both labels became less likely; the gap between them grew by 27.0")
    assert "DPO" not in meaning(rows)
    assert "chosen" not in meaning(rows)


def test_held_out_rows_of_one_label_speak_too():
    rows = [unpaired_evaluation(step, None, -50 - step) for step in (1, 2)]
    assert change_in_words(rows) == "held out: undesirable -1.0 nats"


def test_a_loss_of_one_side_is_not_called_a_loss_of_the_difference():
    rows = [{"step": step, "logps/rejected": -50.0 - step} for step in (1, 2, 3)]
    rows += [evaluation(step, -60 - step, -62 - 3 * step) for step in (1, 3)]
    assert trained_sides(rows) == ["rejected"]
    assert meaning(rows).endswith("The loss sees the rejected alone: what became of the chosen is a side effect.")
