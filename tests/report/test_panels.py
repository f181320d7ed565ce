import pytest
from matplotlib.figure import Figure

from align.report.panels import (
    LENGTHS,
    LOGPS,
    MOST_BARS,
    PAGE_PANELS,
    PANELS,
    UNPAIRED_PAGE_PANELS,
    UNPAIRED_PANELS,
    is_split,
    panels_of,
)
from tests.report.conftest import evaluation, one_sided_metrics, training, unpaired_metrics

BY_NAME = {panel.name: panel for panel in PAGE_PANELS}
UNPAIRED = {panel.name: panel for panel in UNPAIRED_PAGE_PANELS}


def drawn(name, rows):
    axes = Figure().subplots()
    {**UNPAIRED, **BY_NAME}[name].draw(axes, rows)
    return axes


def labels(axes):
    return {line.get_label() for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_names_tell_panels_apart_and_the_page_has_one_more():
    assert len(BY_NAME) == len(PAGE_PANELS)
    assert set(PAGE_PANELS) - set(PANELS) == {LENGTHS}
    assert len(UNPAIRED) == len(UNPAIRED_PAGE_PANELS) == len(UNPAIRED_PANELS) + 2


def test_only_panels_with_data_remain():
    assert [panel.name for panel in panels_of([{"step": 1, "length/chosen": 4.0}], page=True)] == ["lengths"]
    assert panels_of([{"step": 1, "length/chosen": 4.0}]) == []


def test_held_out_lines_are_dashed_and_training_pale_beside_them():
    rows = [training(1), training(2), evaluation(1, -60, -62), evaluation(2, -61, -66)]
    lines = [line for line in drawn("log-probabilities", rows).get_lines() if len(line.get_xdata()) == 2][1:]
    looks = {(line.get_linestyle(), line.get_alpha()): line.get_ydata().tolist() for line in lines}
    assert looks[("--", None)] == [0, -4]
    assert {style for style, _ in looks} == {"-", "--"}
    assert is_split(LOGPS, rows)
    assert not is_split(LOGPS, rows[:2])


@pytest.mark.parametrize("count", [MOST_BARS, MOST_BARS + 1])
def test_intervals_are_bars_or_a_band_of_the_same_reach(count):
    axes = drawn("accuracy", [evaluation(step, -1, -2) for step in range(count)])
    (shape,) = axes.collections
    low, high = shape.get_datalim(axes.transData).intervaly
    assert (low, high) == (pytest.approx(0.62), pytest.approx(0.77))
    assert hasattr(shape, "get_segments") is (count == MOST_BARS)


def test_lengths_start_at_zero_and_are_two_lines():
    axes = drawn("lengths", [{"step": s, "length/chosen": 30.0, "length/rejected": 20.0} for s in (1, 2)])
    assert axes.get_ylim()[0] == 0
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [30, 20]


def test_padding_is_in_percent():
    axes = drawn("speed", [training(1), training(2)])
    (twin,) = (other for other in axes.figure.axes if other is not axes)
    assert twin.get_lines()[0].get_ydata().tolist() == pytest.approx([10, 10])


def test_single_completions_have_panels_of_their_own():
    names = [panel.name for panel in panels_of(unpaired_metrics(), page=True)]
    assert names == ["log-probabilities", "rewards", "auc", "loss", "reference-point", "gradient", "speed"]
    assert "accuracy" not in " ".join(panel.title + panel.reading for panel in UNPAIRED_PAGE_PANELS).lower()
    assert not any("pairs" in panel.title for panel in UNPAIRED_PAGE_PANELS)


@pytest.mark.parametrize("name", ["log-probabilities", "rewards"])
def test_their_lines_are_desirable_and_undesirable(name):
    found = labels(drawn(name, unpaired_metrics()))
    assert found - {"margin"} == {"desirable", "undesirable"}


def test_auc_has_its_interval_and_its_last_value():
    axes = drawn("auc", unpaired_metrics())
    (bars,) = axes.collections
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [pytest.approx([0.7, 0.9])] * 3
    assert axes.get_ylabel() == "AUC"
    assert UNPAIRED["auc"].note(unpaired_metrics()) == "held out, last: 0.800"


def test_a_side_that_training_did_not_compute_is_there_from_evaluations():
    axes = drawn("rewards", one_sided_metrics())
    assert labels(axes) == {"chosen", "rejected", "margin"}
    (rejected,) = [line for line in axes.get_lines() if line.get_label() == "rejected"]
    assert rejected.get_xdata().tolist() == [300]
