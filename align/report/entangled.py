"""Pictures of gradient entanglement over a run: which way pairs go, the cosine between its bounds, a map of layers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from align.report.look import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, base_line, steps_axis, stroke
from align.report.samples import spaced
from align.report.series import Rows, Series, series
from align.report.tables import Table

PREFIX = "entanglement/"
LAYERS_FILE = "entanglement.jsonl"
"""What a run writes of the parts of its model, a measured step a line."""
CASE_LOOK = {
    "ideal": ("chosen up, rejected down", GREEN),
    "both_down": ("both down", VERMILLION),
    "both_up": ("both up", SKY),
    "reversed": ("chosen down, rejected up", PURPLE),
}
"""What each case is called in pictures, and its colour."""
LEVELS = 41
"""Colours of a layer map: fewer than matplotlib turns into a bitmap in a colour bar, which a page does not show."""
MOST_COLUMNS = 40
"""Steps of a layer map; more are thinned evenly."""


def measured(rows: Rows) -> bool:
    """Return whether a run logged entanglement."""
    return bool(len(series(rows, f"{PREFIX}cosine")))


def shares(rows: Rows) -> tuple[str, dict[str, Series]]:
    """Return whose step the cases are of, and the share of pairs in each: the optimiser's own where it was logged."""
    for prefix, whose in (("step_share_", "the optimiser's own step"), ("share_", "plain descent on the pair alone")):
        found = {case: series(rows, f"{PREFIX}{prefix}{case}") for case in CASE_LOOK}
        if any(map(len, found.values())):
            return whose, found
    return "", {}


def cases_in_words(rows: Rows) -> str:
    """Return the mean shares of a run, as ``both down in 62 % of measured pairs, ideal in 38 %``; empty for none."""
    _, found = shares(rows)
    means = {case: float(line.values.mean()) for case, line in found.items() if len(line)}
    told = sorted(((share, case) for case, share in means.items() if share >= 0.005), reverse=True)
    names = {"ideal": "parting", "both_down": "both down", "both_up": "both up", "reversed": "the wrong way"}
    parts = [f"{names[case]} in {100 * share:.0f} %" for share, case in told]
    return ", ".join([f"{parts[0]} of measured pairs", *parts[1:]]) if parts else ""


def draw_cases(axes: Axes, rows: Rows) -> None:
    """Draw the shares of cases over steps, one on top of the other."""
    _, found = shares(rows)
    lines = {case: line for case, line in found.items() if len(line)}
    if not lines:
        return
    steps = next(iter(lines.values())).steps
    width = float(np.median(np.diff(steps))) * 0.9 if len(steps) > 1 else 0.8
    bottom = np.zeros(len(steps))
    for case, (label, colour) in CASE_LOOK.items():
        if case not in lines:
            continue
        height = np.interp(steps, lines[case].steps, lines[case].values)
        axes.bar(steps, 100 * height, width, bottom=100 * bottom, color=colour, linewidth=0)
        if height.any():
            axes.plot([], [], color=colour, linewidth=5, label=label)
        bottom = bottom + height
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of pairs")


def draw_cosine(axes: Axes, rows: Rows) -> None:
    """Draw the cosine, and what it must not pass for the chosen to rise and for the rejected to fall."""
    base_line(axes)
    cosine = series(rows, f"{PREFIX}cosine")
    for side, colour, label in (
        ("chosen", BLUE, "r/r*: above it the chosen falls"),
        ("rejected", ORANGE, "r*/r: above it the rejected rises"),
    ):
        bound = _plus(cosine, series(rows, f"{PREFIX}{side}_slack"))
        stroke(axes, bound, label, colour, linestyle="--")
    stroke(axes, cosine, "cosine", INK)
    low = min([-0.1, *cosine.values]) if len(cosine) else -0.1
    axes.set_ylim(low - 0.05, 2.0)
    axes.set_ylabel("cosine of the two gradients")


def _plus(one: Series, other: Series) -> Series:
    known = dict(zip(one.steps, one.values, strict=True))
    steps = [step for step in other.steps if step in known]
    values = [known[s] + v for s, v in zip(other.steps, other.values, strict=True) if s in known]
    return Series(np.array(steps, float), np.array(values, float))


@dataclass(frozen=True, slots=True, eq=False)
class LayerMap:
    """What each part of a model contributes to the cosine, over measured steps.

    Attributes:
        steps: optimiser steps, from 0.
        parts: of the model, from its entrance on.
        shares: of parts by steps; a column sums to the step's ``<w,l> / (s_w s_l)``, of mean products.
    """

    steps: Sequence[int]
    parts: Sequence[str]
    shares: NDArray[np.float64]


def read_layers(run: Path) -> LayerMap | None:
    """Return the map of a run folder; None where nothing was measured. A torn last line is passed over."""
    file = run / LAYERS_FILE
    if not file.is_file():
        return None
    found: dict[int, dict[str, list[list[float]]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            found[int(entry["step"])] = dict(entry["layers"])
        except (ValueError, KeyError, TypeError):
            continue
    if not found:
        return None
    steps = spaced(sorted(found), MOST_COLUMNS)
    parts = list(found[steps[0]])
    products = np.array([[found[step].get(part, [[0, 0], [0, 0]]) for step in steps] for part in parts], dtype=float)
    norms = np.sqrt(np.maximum(products[:, :, 0, 0].sum(0) * products[:, :, 1, 1].sum(0), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return LayerMap(steps, parts, np.nan_to_num(products[:, :, 0, 1] / norms))


def draw_layers(figure: Figure, found: LayerMap) -> list[Axes]:
    """Draw the map: the entrance of the model at the bottom."""
    axes = figure.subplots()
    axes.grid(visible=False)
    most = float(np.abs(found.shares).max()) or 1.0
    edges = np.arange(len(found.steps) + 1) - 0.5
    colours = mpl.colormaps["RdBu_r"].resampled(LEVELS)
    shown = axes.pcolormesh(edges, np.arange(len(found.parts) + 1), found.shares, cmap=colours, vmin=-most, vmax=most)
    every = -(-len(found.parts) // 12)
    last = len(found.parts) - 1
    places = [i for i in range(len(found.parts)) if i == last or (i % every == 0 and last - i >= every)]
    axes.set_yticks([i + 0.5 for i in places], [found.parts[i] for i in places])
    shown_steps = spaced(list(range(len(found.steps))), 6)
    axes.set_xticks(shown_steps, [str(found.steps[i]) for i in shown_steps])
    axes.set_xlabel("optimiser step")
    figure.colorbar(shown, ax=axes, label="part of the cosine")
    return [axes]


def table_of_layers(found: LayerMap) -> Table:
    """Return the map as numbers, a row a part."""
    rows = [(part, *row) for part, row in zip(found.parts, found.shares.tolist(), strict=True)]
    return Table.of(("part of the model", *(f"step {step}" for step in found.steps)), rows)


def draw_where(
    figure: Figure, rows: Rows, draw_above: Callable[[Axes, Rows], None], reach: tuple[float, float]
) -> list[Axes]:
    """Draw both log-probabilities, and beneath them the shares of cases, over the same steps."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    draw_above(above, rows)
    draw_cases(below, rows)
    steps_axis(below, reach)
    return [above, below]
