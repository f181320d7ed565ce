"""What is drawn of one run over its steps, a panel a subject.

Chosen and rejected are always two lines: a margin that grows can hide a chosen log-probability that falls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from align.report.look import BLUE, GREEN, PURPLE, VERMILLION, base_line, both_strokes, stroke
from align.report.series import Rows, Series, change, has, is_number, series
from align.report.words import change_in_words

SIDES = (("chosen", BLUE), ("rejected", VERMILLION))
REWARDS = (("chosen", "chosen", BLUE), ("rejected", "rejected", VERMILLION), ("margins", "margin", GREEN))
MOST_BARS = 24
"""More evaluations than this have their intervals drawn as a band."""


def _nothing(rows: Rows) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        name: of its files.
        title: what is drawn.
        keys: the metrics it shows, of which at least one must be there.
        draw: draws them on axes.
        note: what this run's values come to, in a few words.
        reading: how to read it, for people who see such a panel for the first time.
        two_scales: whether its axes are named in the colours of their lines, so that it needs no legend.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    draw: Callable[[Axes, Rows], None]
    note: Callable[[Rows], str] = _nothing
    reading: str = ""
    two_scales: bool = False


def both(*keys: str) -> tuple[str, ...]:
    """Return the metrics of training and after them those of evaluations."""
    return tuple(f"{part}{key}" for part in ("", "eval_") for key in keys)


def draw_logps(axes: Axes, rows: Rows) -> None:
    """Draw both log-probabilities as change from their own first logged step."""
    base_line(axes)
    for side, colour in SIDES:
        training, held_out = (change(series(rows, f"{part}logps/{side}")) for part in ("", "eval_"))
        both_strokes(axes, training, held_out, side, colour)
    axes.set_ylabel("change (nats)")


def draw_rewards(axes: Axes, rows: Rows) -> None:
    """Draw both implicit rewards and their margin."""
    base_line(axes)
    for key, label, colour in REWARDS:
        training, held_out = (series(rows, f"{part}rewards/{key}") for part in ("", "eval_"))
        both_strokes(axes, training, held_out, label, colour)
    axes.set_ylabel("reward")


def draw_accuracy(axes: Axes, rows: Rows) -> None:
    """Draw training accuracy as it was logged, and held-out accuracy with its interval."""
    base_line(axes, 0.5)
    stroke(axes, series(rows, "rewards/accuracies"), "training", PURPLE, alpha=0.35)
    held_out = series(rows, "eval_accuracy")
    if len(held_out):
        draw_with_interval(axes, rows, held_out, BLUE)
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.02, 1.02)


def draw_with_interval(axes: Axes, rows: Rows, held_out: Series, colour: str, label: str = "") -> None:
    """Draw held-out accuracy with bars, or with a band where there are too many of them."""
    reach = np.array([_reach(rows, held_out, f"eval_accuracy_{end}", sign) for end, sign in (("low", -1), ("high", 1))])
    label = label or ("held out, with interval" if np.any(reach) else "held out")
    if len(held_out) > MOST_BARS:
        low, high = held_out.values - reach[0], held_out.values + reach[1]
        axes.fill_between(held_out.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        stroke(axes, held_out, label, colour)
        return
    look: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 3, "linewidth": 1.5, "elinewidth": 1.0}
    axes.errorbar(held_out.steps, held_out.values, yerr=reach, color=colour, label=label, **look)


def _reach(rows: Rows, line: Series, key: str, sign: int) -> NDArray[np.float64]:
    """Return how far the interval reaches from each value, 0 where none was logged."""
    ends = series(rows, key)
    found = dict(zip(ends.steps, ends.values, strict=True))
    bounds = [found.get(step, value) for step, value in zip(line.steps, line.values, strict=True)]
    return np.maximum(sign * (np.array(bounds) - line.values), 0.0)


def draw_loss(axes: Axes, rows: Rows) -> None:
    """Draw the loss."""
    training, held_out = (series(rows, f"{part}loss") for part in ("", "eval_"))
    stroke(axes, training, "training", PURPLE, alpha=0.4 if len(held_out) else 1.0)
    stroke(axes, held_out, "held out", BLUE, linestyle="--", marker="o")
    axes.set_ylabel("loss")


def draw_lengths(axes: Axes, rows: Rows) -> None:
    """Draw how long chosen and rejected completions are."""
    for side, colour in SIDES:
        both_strokes(axes, series(rows, f"length/{side}"), series(rows, f"eval_length/{side}"), side, colour)
    axes.set_ylabel("tokens a completion")
    axes.set_ylim(bottom=0)


def draw_gradient(axes: Axes, rows: Rows) -> None:
    """Draw gradient norm and learning rate."""
    left = series(rows, "grad_norm"), "gradient norm (before clipping)"
    _two_scales(axes, left, (series(rows, "learning_rate"), "learning rate"))


def draw_speed(axes: Axes, rows: Rows) -> None:
    """Draw tokens a second and the share of padding."""
    padding = series(rows, "padding_fraction")
    right = Series(padding.steps, 100 * padding.values), "padding (% of positions)"
    twin = _two_scales(axes, (series(rows, "tokens_per_second"), "tokens a second"), right)
    twin.set_ylim(0, 100)


def _two_scales(axes: Axes, left: tuple[Series, str], right: tuple[Series, str]) -> Axes:
    """Draw two series on two vertical axes, each axis in its line's colour; return the right one."""
    twin = axes.twinx()
    twin.grid(visible=False)
    twin.spines["right"].set_visible(bool(len(right[0])))
    for side, (line, label), colour, dash in ((axes, left, BLUE, "-"), (twin, right, VERMILLION, "--")):
        stroke(side, line, label, colour, linestyle=dash)
        side.set_ylabel(label, color=colour)
        side.tick_params(axis="y", labelcolor=colour)
        side.yaxis.set_visible(bool(len(line)))
        if len(line) and line.values.min() >= 0:
            side.set_ylim(bottom=0)
    return twin


