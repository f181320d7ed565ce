"""A run folder read back into one record, whole or unfinished."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.recipe.errors import Origin
from align.recipe.yaml_tree import plain, read_yaml
from align.report.metrics_file import METRICS_FILE, logged_rows
from align.report.samples import SAMPLES_FILE, Sample, read_samples
from align.report.series import Rows

RECIPE_FILE, SUMMARY_FILE = "recipe.yaml", "summary.json"
PICTURES_FOLDER = "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run folder holds.

    Attributes:
        path: the folder, absolute.
        name: what the run is called on the page; told apart from others by parent folders where need be.
        rows: logged metrics, a mapping a line; empty where nothing was logged yet.
        summary: of a finished run; empty where there is none.
        recipe: the resolved recipe as plain data; empty where there is none.
        recipe_text: the same as YAML.
        samples: completions of both models.
        missing: a sentence for everything that a page would show and this folder lacks.
    """

    path: Path
    name: str
    rows: Rows
    summary: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_text: str
    samples: Sequence[Sample]
    missing: Sequence[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary)

    @property
    def method(self) -> str:
        """The method of the wings that it is a run of; empty for preference training."""
        return str(self.recipe.get("method") or self.summary.get("method") or "")

    @property
    def pictures(self) -> list[Path]:
        """Pictures that the run drew of itself."""
        return sorted((self.path / PICTURES_FOLDER).glob("*.png"))

    @property
    def generation(self) -> Mapping[str, Any]:
        """Figures of samples before and after; empty where none were taken."""
        return mapping(self.summary.get("generation"))

    @property
    def held_out(self) -> Mapping[str, Any]:
        """Figures of the last evaluation, of the summary or of the log; empty where there was none."""
        logged = next((row for row in reversed(self.rows) if "eval_loss" in row), {})
        return mapping(self.summary.get("held_out")) or logged

    @property
    def steps(self) -> int:
        """The last optimiser step that is known of."""
        return int(self.summary.get("steps") or max((row["step"] for row in self.rows), default=0))


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Return a record of every folder, in the order given.

    Raises:
        ValueError: a folder is no run or is named twice, or one of its files is broken (naming it).
    """
    paths = [folder.expanduser().resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is named twice; name every run once")
    return [_read(path, name) for path, name in zip(paths, names_of(paths), strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell all of them apart, at least the last part.

    Examples:
        >>> names_of([Path("/runs/a/dpo"), Path("/runs/b/dpo"), Path("/runs/ipo")])
        ['a/dpo', 'b/dpo', 'ipo']
    """
    names = []
    for path in paths:
        others = [other for other in paths if other != path]
        lengths = range(1, len(path.parts) + 1)
        enough = (n for n in lengths if all(other.parts[-n:] != path.parts[-n:] for other in others))
        names.append("/".join(path.parts[-next(enough, len(path.parts)) :]))
    return [_printable(name) for name in names]


def mapping(value: object) -> Mapping[str, Any]:
    """Return a value that is a mapping, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _read(path: Path, name: str) -> RunRecord:
    _refuse_what_is_no_run(path)
    summary, text = _summary(path / SUMMARY_FILE), _text(path / RECIPE_FILE)
    rows, samples = logged_rows(path), read_samples(path / SAMPLES_FILE)
    return RunRecord(
        path=path,
        name=name,
        rows=rows,
        summary=summary,
        recipe=_recipe(path / RECIPE_FILE, text),
        recipe_text=text,
        samples=samples,
        missing=list(_missing(path, rows, summary, text, samples)),
    )


def _refuse_what_is_no_run(path: Path) -> None:
    if not path.is_dir():
        raise ValueError(f"there is no run folder {path}")
    if not (path / METRICS_FILE).is_file() and not (path / RECIPE_FILE).is_file():
        raise ValueError(
            f"{path} is no run folder: it has neither {RECIPE_FILE} nor {METRICS_FILE}; name the folder that "
            "`align train` printed"
        )


def _missing(path: Path, rows: Rows, summary: Mapping[str, Any], recipe: str, samples: Sequence[Sample]) -> list[str]:
    """Return what the page has to do without, and why."""
    evaluated = any("eval_loss" in row for row in rows) or bool(summary.get("held_out"))
    generated = bool(summary.get("generation"))
    of_method = "method" in summary or recipe.startswith("method:")
    if of_method:  # such a run has figures and pictures of its own
        evaluated = generated = True
    found = {
        f"The run has not finished: there is no {SUMMARY_FILE} yet, and figures are those of the log.": not summary,
        "Nothing was logged yet, so there are no curves.": not rows,
        "There is no held-out set, or no evaluation yet: nothing here tells learning from memorising.": not evaluated,
        "No samples were taken before and after: the recipe has no evaluation.generation.": summary and not generated,
        f"There is no {SAMPLES_FILE}; samples of this run are in samples.md only.": (path / "samples.md").is_file()
        and not samples,
        f"There is no {RECIPE_FILE}, so the settings are not known.": not recipe,
    }
    return [sentence for sentence, holds in found.items() if holds]


def _summary(file: Path) -> Mapping[str, Any]:
    text = _text(file)
    if not text:
        return {}
    try:
        summary = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}; remove it to see the run without it") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{file} is no JSON object; remove it to see the run without it")
    return summary


def _recipe(file: Path, text: str) -> Mapping[str, Any]:
    node = read_yaml(text, lambda line: Origin(file=str(file), line=line)) if text else None
    return mapping(plain(node)) if node else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from error


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
