"""What several objectives gain and cost in one figure: reward against KL, chosen drift against rejected drift.

A colour is an objective, a marker a strength; seeds of one setting share both. The axis of KL is drawn by square roots,
as by Gao, Schulman and Hilton (2023, arXiv 2210.10760), so that runs close to the base model lie apart too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from align.report.look import COLOURS, FAINT, GREY, INK, PIXELS_PER_INCH, RUN_COLOURS, base_line, look, save

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Of strengths, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run as a point of both panels.

    Attributes:
        objective: its name, which is its colour.
        strength: the name of its setting, which is its marker.
        reward: mean reward of its samples: ``value``, ``low``, ``high``.
        kl: KL to the base model, in nats a completion: ``value``, ``low``, ``high``.
        chosen: change of the held-out chosen log-probability over training, in nats; None where it is not known.
        rejected: the same of the rejected one.
    """

    objective: str
    strength: str
    reward: Mapping[str, float]
    kl: Mapping[str, float]
    chosen: float | None = None
    rejected: float | None = None


def draw_frontier(outcomes: Sequence[Outcome], base: float, paths: Sequence[Path]) -> list[Path]:
    """Draw both panels into every path, by its ending.

    Args:
        outcomes: the runs; objectives and strengths are shown in the order in which they first come.
        base: mean reward of the base model's samples.
        paths: files to write.

    Returns:
        The files.

    Raises:
        ValueError: there are no runs, or more objectives or strengths than there are colours or markers.
    """
    colours, markers = _styles(outcomes)
    with look():
        figure = Figure(figsize=(12, 5.6), dpi=PIXELS_PER_INCH, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_rewards(left, outcomes, base, colours, markers)
        _draw_drifts(right, outcomes, colours, markers)
        handles = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
        handles += [
            Line2D([], [], color=INK, marker=marker, markersize=5, linestyle="", label=name)
            for name, marker in markers.items()
        ]
        handles.append(Line2D([], [], color=INK, marker="*", markersize=11, linestyle="", label="base model"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small", frameon=False)
        return save(figure, list(paths))


def _styles(outcomes: Sequence[Outcome]) -> tuple[dict[str, str], dict[str, str]]:
    if not outcomes:
        raise ValueError("there are no runs to draw")
    objectives = list(dict.fromkeys(outcome.objective for outcome in outcomes))
    strengths = list(dict.fromkeys(outcome.strength for outcome in outcomes))
    if len(objectives) > len(RUN_COLOURS) or len(strengths) > len(MARKERS):
        raise ValueError(f"at most {len(RUN_COLOURS)} objectives and {len(MARKERS)} strengths can be told apart")
    colours = {name: COLOURS[colour] for name, colour in zip(objectives, RUN_COLOURS, strict=False)}
    return colours, dict(zip(strengths, MARKERS, strict=False))


def _draw_rewards(
    axes: Axes, outcomes: Sequence[Outcome], base: float, colours: Mapping[str, str], markers: Mapping[str, str]
) -> None:
    base_line(axes, base)
    for outcome in outcomes:
        axes.errorbar(
            outcome.kl["value"],
            outcome.reward["value"],
            xerr=_reach(outcome.kl),
            yerr=_reach(outcome.reward),
            color=colours[outcome.objective],
            marker=markers[outcome.strength],
            markersize=6,
            elinewidth=0.8,
            ecolor=(colours[outcome.objective], 0.45),
        )
    axes.plot(0, base, color=INK, marker="*", markersize=12, zorder=3)
    axes.set_xscale("function", functions=(_signed_root, _signed_square))
    axes.set_xlim(left=min(-0.02, *(outcome.kl["low"] for outcome in outcomes)))
    axes.set_xlabel("KL to the base model (nats a completion, square-root scale)")
    axes.set_ylabel("mean reward of samples for held-out prompts")
    axes.set_title("Reward against distance", loc="left", fontsize=10.5)


def _draw_drifts(
    axes: Axes, outcomes: Sequence[Outcome], colours: Mapping[str, str], markers: Mapping[str, str]
) -> None:
    chosen_seen, rejected_seen = [], []
    for outcome in outcomes:
        if outcome.chosen is None or outcome.rejected is None:
            continue
        colour, marker = colours[outcome.objective], markers[outcome.strength]
        axes.plot(outcome.rejected, outcome.chosen, color=colour, marker=marker, markersize=6)
        chosen_seen.append(outcome.chosen)
        rejected_seen.append(outcome.rejected)
    axes.plot(0, 0, color=INK, marker="*", markersize=12, zorder=3)
    (left, right), (low, high) = _ends(rejected_seen), _ends(chosen_seen)
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    axes.axhline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.fill_between([left, 0], low, 0, color=FAINT, alpha=0.3, linewidth=0, zorder=0)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    note: dict[str, Any] = {"color": INK, "fontsize": "small", "xycoords": "axes fraction"}
    axes.annotate("both fall", (0.0, 0.0), xytext=(6, 6), textcoords="offset points", **note)
    axes.set_xlabel("change of the rejected log-probability (nats)")
    axes.set_ylabel("change of the chosen log-probability (nats)")
    title = "Held-out pairs over training\nabove the dashed diagonal the margin grew"
    axes.set_title(title, loc="left", fontsize=10.5)


def _reach(estimate: Mapping[str, float]) -> list[list[float]]:
    """Return an interval as lengths of the two halves of its bar."""
    return [[max(estimate["value"] - estimate["low"], 0)], [max(estimate["high"] - estimate["value"], 0)]]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows the values and 0, with room, and not less than a nat on either side."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = 0.08 * (max(high, 0) - min(low, 0))
    return min(low - room, -1.0), max(high + room, 1.0)


def _signed_root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return roots; estimates of KL can come out below 0."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.square(values)
