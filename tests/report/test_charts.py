import struct
from dataclasses import replace

import pytest

from align.report.charts import Entry, charts_of_run, charts_of_runs, draw_on_page, export
from align.report.overlays import CROWDED
from align.report.run_record import read_runs
from tests.report.conftest import HOSTILE, whole_summary


@pytest.fixture
def charts(whole):
    return {chart.name: chart for chart in charts_of_run(read_runs([whole])[0])}


def test_a_whole_run_has_a_chart_of_everything(charts):
    assert list(charts) == [
        *("log-probabilities", "rewards", "accuracy", "loss", "gradient", "speed", "reward", "sample-lengths"),
    ]
    assert charts["log-probabilities"].note == "held out: chosen -8.0 nats, rejected -24.0 (both fell)"
    assert all(chart.table.rows for chart in charts.values())


def test_a_chart_stands_out_by_a_second_drawing_with_ids_of_its_own(charts):
    drawn = draw_on_page(charts["log-probabilities"], wide=True)
    assert 'id="log-probabilities-0-' in drawn.svg
    assert 'id="log-probabilities-1-' in drawn.wide
    assert draw_on_page(charts["loss"]).wide == ""


def test_the_label_says_what_happened(charts):
    assert "(both fell)" in draw_on_page(charts["log-probabilities"]).svg.split(">")[0]


def test_legends_name_their_colours(charts):
    entries = draw_on_page(charts["log-probabilities"]).entries
    assert list(entries) == [Entry("chosen", "blue"), Entry("rejected", "vermillion")]
    assert draw_on_page(charts["gradient"]).entries == []
    assert Entry("held out", "blue", dashed=True) in draw_on_page(charts["loss"]).entries


def test_charts_become_files(charts, tmp_path):
    png, svg = export(charts["accuracy"], tmp_path / "plots")
    assert (png.name, svg.name) == ("accuracy.png", "accuracy.svg")
    assert struct.unpack(">I", png.read_bytes()[16:20]) == (1520,)
    assert export(charts["accuracy"], tmp_path / "plots") == [png, svg]


def test_files_of_others_stay(charts, tmp_path):
    (tmp_path / "loss.svg").write_text("<svg>my own drawing</svg>")
    with pytest.raises(ValueError, match=r"loss.svg exists and was not made by align report"):
        export(charts["loss"], tmp_path)
    assert (tmp_path / "loss.svg").read_text() == "<svg>my own drawing</svg>"
    assert not (tmp_path / "loss.png").exists()


@pytest.mark.parametrize("count", [2, CROWDED + 1])
def test_many_runs_have_chosen_and_rejected_apart(make_run, count):
    runs = read_runs([make_run(f"r{i}", result=whole_summary()) for i in range(count)])
    charts = {chart.name: chart for chart in charts_of_runs(runs)}
    assert charts["log-probabilities"].tall is (count > CROWDED)
    assert charts["margins"].tall is False
    assert "reward-against-kl" in charts
    drawn = draw_on_page(charts["log-probabilities"])
    assert (">rejected</text>" in drawn.svg) is (count > CROWDED)


def test_hostile_names_stay_text_in_files_and_pages(make_run, tmp_path):
    runs = [replace(run, name=HOSTILE) for run in read_runs([make_run("a"), make_run("b")])]
    chart = charts_of_runs(runs)[0]
    assert "<script" not in draw_on_page(chart).svg
    assert "<script" not in export(chart, tmp_path)[1].read_text()


def test_single_completions_are_never_called_pairs(unpaired):
    charts = {chart.name: chart for chart in charts_of_run(read_runs([unpaired])[0])}
    assert {"auc", "reference-point"} <= charts.keys()
    assert "accuracy" not in charts
    assert not [chart for chart in charts.values() if "pair" in f"{chart.title} {chart.reading}"]
    entries = draw_on_page(charts["log-probabilities"]).entries
    assert [entry.text for entry in entries] == ["desirable", "undesirable"]


def test_runs_of_both_kinds_share_a_figure(unpaired, whole, one_sided):
    charts = {chart.name: chart for chart in charts_of_runs(read_runs([whole, unpaired, one_sided]))}
    assert {"accuracy", "auc"} <= charts.keys()
    assert charts["log-probabilities"].reading.endswith("Solid: chosen or desirable, dashed: rejected or undesirable.")
    assert charts["loss"].title == "Loss, mean over rows"
    assert charts["accuracy"].reading == "Of held-out pairs."
    assert charts["auc"].reading == "Of held-out completions."
    assert all(draw_on_page(chart).svg for chart in charts.values())
    alone = {chart.name: chart for chart in charts_of_runs(read_runs([whole]))}
    assert alone["loss"].title == "Loss, mean over pairs"
