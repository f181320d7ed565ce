"""Figures of a run: its curves over training, and the reward before and after.

Chosen and rejected are always two lines: a margin that grows can hide a chosen log-probability that falls. Colours
are those of Okabe and Ito (2008), told apart by colour-blind readers; held-out lines also differ by marker and dash.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from align.report.metrics_file import read_metrics

Rows = Sequence[Mapping[str, Any]]

BLUE, VERMILLION, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#8A8A8A", "#222222"
_REWARDS = (("chosen", "chosen", BLUE), ("rejected", "rejected", VERMILLION), ("margins", "margin", GREEN))
_PIXELS_PER_INCH = 100


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric over training, without what is not finite.

    Attributes:
        steps: optimiser steps, ascending; of a step logged twice (a run taken up again) the later line counts.
        values: the metric at each step.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it shows, and the metrics of which at least one must be there."""

    draw: Callable[[Axes, Rows], None]
    keys: tuple[str, ...]


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
    panels = [panel for panel in PANELS if any(_is_number(row.get(key)) for row in rows for key in panel.keys)]
    if not panels:
        raise ValueError(f"{run_dir} logged nothing that a panel shows")
    with _look():
        figure = _grid(panels, rows, title=Path(run_dir).resolve().name)
    folder = Path(run_dir if out is None else out)
    return _save(figure, [folder / "curves.png", folder / "curves.svg"])


def draw_comparison(summary: Mapping[str, Any], out: str | Path) -> Path:
    """Draw the rewards of the base and of the aligned model into ``reward.png``.

    Args:
        summary: what :func:`align.evaluation.comparison.compare_samples` returns.
        out: folder for the figure.

    Returns:
        The file.

    Raises:
        ValueError: the summary has no scores.
    """
    if "scores" not in summary:
        raise ValueError("the summary has no 'scores': it is not what compare_samples returns")
    with _look():
        figure = Figure(figsize=(9, 6), dpi=_PIXELS_PER_INCH, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
        edges = np.histogram_bin_edges([*summary["scores"]["base"], *summary["scores"]["aligned"]], bins=24)
        _histogram(upper, summary, "base", edges, GREY)
        _histogram(lower, summary, "aligned", edges, BLUE)
        lower.set_xlabel("reward of a completion")
        figure.suptitle(_gain(summary), x=0.01, ha="left", fontsize=12)
    return _save(figure, [Path(out) / "reward.png"])[0]


def _series(rows: Rows, key: str) -> Series:
    points = {row["step"]: row[key] for row in rows if _is_number(row.get(key))}
    finite = sorted((step, value) for step, value in points.items() if np.isfinite(value))
    return Series(np.array([step for step, _ in finite], float), np.array([value for _, value in finite], float))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _look() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    )


def _grid(panels: Sequence[Panel], rows: Rows, title: str) -> Figure:
    """Return the figure of all panels, two in a line, 1200 pixels wide."""
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(12, 0.6 + 3.4 * lines), dpi=_PIXELS_PER_INCH, layout=layout)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        panel.draw(axes, rows)
        axes.set_xlabel("optimiser step")
        axes.set_xlim(*_reach_of_steps(rows))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return figure


def _reach_of_steps(rows: Rows) -> tuple[float, float]:
    """Return the ends of the horizontal axis of every panel, with a little room."""
    first, last = min(row["step"] for row in rows), max(row["step"] for row in rows)
    room = max(0.5, 0.03 * (last - first))
    return first - room, last + room


def _save(figure: Figure, paths: list[Path]) -> list[Path]:
    with mpl.rc_context({"svg.hashsalt": "align"}):  # with no date, the same metrics give the same bytes
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _line(axes: Axes, series: Series, label: str, colour: str, **style: Any) -> None:
    """Draw a series where it has points; a single point is shown as a dot."""
    if len(series):
        look = {"linewidth": 1.5, "markersize": 4, "marker": "o" if len(series) == 1 else ""}
        axes.plot(series.steps, series.values, color=colour, label=label, **{**look, **style})


def _both_lines(axes: Axes, training: Series, held_out: Series, label: str, colour: str) -> None:
    """Draw what training logged, pale where held-out data (dashed, with dots) is beside it."""
    _line(axes, training, label, colour, alpha=0.45 if len(held_out) else 1.0)
    _line(axes, held_out, "_" if len(training) else label, colour, linestyle="--", marker="o")


