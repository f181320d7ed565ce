"""What is drawn of one run over its steps, a panel a subject.

Chosen and rejected are always two lines: a margin that grows can hide a chosen log-probability that falls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from align.report.look import BLUE, GREEN, PURPLE, VERMILLION, base_line, both_strokes, stroke
from align.report.series import Rows, Series, change, has, is_number, series
from align.report.sides import is_unpaired, sides_of
from align.report.words import change_in_words

SIDES = (("chosen", BLUE), ("rejected", VERMILLION))
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
    names = sides_of(rows)
    for side, colour in SIDES:
        training, held_out = (change(series(rows, f"{part}logps/{side}")) for part in ("", "eval_"))
        both_strokes(axes, training, held_out, names[side], colour)
    axes.set_ylabel("change (nats)")


def draw_rewards(axes: Axes, rows: Rows) -> None:
    """Draw both implicit rewards and their margin; of single completions, the held-out margin of means."""
    base_line(axes)
    names = sides_of(rows)
    for side, colour in SIDES:
        training, held_out = (series(rows, f"{part}rewards/{side}") for part in ("", "eval_"))
        both_strokes(axes, training, held_out, names[side], colour)
    margin = "eval_margin" if is_unpaired(rows) else "eval_rewards/margins"
    both_strokes(axes, series(rows, "rewards/margins"), series(rows, margin), "margin", GREEN)
    axes.set_ylabel("reward")


def draw_accuracy(axes: Axes, rows: Rows) -> None:
    """Draw training accuracy as it was logged, and held-out accuracy with its interval."""
    base_line(axes, 0.5)
    stroke(axes, series(rows, "rewards/accuracies"), "training", PURPLE, alpha=0.35)
    draw_with_interval(axes, rows, "eval_accuracy", BLUE)
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.02, 1.02)


def draw_auc(axes: Axes, rows: Rows) -> None:
    """Draw the held-out area under the ROC curve with its interval."""
    base_line(axes, 0.5)
    draw_with_interval(axes, rows, "eval_auc", BLUE)
    axes.set_ylabel("AUC")
    axes.set_ylim(-0.02, 1.02)


def draw_reference_point(axes: Axes, rows: Rows) -> None:
    """Draw the mean log-ratio of completions of other prompts."""
    base_line(axes)
    both_strokes(axes, series(rows, "kl"), series(rows, "eval_kl"), "other prompts", PURPLE)
    axes.set_ylabel("log-ratio (nats)")


def draw_with_interval(axes: Axes, rows: Rows, key: str, colour: str, label: str = "") -> None:
    """Draw a held-out share with bars, or with a band where there are too many of them; nothing where it is absent."""
    held_out = series(rows, key)
    if not len(held_out):
        return
    reach = np.array([_reach(rows, held_out, f"{key}_{end}", sign) for end, sign in (("low", -1), ("high", 1))])
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
    names = sides_of(rows)
    for side, colour in SIDES:
        both_strokes(axes, series(rows, f"length/{side}"), series(rows, f"eval_length/{side}"), names[side], colour)
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


def _last_of(key: str) -> Callable[[Rows], str]:
    def note(rows: Rows) -> str:
        last = series(rows, key).last
        return "" if last is None else f"held out, last: {last:.3f}"

    return note


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
REWARDS = Panel(
    "rewards",
    "Implicit reward",
    both("rewards/chosen", "rewards/rejected", "rewards/margins"),
    draw_rewards,
    reading="The objective's own reward; for DPO, beta times the log-ratio to the reference.",
)
LOSS = Panel("loss", "Loss, mean over pairs", both("loss"), draw_loss, _loss_note)
PANELS = (
    LOGPS,
    REWARDS,
    Panel(
        "accuracy",
        "Accuracy: share of pairs whose chosen has the higher reward",
        ("rewards/accuracies", "eval_accuracy", "eval_accuracy_low", "eval_accuracy_high"),
        draw_accuracy,
        _last_of("eval_accuracy"),
        "The grey line is chance.",
    ),
    LOSS,
    Panel(
        "gradient", "Gradient norm and learning rate", ("grad_norm", "learning_rate"), draw_gradient, two_scales=True
    ),
    Panel("speed", "Speed and padding", ("tokens_per_second", "padding_fraction"), draw_speed, two_scales=True),
)
"""Panels of the curves file, in the order in which they are drawn."""

PAGE_PANELS = (*PANELS[:4], LENGTHS, *PANELS[4:])
"""Panels of the page, which has room for one more."""

UNPAIRED_PANELS = (
    replace(LOGPS, reading="Summed over a completion, each label measured from its own first value."),
    replace(
        REWARDS,
        keys=(*both("rewards/chosen", "rewards/rejected"), "eval_margin"),
        reading="The objective's own reward. Margin: mean of the desirable minus mean of the undesirable.",
    ),
    Panel(
        "auc",
        "AUC: share of desirable-undesirable couples ranked right",
        ("eval_auc", "eval_auc_low", "eval_auc_high"),
        draw_auc,
        _last_of("eval_auc"),
        "By reward, over all couples of a desirable and an undesirable held-out completion, also of other prompts. The "
        "grey line is chance.",
    ),
    replace(LOSS, title="Loss, mean over completions"),
    *PANELS[4:],
)
"""Panels of the curves file of a run on single completions."""

REFERENCE_POINT = Panel(
    "reference-point",
    "Reference point: mean log-ratio of completions of other prompts",
    both("kl"),
    draw_reference_point,
    reading="What the objective compares log-ratios with; below 0 it counts as 0.",
)
UNPAIRED_PAGE_PANELS = (
    *UNPAIRED_PANELS[:4],
    REFERENCE_POINT,
    replace(
        LENGTHS,
        title="Length of the completions",
        reading="Where desirable answers are longer, a model can win by length alone.",
    ),
    *UNPAIRED_PANELS[4:],
)
"""Panels of the page of such a run."""


def panels_of(rows: Rows, *, page: bool = False) -> list[Panel]:
    """Return those panels of which the run logged something, for the page or for the curves file."""
    on_page, in_file = (UNPAIRED_PAGE_PANELS, UNPAIRED_PANELS) if is_unpaired(rows) else (PAGE_PANELS, PANELS)
    panels: Sequence[Panel] = on_page if page else in_file
    return [panel for panel in panels if has(rows, panel.keys)]


def is_split(panel: Panel, rows: Rows) -> bool:
    """Return whether a panel shows training and held-out values of the same metrics."""
    held_out = [key for key in panel.keys if key.startswith("eval_") and len(series(rows, key))]
    return any(len(series(rows, key.removeprefix("eval_"))) for key in held_out)
