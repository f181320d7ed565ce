"""Pictures of a table of entanglement: histograms of one model's pairs, curves over several checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from align.report.entangled import CASE_LOOK
from align.report.look import (
    BLUE,
    COLOURS,
    MADE_BY,
    ORANGE,
    PIXELS_PER_INCH,
    VERMILLION,
    base_line,
    legend,
    look,
    save,
)
from align.report.overwriting import refuse_to_overwrite


def draw_histograms(rows: Sequence[Mapping[str, Any]], title: str, paths: Sequence[Path]) -> list[Path]:
    """Draw how cosines, norm ratios and cases are distributed over pairs, and return the files.

    Raises:
        ValueError: a file is in the way that this did not write.
    """
    _refuse(paths)
    with look(10):
        figure = Figure(figsize=(10.5, 3.6), dpi=PIXELS_PER_INCH, layout="constrained")
        cosine, norms, cases = figure.subplots(1, 3)
        _histogram(cosine, [row["cosine"] for row in rows], "cosine of the two gradients", (-1.0, 1.0))
        base_line_down(cosine, 0.0)
        _histogram(norms, [row["norm_ratio"] for row in rows], "s_l / s_w (rejected over chosen norm)", None)
        base_line_down(norms, 1.0)
        for name, (label, colour) in CASE_LOOK.items():
            share = float(np.mean([row["case"] == name for row in rows]))
            cases.barh(label, 100 * share, color=colour)
            cases.annotate(f"{share:.0%}", (100 * share, label), xytext=(4, 0), textcoords="offset points", va="center")
        cases.invert_yaxis()
        cases.set_xlim(0, 115)
        cases.set_xlabel("% of pairs, a step of plain descent")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return save(figure, list(paths))


def draw_checkpoints(summaries: Mapping[str, Mapping[str, Any]], title: str, paths: Sequence[Path]) -> list[Path]:
    """Draw cosine, log-probabilities and cases over checkpoints, in the order given, and return the files.

    Raises:
        ValueError: a file is in the way that this did not write.
    """
    _refuse(paths)
    names, found = list(summaries), list(summaries.values())
    places = np.arange(len(names))
    with look(10):
        figure = Figure(figsize=(10.5, 3.8), dpi=PIXELS_PER_INCH, layout="constrained")
        cosine, logps, cases = figure.subplots(1, 3)
        base_line(cosine)
        for key, colour, label in (("cosine_mean", BLUE, "cosine"), ("norm_ratio_mean", ORANGE, "s_l / s_w")):
            cosine.plot(places, [one[key] for one in found], color=colour, marker="o", label=label)
        base_line(logps)
        for side, colour in (("chosen", BLUE), ("rejected", VERMILLION)):
            values = np.array([one[f"logps_{side}_mean"] for one in found])
            logps.plot(places, values - values[0], color=colour, marker="o", label=side)
        logps.set_ylabel("log-probability, change (nats)")
        below = np.zeros(len(names))
        for name, (label, colour) in CASE_LOOK.items():
            share = 100 * np.array([one[f"share_{name}"] for one in found])
            cases.bar(places, share, 0.8, bottom=below, color=colour, label=label)
            below += share
        cases.set_ylabel("% of pairs, a step of plain descent")
        for axes in (cosine, logps, cases):
            axes.set_xticks(places, names, rotation=45, ha="right")
            legend(axes, loc="best")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return save(figure, list(paths))


def base_line_down(axes: Axes, at: float) -> None:
    """Draw a level on the horizontal axis that values are compared with."""
    axes.axvline(at, color=COLOURS["ink"], linewidth=0.9)


def _histogram(axes: Axes, values: Sequence[float | None], label: str, reach: tuple[float, float] | None) -> None:
    known = np.array([value for value in values if value is not None], dtype=float)
    axes.hist(known, bins=40 if len(known) > 100 else 20, range=reach, color=BLUE, alpha=0.85)
    if len(known):
        axes.axvline(float(known.mean()), color=ORANGE, linewidth=1.5, label=f"mean {known.mean():.2f}")
        legend(axes, loc="best")
    axes.set_xlabel(label)
    axes.set_ylabel("pairs")


def _refuse(paths: Sequence[Path]) -> None:
    for path in paths:
        refuse_to_overwrite(path, MADE_BY)
