import math
from typing import Any

import pytest

from align.data.columns import label_of, refuse_other_prompt, required, score_of, shared_columns, there
from align.data.rows import DataError, RowError


def test_null_and_empty_cells_are_nothing():
    assert not there({"a": None}, "a")
    assert not there({"a": ""}, "a")
    assert not there({}, "a")
    assert there({"a": 0}, "a")


@pytest.mark.parametrize(("given", "score"), [(2, 2.0), (-0.5, -0.5), ("0.25", 0.25), (0, 0.0)])
def test_scores(given: Any, score: float):
    assert score_of({"chosen_score": given}, "chosen_score", "a:1") == score


@pytest.mark.parametrize("given", [None, "", float("nan")])
def test_scores_that_are_not_there(given: Any):
    assert math.isnan(score_of({"chosen_score": given}, "chosen_score", "a:1"))
    assert math.isnan(score_of({}, "chosen_score", "a:1"))


@pytest.mark.parametrize("given", ["good", True, [1], float("inf"), {}])
def test_scores_that_are_none(given: Any):
    with pytest.raises(RowError, match=r"a:1: column 'chosen_score' must be a finite number, got .*; write a number"):
        score_of({"chosen_score": given}, "chosen_score", "a:1")


@pytest.mark.parametrize("given", [True, 1, 1.0, "true", "True", "1", " TRUE "])
def test_labels_that_say_yes(given: Any):
    assert label_of({"label": given}, "label", "a:1") is True


@pytest.mark.parametrize("given", [False, 0, 0.0, "false", "False", "0"])
def test_labels_that_say_no(given: Any):
    assert label_of({"label": given}, "label", "a:1") is False


@pytest.mark.parametrize("given", ["good", 2, 0.5, -1, [True], float("nan"), {}])
def test_labels_of_another_kind(given: Any):
    with pytest.raises(RowError, match=r"a:1: column 'label' must be true or false, got .*; write true where the") as e:
        label_of({"label": given}, "label", "a:1")
    assert e.value.kind == "wrong_type"


@pytest.mark.parametrize(
    ("raw", "said"), [({}, "is not there"), ({"label": None}, "is empty"), ({"label": ""}, "is empty")]
)
def test_labels_that_are_missing(raw: dict[str, Any], said: str):
    with pytest.raises(RowError, match=f"a:1: column 'label' {said}; .*or name the column in 'columns'") as error:
        label_of(raw, "label", "a:1")
    assert error.value.kind == "missing"


def test_a_needed_column_names_its_likely_other_name():
    assert required({"chosen": 0}, "chosen", "a:1") == 0
    with pytest.raises(DataError, match="did you mean 'completions'"):
        required({"completions": "x"}, "completion", "a:1")


def test_a_prompt_under_another_name():
    refuse_other_prompt({"question": "Sky?"}, "a:1", known="Sky? Yes")
    with pytest.raises(DataError, match=r"but 'question'; map it: columns: \{prompt: question\}"):
        refuse_other_prompt({"question": "Sky?"}, "a:1")


def test_what_every_form_shares():
    raw = {"weight": "2", "tools": '[{"name": "add"}]', "chat_template_kwargs": {"a": 1, "b": None}}
    assert shared_columns(raw, "a:1") == {
        "weight": 2.0,
        "tools": ({"name": "add"},),
        "template_settings": {"a": 1},
        "where": "a:1",
    }