def _title(axes: Axes, title: str, detail: str = "") -> None:
    axes.set_title(f"{title}\n{detail}" if detail else title, loc="left", fontsize=10.5)


def _legend(axes: Axes) -> None:
    """Draw the legend, if anything was drawn, with the pale lines in full colour."""
    if axes.get_legend_handles_labels()[0]:
        for line in axes.legend(fontsize=9).get_lines():
            line.set_alpha(1)


def _change(series: Series) -> Series:
    return Series(series.steps, series.values - series.values[:1])


def _draw_logps(axes: Axes, rows: Rows) -> None:
    """Draw both log-probabilities as change from their own first logged step; a title says what became of them."""
    axes.axhline(0, color=BLACK, linewidth=0.8)
    for side, colour in (("chosen", BLUE), ("rejected", VERMILLION)):
        training, held_out = (_change(_series(rows, f"{part}logps/{side}")) for part in ("", "eval_"))
        _both_lines(axes, training, held_out, side, colour)
    dashed = _dashed(rows, "eval_logps/chosen")
    _title(axes, f"Log-probability since the first logged step{dashed}", change_in_words(rows))
    axes.set_ylabel("change (nats)")
    _legend(axes)


def change_in_words(rows: Rows) -> str:
    """Return what became of the log-probabilities, as ``held out: chosen -3.1 nats, rejected -20.4 (both fell)``.

    Held-out pairs are the same at every evaluation and speak first, where there are two evaluations; training steps
    see other pairs each time. Change is from the first logged step to the last, in nats a completion.
    """
    held_out = len(_series(rows, "eval_logps/chosen")) > 1
    prefix, where = ("eval_", "held out") if held_out else ("", "training")
    series = {side: _series(rows, f"{prefix}logps/{side}") for side in ("chosen", "rejected")}
    moved = {
        side: round(float(line.values[-1] - line.values[0]), 1) + 0.0 for side, line in series.items() if len(line)
    }
    if len(moved) < 2:
        return "".join(f"{where}: {side} {change:+.1f} nats" for side, change in moved.items())
    return f"{where}: chosen {moved['chosen']:+.1f} nats, rejected {moved['rejected']:+.1f}{_verdict(**moved)}"


def _verdict(chosen: float, rejected: float) -> str:
    if chosen < 0 and rejected < 0:
        return " (both fell)"
    if chosen > 0 and rejected > 0:
        return " (both rose)"
    return " (chosen rose, rejected fell)" if chosen > 0 > rejected else ""


def _draw_rewards(axes: Axes, rows: Rows) -> None:
    axes.axhline(0, color=BLACK, linewidth=0.8)
    for key, label, colour in _REWARDS:
        training, held_out = (_series(rows, f"{part}rewards/{key}") for part in ("", "eval_"))
        _both_lines(axes, training, held_out, label, colour)
    _title(axes, f"Implicit reward{_dashed(rows, 'eval_rewards/chosen')}")
    axes.set_ylabel("reward")
    _legend(axes)


def _dashed(rows: Rows, key: str) -> str:
    return " (dashed: held out)" if len(_series(rows, key)) else ""


def _draw_accuracy(axes: Axes, rows: Rows) -> None:
    """Draw training accuracy as it was logged, and held-out accuracy with its interval."""
    axes.axhline(0.5, color=BLACK, linewidth=0.8, linestyle=":", label="chance")
    _line(axes, _series(rows, "rewards/accuracies"), "training", BLUE, alpha=0.35)
    held_out = _series(rows, "eval_accuracy")
    if len(held_out):
        reach = [_reach(rows, held_out, "eval_accuracy_low", -1), _reach(rows, held_out, "eval_accuracy_high", 1)]
        label = "held out, with interval" if np.any(reach) else "held out"
        axes.errorbar(
            held_out.steps,
            held_out.values,
            yerr=reach,
            color=VERMILLION,
            marker="o",
            markersize=4,
            capsize=3,
            label=label,
        )
    _title(
        axes, "Accuracy: share of pairs whose chosen has the higher reward", _last(held_out, "held out, last: {:.3f}")
    )
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.02, 1.02)
    _legend(axes)


