"""Charts of one run or of several: drawn for a page, or into files, from the same strokes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from align.report import entangled, overlays
from align.report.look import COLOURS, MADE_BY, PIXELS_PER_INCH, legend, look, reach_of, save, steps_axis
from align.report.method_figures import draw_figures, figure_keys
from align.report.overlays import OVERLAYS, Overlay, draw_estimates, draw_overlay, has_estimates
from align.report.overwriting import refuse_to_overwrite
from align.report.panels import LOGPS, LOSS, Panel, is_split, panels_of
from align.report.rewards import draw_histograms, draw_rewards, has_rewards, in_words
from align.report.run_record import RunRecord
from align.report.samples import lengths
from align.report.series import Rows
from align.report.sides import sides_of
from align.report.svg import inline_svg
from align.report.tables import (
    Table,
    table_of_overlay,
    table_of_rewards,
    table_of_rows,
    table_of_series,
    table_of_values,
)

NARROW, WIDE = (4.6, 3.1), (7.6, 3.6)
"""Inches of a chart on a page, 72 pixels each: in a column or on a phone, and over half of a wide screen."""

TALL = 1.35
"""How much higher a chart of two panels is."""

_NAMES = {colour.lower(): name for name, colour in COLOURS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a legend: its text, the name of its colour, and whether it is dashed."""

    text: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart that can be drawn at any size.

    Attributes:
        name: of its files and anchors; told apart from those of all other charts of a page.
        title: what it shows.
        note: what the values come to.
        reading: how to read it.
        paint: draws on an empty figure and returns the axes that have a legend.
        table: the values behind it.
        tall: whether it has two panels, and needs more room.
    """

    name: str
    title: str
    note: str
    reading: str
    paint: Callable[[Figure], Sequence[Axes]]
    table: Table
    tall: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A chart on a page: SVG for a column, and for a wide screen where it stands out."""

    chart: Chart
    svg: str
    wide: str = ""
    entries: Sequence[Entry] = field(default_factory=list)


def charts_of_run(run: RunRecord) -> list[Chart]:
    """Return the charts of one run: what it logged, then its samples before and after."""
    found = [_of_panel(panel, run) for panel in panels_of(run.rows, page=True)]
    return _of_method(run) + found + _of_entanglement(run) + _of_samples(run)


def charts_of_runs(runs: Sequence[RunRecord]) -> list[Chart]:
    """Return the charts that show several runs together."""
    found = [_of_overlay(overlay, runs) for overlay in OVERLAYS if overlay.has_data(runs)]
    if any(has_estimates(run) for run in runs):
        found.append(_of_estimates(runs))
    return found


def draw_on_page(chart: Chart, *, wide: bool = False) -> Drawn:
    """Draw a chart for a page, at column width, and where ``wide`` also for a wide screen."""
    label = ". ".join(part for part in (chart.title, chart.note) if part)
    sizes = [NARROW, WIDE] if wide else [NARROW]
    drawn = []
    for place, (width, height) in enumerate(sizes):
        size = width, height * (TALL if chart.tall else 1)
        with look(11, svg__fonttype="none"):
            figure = Figure(figsize=size, dpi=72, layout="constrained")
            axes = chart.paint(figure)
            drawn.append(inline_svg(figure, f"{chart.name}-{place}-", label))
    return Drawn(chart=chart, svg=drawn[0], wide=drawn[1] if wide else "", entries=_entries(axes))


def export(chart: Chart, folder: Path) -> list[Path]:
    """Write a chart as PNG and SVG, with title and legend, and return the files.

    Raises:
        ValueError: a file is in the way that this did not write.
    """
    paths = [folder / f"{chart.name}.png", folder / f"{chart.name}.svg"]
    for path in paths:
        refuse_to_overwrite(path, MADE_BY)
    with look(10):
        figure = Figure(figsize=(7.6, 4.6), dpi=2 * PIXELS_PER_INCH, layout="constrained")
        axes = chart.paint(figure)
        title = "\n".join(part for part in (chart.title, chart.note) if part)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax in axes:
            legend(ax, loc="best")
        return save(figure, paths)


def _of_panel(panel: Panel, run: RunRecord) -> Chart:
    rows = run.rows

    def paint(figure: Figure) -> list[Axes]:
        axes = figure.subplots()
        panel.draw(axes, rows)
        steps_axis(axes, reach_of([row["step"] for row in rows]))
        return [] if panel.two_scales else [axes]

    split = "Dashed with dots: held out; pale: training." if is_split(panel, rows) and panel.name != "accuracy" else ""
    title = "Loss, mean over rows" if run.method and panel.name == LOSS.name else panel.title
    return Chart(
        name=panel.name,
        title=title,
        note=panel.note(rows),
        reading=" ".join(part for part in (split, panel.reading) if part),
        paint=paint,
        table=table_of_rows(rows, panel.keys),
    )


def _of_method(run: RunRecord) -> list[Chart]:
    keys = figure_keys(run)
    if not keys:
        return []
    rows = run.rows
    reach = reach_of([row["step"] for row in rows])
    return [
        Chart(
            name="figures",
            title="What evaluations said while it trained",
            note="",
            reading="The method's own figures, on data it does not train on.",
            paint=lambda figure: _over_steps(figure, rows, lambda axes, at: draw_figures(axes, at, keys), reach),
            table=table_of_rows(rows, keys),
        )
    ]