def _accuracy_note(rows: Rows) -> str:
    last = series(rows, "eval_accuracy").last
    return "" if last is None else f"held out, last: {last:.3f}"


def _loss_note(rows: Rows) -> str:
    values = [row["loss"] for row in rows if is_number(row.get("loss"))]
    broken = int(np.count_nonzero(~np.isfinite(values)))
    return f"logged steps that were not finite: {broken}" if broken else ""


LOGPS = Panel(
    "log-probabilities",
    "Log-probability since the first logged step",
    both("logps/chosen", "logps/rejected"),
    draw_logps,
    change_in_words,
    "Summed over a completion, each side measured from its own first value.",
)
LENGTHS = Panel(
    "lengths",
    "Length of the pairs",
    both("length/chosen", "length/rejected"),
    draw_lengths,
    reading="Where chosen answers are longer, a model can win by length alone.",
)
PANELS = (
    LOGPS,
    Panel(
        "rewards",
        "Implicit reward",
        both(*(f"rewards/{key}" for key, *_ in REWARDS)),
        draw_rewards,
        reading="The objective's own reward; for DPO, beta times the log-ratio to the reference.",
    ),
    Panel(
        "accuracy",
        "Accuracy: share of pairs whose chosen has the higher reward",
        ("rewards/accuracies", "eval_accuracy", "eval_accuracy_low", "eval_accuracy_high"),
        draw_accuracy,
        _accuracy_note,
        "The grey line is chance.",
    ),
    Panel("loss", "Loss, mean over pairs", both("loss"), draw_loss, _loss_note),
    Panel(
        "gradient", "Gradient norm and learning rate", ("grad_norm", "learning_rate"), draw_gradient, two_scales=True
    ),
    Panel("speed", "Speed and padding", ("tokens_per_second", "padding_fraction"), draw_speed, two_scales=True),
)
"""Panels of the curves file, in the order in which they are drawn."""

PAGE_PANELS = (*PANELS[:4], LENGTHS, *PANELS[4:])
"""Panels of the page, which has room for one more."""


def panels_with_data(panels: tuple[Panel, ...], rows: Rows) -> list[Panel]:
    """Return those panels of which the run logged something."""
    return [panel for panel in panels if has(rows, panel.keys)]


def is_split(panel: Panel, rows: Rows) -> bool:
    """Return whether a panel shows training and held-out values of the same metrics."""
    held_out = [key for key in panel.keys if key.startswith("eval_") and len(series(rows, key))]
    return any(len(series(rows, key.removeprefix("eval_"))) for key in held_out)
