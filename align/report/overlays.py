"""Several runs in one figure: a colour a run, chosen solid and rejected dashed, ends of lines numbered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from align.report.look import COLOURS, RUN_COLOURS, base_line, number_ends, reach_of, steps_axis, stroke
from align.report.panels import draw_with_interval
from align.report.run_record import RunRecord, mapping
from align.report.series import Series, change, is_number, series

SOLID, DASHED = "-", "--"
CROWDED = 6
"""More runs than this have chosen and rejected drawn apart."""


def _same(line: Series) -> Series:
    return line


@dataclass(frozen=True, slots=True)
class Overlay:
    """A subject of several runs.

    Attributes:
        name: of its files.
        title: what is drawn, with ``{rows}`` for what the runs trained on.
        label: of the vertical axis.
        metrics: names as training logs them, and the dash of each.
        shown: what is done to a series before it is drawn.
        level: a value to compare with.
        bars: whether intervals are drawn, where there are few runs.
        only: ``training`` or ``held out`` for metrics of one kind; absent: held out where every run has it.
    """

    name: str
    title: str
    label: str
    metrics: tuple[tuple[str, str], ...]
    shown: Callable[[Series], Series] = _same
    level: float | None = None
    only: str = ""
    bars: bool = False

    def where(self, runs: Sequence[RunRecord]) -> str:
        """Return on which rows the runs are compared: ``held out`` where all have two evaluations or more.

        Runs that log nothing of the subject, in training or in evaluations, have no say.
        """
        if self.only:
            return self.only
        found = [[self._points(run, part) for part in ("", "eval_")] for run in runs]
        return "held out" if all(held_out > 1 for training, held_out in found if training or held_out) else "training"

    def _points(self, run: RunRecord, part: str) -> int:
        return max(len(series(run.rows, part + name)) for name, _ in self.metrics)

    def shown_by(self, runs: Sequence[RunRecord]) -> list[RunRecord]:
        """Return the runs that logged what is shown."""
        return [run for run in runs if any(len(series(run.rows, key)) for key, _ in self.keys(runs))]

    def keys(self, runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
        """Return the metrics as they are logged, with their dashes."""
        held_out = self.where(runs) == "held out"
        return [(f"eval_{name}" if held_out else name, dash) for name, dash in self.metrics]

    def has_data(self, runs: Sequence[RunRecord]) -> bool:
        """Return whether any run logged what is shown."""
        return bool(self.shown_by(runs))


def colour_of(place: int) -> str:
    """Return the name of the colour of the run at a place of the list."""
    return RUN_COLOURS[place % len(RUN_COLOURS)]


def draw_overlay(axes: Axes, runs: Sequence[RunRecord], overlay: Overlay, only: str | None = None) -> None:
    """Draw the overlay of all runs.

    Args:
        axes: to draw on.
        runs: in the order of their colours and numbers.
        overlay: what to draw.
        only: the one metric to draw, as the overlay names it; all of them where absent.
    """
    if overlay.level is not None:
        base_line(axes, overlay.level)
    held_out, ends = overlay.where(runs) == "held out", []
    wanted = [pair for pair in zip(overlay.metrics, overlay.keys(runs), strict=True) if only in (None, pair[0][0])]
    for place, run in enumerate(runs):
        colour = COLOURS[colour_of(place)]
        for _, (key, dash) in wanted:
            line = overlay.shown(series(run.rows, key))
            linestyle = SOLID if only else dash
            marker = {"marker": "o", "markersize": 3} if held_out and len(line) < 30 else {}
            if overlay.bars and len(line) and len(runs) <= CROWDED:
                draw_with_interval(axes, run.rows, key, colour, run.name)
            else:
                stroke(axes, line, run.name, colour, linestyle=linestyle, **marker)
            if len(line):
                ends.append((line.steps[-1], line.values[-1], str(place + 1), colour))
    axes.set_ylabel(overlay.label)
    axes.margins(y=0.1)  # room for the numbers
    first, last = reach_of([row["step"] for run in runs for row in run.rows])
    steps_axis(axes, (first, last + 0.05 * (last - first)))
    number_ends(axes, ends)


def draw_estimates(axes: Axes, runs: Sequence[RunRecord]) -> None:
    """Draw the reward that every run gained against its distance from the base, both with intervals."""
    base_line(axes)
    ends = []
    for place, run in enumerate(runs):
        if not has_estimates(run):
            continue
        kl, gain = run.generation["kl"], run.generation["reward"]["difference"]
        x, y = kl["value"], gain["value"]
        colour = COLOURS[colour_of(place)]
        reach: dict[str, Any] = {
            f"{side}err": [[max(e["value"] - e["low"], 0)], [max(e["high"] - e["value"], 0)]]
            for side, e in (("x", kl), ("y", gain))
        }
        axes.errorbar(x, y, **reach, color=colour, marker="o", markersize=5, elinewidth=1.0, label=run.name)
        ends.append((x, y, str(place + 1), colour))
    axes.set_xlabel("KL to the base (nats a completion)")
    axes.set_ylabel("reward gained")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    number_ends(axes, ends)


def has_estimates(run: RunRecord) -> bool:
    """Return whether a run has what :func:`draw_estimates` shows."""
    gain = mapping(mapping(run.generation.get("reward")).get("difference"))
    kl = mapping(run.generation.get("kl"))
    return all(is_number(estimate.get(end)) for estimate in (gain, kl) for end in ("value", "low", "high"))


LOGPS = Overlay(
    "log-probabilities",
    "Log-probability since the first logged step",
    "change (nats)",
    (("logps/chosen", SOLID), ("logps/rejected", DASHED)),
    change,
    0.0,
)
OVERLAYS = (
    LOGPS,
    Overlay(
        "rewards", "Implicit reward", "reward", (("rewards/chosen", SOLID), ("rewards/rejected", DASHED)), level=0.0
    ),
    Overlay("margins", "Margin of rewards", "margin", (("rewards/margins", SOLID),), level=0.0),
    Overlay("accuracy", "Held-out accuracy", "accuracy", (("accuracy", SOLID),), level=0.5, only="held out", bars=True),
    Overlay("auc", "Held-out AUC", "AUC", (("auc", SOLID),), level=0.5, only="held out", bars=True),
    Overlay("loss", "Loss, mean over {rows}", "loss", (("loss", SOLID),)),
    Overlay(
        "cosine", "Cosine of both gradients", "cosine", (("entanglement/cosine", SOLID),), level=0.0, only="training"
    ),
    Overlay(
        "both-down",
        "Share of pairs whose log-probabilities both fall",
        "share",
        (("entanglement/step_share_both_down", SOLID),),
        only="training",
    ),
    Overlay("gradient", "Gradient norm, before clipping", "norm", (("grad_norm", SOLID),), only="training"),
    Overlay("learning-rate", "Learning rate", "learning rate", (("learning_rate", SOLID),), only="training"),
    Overlay("speed", "Speed", "tokens a second", (("tokens_per_second", SOLID),), only="training"),
    Overlay("padding", "Padding", "share of positions", (("padding_fraction", SOLID),), only="training"),
    Overlay("lengths", "Length of the {rows}", "tokens", (("length/chosen", SOLID), ("length/rejected", DASHED))),
)
"""What is drawn of several runs, in this order."""