def _reach(rows: Rows, series: Series, key: str, sign: int) -> NDArray[np.float64]:
    """Return how far the interval reaches from each value, 0 where none was logged."""
    ends = _series(rows, key)
    found = dict(zip(ends.steps, ends.values, strict=True))
    bounds = [found.get(step, value) for step, value in zip(series.steps, series.values, strict=True)]
    return np.maximum(sign * (np.array(bounds) - series.values), 0.0)


def _last(series: Series, words: str) -> str:
    return words.format(series.values[-1]) if len(series) else ""


def _draw_loss(axes: Axes, rows: Rows) -> None:
    _line(axes, _series(rows, "loss"), "training", BLUE)
    _line(axes, _series(rows, "eval_loss"), "held out", VERMILLION, linestyle="--", marker="o")
    values = [row["loss"] for row in rows if _is_number(row.get("loss"))]
    broken = int(np.count_nonzero(~np.isfinite(values)))
    _title(axes, "Loss, mean over pairs", f"logged steps that were not finite: {broken}" if broken else "")
    axes.set_ylabel("loss")
    _legend(axes)


def _draw_gradient(axes: Axes, rows: Rows) -> None:
    _title(axes, "Gradient norm and learning rate")
    left = _series(rows, "grad_norm"), "gradient norm (before clipping)"
    _two_scales(axes, left, (_series(rows, "learning_rate"), "learning rate"))


def _draw_speed(axes: Axes, rows: Rows) -> None:
    _title(axes, "Speed and padding")
    padding = _series(rows, "padding_fraction")
    right = Series(padding.steps, 100 * padding.values), "padding (% of positions)"
    twin = _two_scales(axes, (_series(rows, "tokens_per_second"), "tokens a second"), right)
    twin.set_ylim(0, 100)


def _two_scales(axes: Axes, left: tuple[Series, str], right: tuple[Series, str]) -> Axes:
    """Draw two series on two vertical axes, each axis in its line's colour; return the right one."""
    twin = axes.twinx()
    twin.grid(visible=False)
    twin.spines["right"].set_visible(bool(len(right[0])))
    for side, (series, label), colour, dash in ((axes, left, BLUE, "-"), (twin, right, VERMILLION, "--")):
        _line(side, series, label, colour, linestyle=dash)
        side.set_ylabel(label, color=colour)
        side.tick_params(axis="y", labelcolor=colour)
        side.yaxis.set_visible(bool(len(series)))
        if len(series) and series.values.min() >= 0:
            side.set_ylim(bottom=0)
    return twin


def _histogram(axes: Axes, summary: Mapping[str, Any], model: str, edges: NDArray[np.float64], colour: str) -> None:
    """Draw one model's rewards, their mean and its interval."""
    mean = summary["reward"][model]
    axes.hist(summary["scores"][model], bins=edges.tolist(), color=colour, alpha=0.65, edgecolor="white")
    axes.axvspan(mean["low"], mean["high"], color=VERMILLION, alpha=0.25, linewidth=0)
    axes.axvline(mean["value"], color=VERMILLION, linewidth=1.8)
    _title(axes, f"{model}: mean {_in_words(mean, '+.2f')}")
    axes.set_ylabel("completions")


def _in_words(interval: Mapping[str, float], form: str) -> str:
    return f"{interval['value']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"


def _gain(summary: Mapping[str, Any]) -> str:
    level = f"{summary['confidence']:.0%}"
    first = f"Reward {_in_words(summary['reward']['difference'], '+.2f')} after alignment ({level} intervals)"
    return f"{first}\nwin rate {_in_words(summary['win_rate'], '.2f')}, KL {_in_words(summary['kl'], '.1f')} nats"


PANELS = (
    Panel(_draw_logps, ("logps/chosen", "logps/rejected", "eval_logps/chosen", "eval_logps/rejected")),
    Panel(_draw_rewards, tuple(f"{part}rewards/{key}" for part in ("", "eval_") for key, *_ in _REWARDS)),
    Panel(_draw_accuracy, ("rewards/accuracies", "eval_accuracy")),
    Panel(_draw_loss, ("loss", "eval_loss")),
    Panel(_draw_gradient, ("grad_norm", "learning_rate")),
    Panel(_draw_speed, ("tokens_per_second", "padding_fraction")),
)
"""Panels in the order in which they are drawn."""
