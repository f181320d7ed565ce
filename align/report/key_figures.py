"""The figures of a run that people look for first, each with its interval where it has one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.report.entangled import PREFIX
from align.report.run_record import RunRecord, mapping
from align.report.series import is_number, series
from align.report.sides import sides_of
from align.report.words import SIDES, changes


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is shown: the value, and how far it can be trusted."""

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure and where it comes from.

    Attributes:
        group: figures of one group stand together.
        label: what it is called.
        hint: what it means and in which unit.
        read: from a run to its figure; None where the run has none.
    """

    group: str
    label: str
    hint: str
    read: Callable[[RunRecord], Cell | None]


def key_figures(runs: Sequence[RunRecord]) -> list[tuple[Measure, list[Cell | None]]]:
    """Return every figure that at least one of the runs has, with a cell for each run."""
    names = sides_of(*(run.rows for run in runs))
    measures = [_change(side, names[side]) for side in SIDES] + list(MEASURES) + _of_methods(runs)
    table = [(measure, [measure.read(run) for run in runs]) for measure in measures]
    return [(measure, cells) for measure, cells in table if any(cells)]


def facts(run: RunRecord) -> dict[str, str]:
    """Return what a run was: objective, reference, model, state, cost, versions; what is not known is left out."""
    summary, training = run.summary, mapping(run.summary.get("train"))
    counts = {noun: training.get(noun) for noun in ("pairs", "completions")}
    found = {
        "method": run.method,
        "paper": _text(summary.get("paper")),
        "objective": _objective(run),
        "model": _text(mapping(run.recipe.get("model")).get("path")),
        "reference": _text(summary.get("reference") or mapping(run.recipe.get("model")).get("reference")),
        "state": state(run),
        **{f"{noun} trained on": f"{n:,}" for noun, n in counts.items() if isinstance(n, int)},
        "time": duration(summary["seconds"]) if is_number(summary.get("seconds")) else "",
        "peak memory": _form(summary.get("peak_memory_gib"), "{:.2f} GiB"),
        "precision": _text(summary.get("precision")),
        "versions": ", ".join(f"{name} {version}" for name, version in mapping(summary.get("versions")).items()),
        "folder": str(run.path),
    }
    return {name: text for name, text in found.items() if text}


def state(run: RunRecord) -> str:
    """Return whether the run is finished, and at which step it stands.

    A run without a summary may still be training; its folder does not say.
    """
    if run.finished:
        return f"finished, {run.steps:,} steps"
    planned = mapping(run.recipe.get("trainer")).get("max_steps")
    of = f" of {planned:,}" if isinstance(planned, int) and planned > 0 else ""
    return f"unfinished: last logged step {run.steps:,}{of}"


def duration(seconds: float) -> str:
    """Return a time for people.

    Examples:
        >>> [duration(seconds) for seconds in (4.26, 286.6, 7322)]
        ['4.3 s', '4 min 47 s', '2 h 2 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _objective(run: RunRecord) -> str:
    settings = dict(mapping(run.recipe.get("objective")))
    name = str(run.summary.get("objective") or settings.get("name") or settings.get("formula") or "")
    details = ", ".join(f"{key} {value}" for key, value in settings.items() if key not in ("name", "file", "formula"))
    return f"{name} ({details})" if name and details else name


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _form(value: object, form: str) -> str:
    return form.format(value) if is_number(value) else ""


def _change(side: str, name: str) -> Measure:
    def read(run: RunRecord) -> Cell | None:
        found = changes(run.rows)
        return Cell(f"{found.of[side]:+.1f}", found.where) if side in found.of else None

    label = f"{name[0].upper()}{name[1:]}, change"
    return Measure(LOGPS_GROUP, label, "nats a completion, first to last logged step", read)


def _held_out(key: str, form: str = "{:.3f}", more: str = "", beside: str = "") -> Callable[[RunRecord], Cell | None]:
    """Return a reader of a figure of the last evaluation.

    Args:
        key: its name.
        form: how it is written.
        more: another figure, shown beside it.
        beside: a figure without which this one is something else.
    """

    def read(run: RunRecord) -> Cell | None:
        values = run.held_out
        if not is_number(values.get(key)) or (beside and beside not in values):
            return None
        aside = more.format(pairs=values.get(f"{key}_pairs")) if is_number(values.get(f"{key}_pairs")) else ""
        return Cell(form.format(values[key]), _between(values, f"{key}_low", f"{key}_high", form) or aside)

    return read


def _of_methods(runs: Sequence[RunRecord]) -> list[Measure]:
    """Return the figures that methods of the wings say of themselves, by their own names."""
    names = dict.fromkeys(name for run in runs for name in mapping(run.summary.get("figures")))
    return [Measure(_METHOD, name.replace("_", " "), "", _own_figure(name)) for name in names]


def _own_figure(name: str) -> Callable[[RunRecord], Cell | None]:
    def read(run: RunRecord) -> Cell | None:
        value = mapping(run.summary.get("figures")).get(name)
        return Cell(f"{value:.4g}") if is_number(value) else None

    return read


def _estimate(*path: str, form: str = "{:.3f}") -> Callable[[RunRecord], Cell | None]:
    def read(run: RunRecord) -> Cell | None:
        values: Mapping[str, Any] = run.generation
        for key in path:
            values = mapping(values.get(key))
        if not is_number(values.get("value")):
            return None
        return Cell(form.format(values["value"]), _between(values, "low", "high", form))

    return read


def _before_after(key: str, form: str = "{:.3f}") -> Callable[[RunRecord], Cell | None]:
    def read(run: RunRecord) -> Cell | None:
        values = mapping(run.generation.get(key))
        if not is_number(values.get("base")) or not is_number(values.get("aligned")):
            return None
        return Cell(f"{form.format(values['base'])} \u2192 {form.format(values['aligned'])}")

    return read


def _kl_per_token(run: RunRecord) -> Cell | None:
    value = mapping(run.generation.get("kl")).get("per_token")
    return Cell(f"{value:.3f}") if is_number(value) else None


def _between(values: Mapping[str, Any], low: str, high: str, form: str) -> str:
    if not is_number(values.get(low)) or not is_number(values.get(high)):
        return ""
    return f"[{form.format(values[low])}, {form.format(values[high])}]"


def _labels(run: RunRecord) -> Cell | None:
    counts = [run.held_out.get(f"eval_{label}") for label in ("desirable", "undesirable")]
    return (
        Cell(" + ".join(f"{count:,.0f}" for count in counts if is_number(count)))
        if all(map(is_number, counts))
        else None
    )


def _entangled(name: str, form: str) -> Callable[[RunRecord], Cell | None]:
    """Return a reader of what was measured of pairs: the mean over the run, and the last."""

    def read(run: RunRecord) -> Cell | None:
        line = series(run.rows, f"{PREFIX}{name}")
        return Cell(form.format(line.values.mean()), f"last {form.format(line.last)}") if len(line) else None

    return read


_ENTANGLED = "Entanglement, measured pairs"
LOGPS_GROUP, _ACCURACY, _GAIN, _COST = "Log-probability", "Held-out pairs", "Samples: gained", "Samples: paid"
_AUC = "Held-out completions"
_METHOD = "Figures of the method"
_SIGNED = "{:+.3f}"
MEASURES = (
    Measure(
        _ACCURACY,
        "Accuracy",
        "share of pairs whose chosen has the higher reward; a tie is half",
        _held_out("eval_accuracy"),
    ),
    Measure(
        _ACCURACY,
        "\u201cLonger wins\u201d",
        "accuracy of a judge that prefers the longer answer",
        _held_out("eval_accuracy_longer_wins"),
    ),
    Measure(
        _ACCURACY,
        "Accuracy, length-matched",
        "on pairs of about equal length",
        _held_out("eval_accuracy_length_matched", more="{pairs:.0f} pairs"),
    ),
    Measure(
        _ACCURACY,
        "Margin",
        "mean of chosen minus rejected reward",
        _held_out("eval_margin", _SIGNED, beside="eval_accuracy"),
    ),
    Measure(
        _AUC,
        "AUC",
        "how often a desirable one has a higher reward than an undesirable one; a tie is half",
        _held_out("eval_auc"),
    ),
    Measure(
        _AUC,
        "Margin of means",
        "mean reward of desirable minus that of undesirable ones",
        _held_out("eval_margin", _SIGNED, beside="eval_auc"),
    ),
    Measure(_AUC, "Completions", "desirable + undesirable", _labels),
    Measure(
        _ENTANGLED, "Cosine", "of chosen and rejected gradient; mean over the run", _entangled("cosine", "{:+.2f}")
    ),
    Measure(_ENTANGLED, "s_l / s_w", "norm of the rejected over the chosen", _entangled("norm_ratio", "{:.2f}")),
    Measure(
        _ENTANGLED,
        "Both fall",
        "share of pairs, under the optimiser's own step",
        _entangled("step_share_both_down", "{:.0%}"),
    ),
    Measure(_GAIN, "Reward, base", "mean of the scorer's reward", _estimate("reward", "base", form=_SIGNED)),
    Measure(_GAIN, "Reward, aligned", "on the same prompts", _estimate("reward", "aligned", form=_SIGNED)),
    Measure(_GAIN, "Reward, difference", "paired by prompt", _estimate("reward", "difference", form=_SIGNED)),
    Measure(_GAIN, "Win rate", "aligned over base by reward; a tie is half", _estimate("win_rate")),
    Measure(_COST, "KL to the base", "nats a completion, Monte-Carlo estimate", _estimate("kl", form="{:.2f}")),
    Measure(_COST, "KL a token", "nats", _kl_per_token),
    Measure(_COST, "Distinct-2", "share of distinct word pairs, base \u2192 aligned", _before_after("distinct_2")),
    Measure(_COST, "Repetition", "share of word triples said before, base \u2192 aligned", _before_after("repetition")),
    Measure(_COST, "Length", "mean tokens, base \u2192 aligned", _before_after("length_tokens", "{:.1f}")),
    Measure(_COST, "Ended by itself", "share of completions, base \u2192 aligned", _before_after("ended")),
)
"""What is shown of a run, in this order."""