def _of_entanglement(run: RunRecord) -> list[Chart]:
    rows = run.rows
    if not entangled.measured(rows):
        return []
    reach = reach_of([row["step"] for row in rows])
    whose, found = entangled.shares(rows)
    keys = [f"{entangled.PREFIX}{name}" for name in ("cosine", "norm_ratio", "ratio", "chosen_slack", "rejected_slack")]
    charts = [
        Chart(
            name="where-both-go",
            title="Where both log-probabilities go",
            note=entangled.cases_in_words(rows),
            reading=f"Beneath: which way both of a measured pair go under {whose}, to first order.",
            paint=lambda figure: entangled.draw_where(figure, rows, LOGPS.draw, reach),
            table=table_of_series({case: line for case, line in found.items() if len(line)}),
            tall=True,
        ),
        Chart(
            name="cosine",
            title="Cosine of the two gradients, and its bounds",
            note="",
            reading="r = d_w/d_l of the objective, r* = s_l/s_w of the norms. Of the pair alone, under plain descent: "
            "between 0 and both dashed lines, chosen and rejected part.",
            paint=lambda figure: _over_steps(figure, rows, entangled.draw_cosine, reach),
            table=table_of_rows(rows, keys),
        ),
    ]
    layers = entangled.read_layers(run.path)
    if layers is not None:
        layer_map = Chart(
            name="layers",
            title="Where in the model the two gradients meet",
            note="",
            reading="What each part adds to the cosine; red pulls both the same way. The entrance is at the bottom.",
            paint=lambda figure: _without_legend(entangled.draw_layers(figure, layers)),
            table=entangled.table_of_layers(layers),
        )
        charts.append(layer_map)
    return charts


def _over_steps(
    figure: Figure, rows: Rows, draw: Callable[[Axes, Rows], None], reach: tuple[float, float]
) -> list[Axes]:
    axes = figure.subplots()
    draw(axes, rows)
    steps_axis(axes, reach)
    return [axes]


def _of_samples(run: RunRecord) -> list[Chart]:
    found, summary, tokens = [], run.generation, lengths(run.samples)
    if has_rewards(summary):
        rewards = Chart(
            name="reward",
            title="Reward of samples, before and after",
            note=f"difference {in_words(summary['reward']['difference'], '+.2f')}",
            reading="The line is the mean, the band its interval.",
            paint=lambda figure: _without_legend(draw_rewards(figure, summary)),
            table=table_of_rewards(summary),
        )
        found.append(rewards)
    if tokens["base"]:
        sizes = Chart(
            name="sample-lengths",
            title="Length of samples, before and after",
            note="",
            reading="A bar at the right end holds completions that reached the token limit.",
            paint=lambda figure: _without_legend(draw_histograms(figure, tokens, "tokens of a completion")),
            table=table_of_values(tokens),
        )
        found.append(sizes)
    return found


def _of_overlay(overlay: Overlay, runs: Sequence[RunRecord]) -> Chart:
    apart = len(runs) > overlays.CROWDED and len(overlay.metrics) > 1
    names = sides_of(*(run.rows for run in overlay.shown_by(runs)))

    def paint(figure: Figure) -> list[Axes]:
        if not apart:
            axes = figure.subplots()
            draw_overlay(axes, runs, overlay)
            return [axes]
        both = list(figure.subplots(len(overlay.metrics), 1, sharex=True, sharey=True))
        for ax, (metric, _) in zip(both, overlay.metrics, strict=True):
            draw_overlay(ax, runs, overlay, only=metric)
            ax.set_title(names[metric.split("/")[-1]], loc="left", fontsize="medium")
            ax.label_outer()
        return both[:1]

    dashes = f" Solid: {names.chosen}, dashed: {names.rejected}."
    sides = "" if apart or len(overlay.metrics) == 1 else dashes
    where = f"held-out {names.rows}" if overlay.where(runs) == "held out" else "training steps"
    return Chart(
        name=overlay.name,
        title=overlay.title.format(rows=names.rows),
        note="",
        reading=f"Of {where}.{sides}",
        paint=paint,
        table=table_of_overlay(runs, [key for key, _ in overlay.keys(runs)]),
        tall=apart,
    )


def _of_estimates(runs: Sequence[RunRecord]) -> Chart:
    def paint(figure: Figure) -> list[Axes]:
        axes = figure.subplots()
        draw_estimates(axes, runs)
        return [axes]

    heads, ends = ("run", "KL", "low", "high", "reward gained", "low", "high"), ("value", "low", "high")
    shown = [run for run in runs if has_estimates(run)]
    estimates = [(run.generation["kl"], run.generation["reward"]["difference"]) for run in shown]
    cells = [[estimate[end] for estimate in pair for end in ends] for pair in estimates]
    rows = [(run.name, *values) for run, values in zip(shown, cells, strict=True)]
    return Chart(
        name="reward-against-kl",
        title="Reward gained against distance from the base",
        note="",
        reading="Up is gain, right is cost. Bars are intervals.",
        paint=paint,
        table=Table.of(heads, rows),
    )


def _without_legend(axes: Sequence[Axes]) -> list[Axes]:
    return []


def _entries(axes: Sequence[Axes]) -> list[Entry]:
    found = []
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            line: Any = getattr(handle, "lines", [handle])[0]
            dashed = line.get_linestyle() in ("--", "dashed")
            found.append(Entry(text, _NAMES.get(to_hex(line.get_color()), "ink"), dashed))
    return found
