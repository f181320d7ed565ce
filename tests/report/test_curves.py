import json
import struct
import sys

import pytest
from matplotlib.figure import Figure

from align.report.curves import draw_comparison, draw_curves
from tests.report.conftest import evaluation, one_sided_metrics, summary, training, unpaired_metrics

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    def logged(*rows):
        folder = tmp_path / "run_with_$name$"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return logged


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible() and axes.get_title(loc="left")]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_a_whole_run_makes_both_files(run, drawn):
    folder = run(*(training(step) for step in (10, 20, 30)), evaluation(10, -60, -62), evaluation(30, -63.14, -82.4))
    png, svg = draw_curves(folder)
    assert (png.name, svg.name) == ("curves.png", "curves.svg")
    assert png.parent == svg.parent == folder
    assert png.read_bytes().startswith(PNG)
    assert struct.unpack(">I", png.read_bytes()[16:20]) == (1200,)
    assert "<svg" in svg.read_text()[:1000]
    assert len(titles(drawn[0])) == 6
    assert drawn[0].get_suptitle() == "run_with_$name$"


def test_the_title_says_what_happened_to_the_chosen(run, drawn):
    draw_curves(run(training(10), training(60), evaluation(10, -60, -62), evaluation(30, -63.14, -82.4)))
    assert titles(drawn[0])[0].endswith("held out: chosen -3.1 nats, rejected -20.4 (both fell)")


def test_chosen_and_rejected_are_two_lines_that_start_at_zero(run, drawn):
    draw_curves(run(training(100), training(200), training(400)))
    found = lines(drawn[0].axes[0])
    assert found["chosen"].get_ydata().tolist() == pytest.approx([0, -1, -3])
    assert found["rejected"].get_ydata().tolist() == pytest.approx([0, -10, -30])
    assert found["chosen"].get_color() != found["rejected"].get_color()


def test_a_step_logged_again_replaces_the_first(run, drawn):
    rows = [{"step": step, "loss": loss} for step, loss in ((1, 0.9), (2, 0.8), (3, 0.7), (2, 0.5), (3, 0.4))]
    draw_curves(run(*rows))
    loss = lines(drawn[0].axes[0])["training"]
    assert loss.get_xdata().tolist() == [1, 2, 3]
    assert loss.get_ydata().tolist() == [0.9, 0.5, 0.4]


def test_only_panels_with_data(run, drawn):
    draw_curves(run({"step": 1, "loss": 0.5, "padding_fraction": 0.2}))
    assert titles(drawn[0]) == ["Loss, mean over pairs", "Speed and padding"]


def test_a_diverged_loss_is_not_hidden(run, drawn):
    draw_curves(run(training(1), training(2, loss=float("nan")), training(3, loss=float("inf"))))
    assert any(title.endswith("not finite: 2") for title in titles(drawn[0]))
    draw_curves(run({"step": 1, "loss": float("nan")}))
    assert titles(drawn[-1]) == ["Loss, mean over pairs\nlogged steps that were not finite: 1"]


def test_error_bars_span_the_interval(run, drawn):
    draw_curves(run(evaluation(5, -1, -1), evaluation(9, -1, -2)))
    accuracy = next(axes for axes in drawn[0].axes if axes.get_title(loc="left").startswith("Accuracy"))
    (bars,) = accuracy.collections
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [pytest.approx([0.62, 0.77])] * 2


def test_every_axis_is_named(run, drawn):
    draw_curves(run(training(1), training(2), evaluation(2, -60, -62)))
    assert all(axes.get_ylabel() for axes in drawn[0].axes)
    assert sum(axes.get_xlabel() == "optimiser step" for axes in drawn[0].axes) == 6


def test_no_text_is_cut_off(run, drawn):
    draw_curves(run(training(100), training(9000), evaluation(9000, -60, -62)))
    figure = drawn[0]
    texts = [text for axes in figure.axes for text in (axes._left_title, axes.xaxis.label, axes.yaxis.label)]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_figures_can_go_elsewhere_and_repeat_byte_by_byte(run, tmp_path):
    folder = run(training(1), training(2))
    first = [path.read_bytes() for path in draw_curves(folder, out=tmp_path / "one" / "deep")]
    second = [path.read_bytes() for path in draw_curves(folder, out=tmp_path / "two")]
    assert first == second
    assert not (folder / "curves.png").exists()


def test_nothing_to_draw_is_an_error(run):
    with pytest.raises(ValueError, match="nothing that a panel shows"):
        draw_curves(run({"step": 1, "epoch": 0.1}))


def test_no_global_figure_is_left_behind(run):
    draw_curves(run(training(1)))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_comparison_figure(tmp_path, drawn):
    png, svg = draw_comparison(summary(), tmp_path)
    assert (png, svg) == (tmp_path / "reward.png", tmp_path / "reward.svg")
    assert png.read_bytes().startswith(PNG)
    assert "<svg" in svg.read_text()[:1000]
    upper, lower = drawn[0].axes
    assert [sum(bar.get_height() for bar in axes.patches[:-1]) for axes in (upper, lower)] == [40, 40]
    assert upper.get_title(loc="left") == "base: mean +0.10 [+0.05, +0.15]"
    assert "win rate 0.10 [0.05, 0.15]" in drawn[0].get_suptitle()
    assert "90% intervals" in drawn[0].get_suptitle()


def test_comparison_where_all_scores_are_alike(tmp_path):
    alike = summary() | {"scores": {"base": [0.5], "aligned": [0.5]}}
    assert all(path.exists() for path in draw_comparison(alike, tmp_path / "new"))


def test_comparison_needs_scores(tmp_path):
    with pytest.raises(ValueError, match="scores"):
        draw_comparison({"reward": {}}, tmp_path)


def test_single_completions_and_one_sided_runs(run, drawn):
    draw_curves(run(*unpaired_metrics()))
    draw_curves(run(*one_sided_metrics()))
    first, second = (" ".join(titles(figure)) for figure in (drawn[0], drawn[-1]))
    assert "AUC: share of desirable-undesirable couples ranked right" in first
    assert "Accuracy" not in first
    assert "held out, last: 0.800" in first
    assert "Accuracy" in second
    assert lines(drawn[0].axes[0]).keys() >= {"desirable", "undesirable"}
