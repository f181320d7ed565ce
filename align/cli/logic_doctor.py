"""``align logic doctor``: what a loss does on log-probabilities that were seen."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.cli.logic import add_loss, add_sides, print_json
from align.logic.doctor import ATOMS, Setting, examine
from align.logic.known import Loss, find
from align.logic.structure import SIGNS

LINKS = ("logistic", "squared", "hinge")


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_loss(parser)
    add_sides(parser)
    columns = ", ".join(ATOMS)
    what = f"JSON lines of pairs with {columns} (summed log-probabilities) and chosen_length, rejected_length; or a run"
    parser.add_argument("--logps", type=Path, required=True, metavar="FILE|RUN", help=what)
    parser.add_argument("--link", choices=LINKS, help="in the place of the loss's own")
    parser.add_argument("--beta", type=float, help="in the place of the loss's own")
    parser.add_argument("--margin", type=float, help="in the place of the loss's own")
    own = parser.add_mutually_exclusive_group()
    own.add_argument("--length-normalised", action="store_true", default=None, help="divide by lengths")
    own.add_argument("--summed", action="store_true", help="do not, where the loss does")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print what is found."""
    loss = find(arguments.loss, arguments.condition, arguments.additive)
    structure, setting = loss.needed(), setting_of(loss, arguments)
    rows, what = (_run if arguments.logps.is_dir() else _file)(arguments.logps)
    found = examine(structure, rows, setting)
    if arguments.json:
        print_json({"name": loss.name, "rows": what, "setting": _plain(setting), **found})
    else:
        print("\n".join(_said(loss, what, setting, found)))
    return 0


def setting_of(loss: Loss, arguments: argparse.Namespace) -> Setting:
    """Return how the loss is trained: as its objective is by default, unless options say otherwise.

    Raises:
        ValueError: if its own link or margin has no closed form and none is given.
    """
    part = loss.part or {}
    normalised = bool(arguments.length_normalised or (part.get("normalised") and not arguments.summed))
    own = part and None in (arguments.link, arguments.beta) and arguments.margin is None
    if not own or arguments.link is not None or arguments.beta is not None:
        link = arguments.link or (loss.link if loss.link in LINKS else "")
        _check_link(loss, link)
        given = (1.0 if arguments.beta is None else arguments.beta, arguments.margin or 0.0)
        return Setting.of(link, *given, normalised=normalised)
    _check_link(loss, loss.link)
    scale, margin, weight = (_number(loss, part[key]) for key in ("scale", "margin", "weight"))
    return Setting(loss.link, scale, margin, weight, normalised)


def _check_link(loss: Loss, link: str) -> None:
    if link not in LINKS:
        raise ValueError(
            f"{loss.name} has the link {loss.link!r}; say one that has a closed form: --link {'|'.join(LINKS)}"
        )


def _number(loss: Loss, own: str) -> float:
    try:
        return float(own)
    except ValueError:
        raise ValueError(
            f"{loss.name} has {own}, which is not one number for all pairs: give --beta and --margin"
        ) from None


def _file(path: Path) -> tuple[list[dict[str, Any]], str]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: no JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: expected an object with {', '.join(ATOMS)}")
        rows.append({_column(key): value for key, value in row.items()})
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows, f"{len(rows)} pairs of {path}"


def _column(key: str) -> str:
    """Return a column by our name: TRL's and others' end in ``_logps`` and say ``reference``."""
    return key.removesuffix("_logps").removesuffix("_logp").replace("reference_", "ref_")


def _run(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the means that a run logged, a row for each logging step."""
    from align.report.metrics_file import read_metrics

    rows = []
    scale, a_token = _rewards(path)
    for logged in read_metrics(path):
        if "logps/chosen" not in logged or "logps/rejected" not in logged:
            continue
        row = {f"{side}_length": max(1.0, logged.get(f"length/{side}", 1.0)) for side in ("chosen", "rejected")}
        for side in ("chosen", "rejected"):
            row[side] = logged[f"logps/{side}"]
            if scale and f"rewards/{side}" in logged:
                log_ratio = logged[f"rewards/{side}"] / scale * (row[f"{side}_length"] if a_token else 1.0)
                row[f"ref_{side}"] = min(0.0, row[side] - log_ratio)
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: the run logged no log-probabilities of pairs (logps/chosen, logps/rejected)")
    return rows, f"the means of {len(rows)} logging steps of {path}"


def _rewards(path: Path) -> tuple[float, bool]:
    """Return what the run's rewards are of a nat of log-ratio, and whether they are a token.

    0 where they are no log-ratios to a reference.
    """
    from align.recipe.errors import Origin, RecipeError
    from align.recipe.objective import build_objective
    from align.recipe.yaml_tree import read_yaml

    recipe = path / "recipe.yaml"
    if not recipe.is_file():
        return 0.0, False
    read = read_yaml(recipe.read_text(encoding="utf-8"), lambda line: Origin(str(recipe), line))
    if read is None or not isinstance(read.value, dict) or "objective" not in read.value:
        return 0.0, False
    try:
        objective, _ = build_objective(read.value["objective"], read)
    except RecipeError:  # a file of the user's own that is no longer there
        return 0.0, False
    return (objective.reward_scale, objective.mean_rewards) if objective.needs_reference else (0.0, False)


def _plain(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in ("link", "scale", "margin", "weight", "normalised")}


def _said(loss: Loss, what: str, setting: Setting, found: Mapping[str, Any]) -> Iterator[str]:
    how = f"{setting.link} of {setting.scale:g} ρ" + (f" - {setting.margin:g}" if setting.margin else "")
    how = how if setting.weight == 1 else f"{setting.weight:g} times {how}"
    yield f"{loss.name} on {what} ({how}, probabilities {'a token' if setting.normalised else 'of whole responses'})"
    mark = found["column_class"]
    yield f"  where both are small   marked {SIGNS[mark]}" if mark else "  the policy is not read"
    span = f"from {found['lowest']:.3g} to {found['highest']:.3g}"
    yield f"  probabilities          {span}; both below 0.01: {found['small']:.0%}"
    yield f"  loss                   {found['loss']:.4g} on average"
    yield f"  pull on the chosen     {found['d_w']:.3g}, push on the rejected {found['d_l']:.3g} (medians)"
    yield f"  pull no more           {found['vanished']:.0%}"
    yield f"  both down pays         in {found['both_down_pays']:.0%} (a nat less of each lowers the loss)"
    left_out = [text for text in (loss.entry or {}).get("stripped", ()) if text.startswith("regulariser")]
    yield from (f"  left out: {text}" for text in left_out)
    yield from (f"  → {advice}" for advice in found["advice"])
