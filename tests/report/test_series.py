import pytest

from align.report.series import change, has, is_number, series


def test_values_that_are_not_finite_are_left_out_and_steps_ascend():
    rows = [{"step": 3, "loss": 1.0}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 4}]
    found = series(rows, "loss")
    assert found.steps.tolist() == [1, 3]
    assert found.values.tolist() == [2.0, 1.0]
    assert (len(found), found.last) == (2, 1.0)


def test_nothing_logged():
    found = series([{"step": 1}], "loss")
    assert (len(found), found.last, len(change(found))) == (0, None, 0)


def test_change_is_from_the_first_value():
    assert change(series([{"step": s, "x": 5.0 - s} for s in (1, 2, 4)], "x")).values.tolist() == [0, -1, -3]


def test_a_metric_that_was_never_finite_was_logged():
    rows = [{"step": 1, "loss": float("nan"), "flag": True}]
    assert has(rows, ("loss",))
    assert not has(rows, ("flag", "other"))


@pytest.mark.parametrize(("value", "expected"), [(1, True), (0.5, True), (True, False), ("1", False), (None, False)])
def test_is_number(value, expected):
    assert is_number(value) is expected
