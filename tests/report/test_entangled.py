import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from align.report.charts import charts_of_run, charts_of_runs, draw_on_page
from align.report.entangled import (
    LAYERS_FILE,
    cases_in_words,
    draw_cases,
    draw_cosine,
    measured,
    read_layers,
    shares,
    table_of_layers,
)
from align.report.key_figures import key_figures
from align.report.run_record import read_runs

STEPS = range(1, 13)


def entry(step):
    down = step / 24
    found = {"cosine": step / 13, "norm_ratio": 1.2, "ratio": 1.0}
    found |= {"chosen_slack": 1 / 1.2 - step / 13, "rejected_slack": 1.2 - step / 13}
    found |= {"step_share_ideal": 1 - down, "step_share_both_down": down, "share_ideal": 1.0}
    return {
        "step": step,
        "epoch": 0.1,
        "loss": 0.69,
        "logps/chosen": -80.0 - step,
        "logps/rejected": -82.0 - 2 * step,
        **({f"entanglement/{name}": value for name, value in found.items()} if step % 2 else {}),
    }


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry(step)) + "\n" for step in STEPS))
    layers = [
        {"step": step, "layers": {"embed_tokens": [[1, 0], [0, 1]], "layer 0": [[8, step], [step, 8]]}}
        for step in (0, 2)
    ]
    lines = [{"step": 0, "layers": {}}, *layers]  # a run taken up again: the later line counts
    (folder / LAYERS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "la')
    return folder


def rows():
    return [entry(step) for step in STEPS]


def test_the_optimisers_own_step_speaks_where_it_was_logged():
    assert measured(rows())
    whose, found = shares(rows())
    assert whose == "the optimiser's own step"
    assert len(found["both_down"]) == 6
    plain = [{key: value for key, value in row.items() if "step_share" not in key} for row in rows()]
    assert shares(plain)[0] == "plain descent on the pair alone"
    assert shares([{"step": 1}]) == ("", {})


def test_shares_in_words():
    assert cases_in_words(rows()) == "parting in 75 % of measured pairs, both down in 25 %"
    assert cases_in_words([{"step": 1}]) == ""


def test_shares_are_stacked_to_the_top():
    axes = Figure().subplots()
    draw_cases(axes, rows())
    tops = [patch.get_y() + patch.get_height() for patch in axes.patches]
    assert max(tops) == pytest.approx(100)
    assert [line.get_label() for line in axes.lines] == ["chosen up, rejected down", "both down"]


def test_the_cosine_stands_between_its_bounds():
    axes = Figure().subplots()
    draw_cosine(axes, rows())
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["r/r*: above it the chosen falls"], 1 / 1.2)
    np.testing.assert_allclose(lines["r*/r: above it the rejected rises"], 1.2)
    np.testing.assert_allclose(lines["cosine"], [step / 13 for step in STEPS if step % 2])


def test_layers_are_shares_of_the_cosine(run):
    found = read_layers(run)
    assert (found.steps, found.parts) == ([0, 2], ["embed_tokens", "layer 0"])
    np.testing.assert_allclose(found.shares, [[0, 0], [0, 2 / 9]])
    assert table_of_layers(found).rows[1] == ["layer 0", "0", "0.22222"]


def test_a_run_without_layers(tmp_path):
    assert read_layers(tmp_path) is None
    (tmp_path / LAYERS_FILE).write_text("{")
    assert read_layers(tmp_path) is None


def test_charts_and_figures_of_a_run(run):
    (record,) = read_runs([run])
    charts = {chart.name: chart for chart in charts_of_run(record)}
    assert {"where-both-go", "cosine", "layers"} <= charts.keys()
    assert charts["where-both-go"].table.heads == ("step", "ideal", "both_down")
    for name in ("where-both-go", "cosine", "layers"):
        drawn = draw_on_page(charts[name])
        assert "<image" not in drawn.svg
        assert len(drawn.svg) < 150_000
    figures = {measure.label: cells[0] for measure, cells in key_figures([record])}
    assert figures["Both fall"].text == "25%"
    assert figures["Cosine"].interval == "last +0.85"


def test_charts_of_several_runs(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
    names = [chart.name for chart in charts_of_runs(read_runs([run, other]))]
    assert {"cosine", "both-down"} <= set(names)


def test_runs_that_measured_nothing_have_no_such_charts(run):
    plain = [{k: v for k, v in entry(step).items() if "entanglement" not in k} for step in STEPS]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    (record,) = read_runs([run])
    assert not {"where-both-go", "cosine", "layers"} & {chart.name for chart in charts_of_run(record)}
