"""Picture files of a run: its curves over training, and the reward before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from align.report.look import PIXELS_PER_INCH, legend, look, reach_of, save, steps_axis
from align.report.metrics_file import read_metrics
from align.report.panels import Panel, is_split, panels_of
from align.report.rewards import draw_rewards, gain_in_words
from align.report.series import Rows


def draw_curves(run_dir: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw what the run logged into ``curves.png`` and ``curves.svg``; panels without data are left out.

    Args:
        run_dir: folder of the run, with its ``metrics.jsonl``.
        out: folder for the figures; the run's own where absent.

    Returns:
        The two files.

    Raises:
        ValueError: the metrics cannot be read, or hold nothing that a panel shows.
    """
    rows = read_metrics(run_dir)
    panels = panels_of(rows)
    if not panels:
        raise ValueError(f"{run_dir} logged nothing that a panel shows")
    folder = Path(run_dir if out is None else out)
    with look():
        figure = _grid(panels, rows, title=Path(run_dir).resolve().name)
        return save(figure, [folder / "curves.png", folder / "curves.svg"])


def draw_comparison(summary: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Draw the rewards of the base and of the aligned model into ``reward.png`` and ``reward.svg``.

    Args:
        summary: what :func:`align.evaluation.comparison.compare_samples` returns.
        out: folder for the figures.

    Returns:
        The two files.

    Raises:
        ValueError: the summary has no scores.
    """
    if "scores" not in summary:
        raise ValueError("the summary has no 'scores': it is not what compare_samples returns")
    with look():
        figure = Figure(figsize=(9, 6), dpi=PIXELS_PER_INCH, layout="constrained")
        draw_rewards(figure, summary)
        figure.suptitle(gain_in_words(summary), x=0.01, ha="left", fontsize=12)
        return save(figure, [Path(out) / "reward.png", Path(out) / "reward.svg"])


def _grid(panels: Sequence[Panel], rows: Rows, title: str) -> Figure:
    """Return the figure of all panels, two in a line, 1200 pixels wide."""
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(12, 0.6 + 3.4 * lines), dpi=PIXELS_PER_INCH, layout=layout)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    grid = figure.subplots(lines, columns, squeeze=False)
    reach = reach_of([row["step"] for row in rows])
    for axes, panel in zip(grid.flat, panels, strict=False):
        panel.draw(axes, rows)
        steps_axis(axes, reach)
        axes.set_title(_title(panel, rows), loc="left", fontsize=10.5)
        if not panel.two_scales:
            legend(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return figure


def _title(panel: Panel, rows: Rows) -> str:
    dashed = " (dashed: held out)" if is_split(panel, rows) and panel.name != "accuracy" else ""
    return "\n".join(part for part in (panel.title + dashed, panel.note(rows)) if part)
