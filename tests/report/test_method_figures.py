import json

from matplotlib.figure import Figure

from align.report.method_figures import MOST, draw_figures, figure_keys
from align.report.run_record import read_runs


def run(folder, recipe, rows):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_runs([folder])[0]


def test_only_methods_have_figures_of_their_own(tmp_path):
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "eval_knn": 0.5, "eval_rank": 3.0, "epoch": 1}]
    assert figure_keys(run(tmp_path / "a", "method: clip\n", rows)) == ["eval_knn", "eval_rank"]
    assert figure_keys(run(tmp_path / "b", "model: {path: x}\n", rows)) == []


def test_no_more_than_a_panel_can_show(tmp_path):
    rows = [{"step": 1, **{f"eval_{i}": float(i) for i in range(20)}}]
    assert len(figure_keys(run(tmp_path / "a", "method: clip\n", rows))) == MOST


def test_each_figure_is_a_line_over_steps():
    axes = Figure().subplots()
    draw_figures(axes, [{"step": 1, "eval_knn": 0.25}, {"step": 3, "eval_knn": 0.75}], ["eval_knn"])
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [1, 3]
    assert list(line.get_ydata()) == [0.25, 0.75]
    assert line.get_label() == "knn"
