"""``align report``: one HTML page that holds everything to look at of a run, or of several beside each other."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from align.report.charts import Chart, charts_of_run, charts_of_runs, draw_on_page, export
from align.report.console import stage
from align.report.key_figures import LOGPS_GROUP, facts, key_figures
from align.report.look import MADE_BY
from align.report.overlays import LOGPS, colour_of
from align.report.overwriting import refuse_to_overwrite
from align.report.recipe_table import differences
from align.report.run_record import RunRecord, mapping, read_runs
from align.report.samples import FIRST_SHOWN, MOST_SHOWN, beside_each_other, spaced
from align.report.words import Changes, change_in_words, changes, meaning

PAGE_FILE = "report.html"
FACTS_OF_SEVERAL = ("method", "objective", "model", "reference", "state", "time", "peak memory", "folder")
BRIEFLY = ("method", "paper", "objective", "model", "state", "time")
SECTIONS = (
    ("what-happened", "What happened", "hero"),
    ("key-figures", "Key figures", "figures"),
    ("differences", "Differences", "differing"),
    ("pictures", "Pictures", "pictures"),
    ("curves", "Curves", "charts"),
    ("samples", "Samples", "samples"),
    ("data", "Data and recipe", "runs"),
)
"""Anchor, name, and the part of the context without which a section is left out."""


def write_report(folders: Sequence[Path], out: Path | None = None, plots: Path | None = None) -> list[Path]:
    """Write the page, and where asked every chart as PNG and SVG.

    Args:
        folders: run folders; several are compared.
        out: file of the page; by default ``report.html`` in the run folder, for several runs in the working folder.
        plots: folder of the charts.

    Returns:
        The files, the page first.

    Raises:
        ValueError: a folder is no run, one of its files is broken, or a file is in the way that this did not write.
    """
    runs = read_runs(folders)
    page = out or (runs[0].path if len(runs) == 1 else Path()) / PAGE_FILE
    refuse_to_overwrite(page, MADE_BY)
    charts = charts_of_run(runs[0]) if len(runs) == 1 else charts_of_runs(runs)
    with stage("drawing"):
        html = render(runs, charts)
        pictures = [path for chart in charts for path in export(chart, plots)] if plots else []
    page.parent.mkdir(parents=True, exist_ok=True)
    partial = page.with_name(page.name + ".partial")
    partial.write_bytes(html.encode("utf-8", "replace"))
    partial.replace(page)
    return [page, *pictures]


def render(runs: Sequence[RunRecord], charts: Sequence[Chart]) -> str:
    """Return the page of the runs with their charts; everything that comes from a run is escaped."""
    environment = Environment(
        loader=PackageLoader("align.report"), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    script = environment.get_template("page.js").render().strip()
    context = _context(runs, charts) | {
        "made_by": MADE_BY,
        "version": version("align"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    context["sections"] = [(anchor, name) for anchor, name, part in SECTIONS if context[part]]
    return environment.get_template("page.html").render(context) + "\n"


def _context(runs: Sequence[RunRecord], charts: Sequence[Chart]) -> dict[str, Any]:
    single = len(runs) == 1
    seen = [_seen(run, place, single) for place, run in enumerate(runs)]
    hero = next((chart for chart in charts if chart.name == LOGPS.name), None)
    rows = [row for row in key_figures(runs) if not (single and row[0].group == LOGPS_GROUP)]  # they open the page
    figures = groupby(rows, key=lambda row: row[0].group)
    return {
        "single": single,
        "title": runs[0].name if single else f"{len(runs)} runs compared",
        "runs": seen,
        "fact_names": [name for name in FACTS_OF_SEVERAL if any(name in run["facts"] for run in seen)],
        "notes": _notes(seen, single),
        "hero": draw_on_page(hero, wide=True) if hero else None,
        "figures": [(group, list(rows)) for group, rows in figures],
        "confidence": _confidence(runs),
        "by_delong": any(measure.label == "AUC" for measure, _ in rows),
        "differing": None if single else differences([run.recipe for run in runs]),
        "pictures": [picture for run in seen for picture in run["pictures"]],
        "charts": [draw_on_page(chart) for chart in charts if chart is not hero],
        "samples": _samples(runs),
    }


def _seen(run: RunRecord, place: int, single: bool) -> dict[str, Any]:
    """Return what the page says of one run."""
    known = facts(run)
    preparation = mapping(run.summary.get("preparation")).items()
    return {
        "name": run.name,
        "number": place + 1,
        "colour": "" if single else colour_of(place),
        "of": "" if single else f", {run.name}",
        "facts": known,
        "brief": " \u00b7 ".join(known[name] for name in BRIEFLY if name in known),
        "notes": [*run.missing, *(str(note) for note in run.summary.get("notes") or [])],
        "change": change_in_words(run.rows),
        "meaning": meaning(run.rows),
        "moves": _moves(changes(run.rows)),
        "preparation": {f"{name.replace('_', '-')} data": text for name, text in preparation},
        "recipe_text": run.recipe_text,
        "pictures": [_embedded(path, "" if single else f"{run.name}: ") for path in run.pictures],
    }


def _embedded(path: Path, whose: str) -> dict[str, str]:
    """Return a picture with what it is called, in the page itself."""
    title = whose + path.stem.replace("_", " ").replace("-", " ")
    return {"title": title, "data": base64.b64encode(path.read_bytes()).decode()}


def _moves(found: Changes) -> list[tuple[str, str, str]]:
    """Return each side as the log names it, as it is called, and how far it moved."""
    return [(side, found.names[side], f"{amount:+.1f}".replace("-", "\u2212")) for side, amount in found.of.items()]


def _notes(seen: Sequence[Mapping[str, Any]], single: bool) -> list[str]:
    """Return all notes, each once, saying of which runs where it does not hold for all."""
    found: dict[str, list[str]] = {}
    for run in seen:
        for note in run["notes"]:
            found.setdefault(note, []).append(run["name"])
    shared = {note for note, names in found.items() if single or len(names) == len(seen)}
    return [note if note in shared else f"{', '.join(names)}: {note}" for note, names in found.items()]


def _confidence(runs: Sequence[RunRecord]) -> str:
    """Return the level of the intervals, where all runs agree on one."""
    levels = {mapping(run.recipe.get("evaluation")).get("confidence") for run in runs}
    level = levels.pop()
    return f"{level:.0%}" if isinstance(level, float) and not levels else ""


def _samples(runs: Sequence[RunRecord]) -> Mapping[str, Any] | None:
    rows = beside_each_other([run.samples for run in runs])
    if not rows:
        return None
    shown = spaced(rows, MOST_SHOWN)
    first = spaced(shown, FIRST_SHOWN)
    chosen = {id(row) for row in first}
    return {
        "caption": _caption(len(first), len(shown), len(rows)),
        "first": first,
        "others": [row for row in shown if id(row) not in chosen],
    }


def _caption(first: int, shown: int, total: int) -> str:
    if first == total:
        return f"All {total} samples, with the scorer's reward."
    spread = f"{first} of {total} samples, evenly spaced over the list and not picked by reward"
    return f"{spread}; {shown - first} more below." + ("" if shown == total else " The rest is in samples.jsonl.")


def _shown(value: Any) -> Any:
    """Make visible what HTML has no place for: control characters other than line ends and tabs."""
    if hasattr(value, "__html__") or not isinstance(value, str):  # markup of the templates' own
        return value
    return "".join(sign if sign >= " " or sign in "\n\t" else "\ufffd" for sign in value)
