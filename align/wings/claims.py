"""``align claims``: a method's claim run, its result written, read back, and held against the present recipe."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import align
from align.data.cache import written_whole
from align.report.look import save
from align.wings.claim import Claim
from align.wings.claim_picture import picture_of
from align.wings.method import About
from align.wings.recipe import build_method_recipe, digest, method_tree
from align.wings.registry import load
from align.wings.trials import Store, Trials, ran_on
from align.wings.verdict import Effect, effect_of, interval, verdict

LIMIT = 480.0
"""CPU seconds, four minutes of two cores, that a claim may take which is not marked long."""
NOT_RUN = "not run"


def results_folder() -> Path:
    """Return where results are: ``docs/results`` of the checkout align runs from, else of the folder one is in."""
    root = Path(align.__file__).parents[1]
    return (root if (root / "pyproject.toml").is_file() else Path()) / "docs" / "results"


def run_claim(recipe: Path, folder: Path, tell: Callable[[str], None], *, called: str = "") -> dict[str, Any]:
    """Run what is missing of a claim, write result and picture, and return the result.

    Args:
        recipe: the method's recipe, with a claim.
        called: how the command names it; by the recipe's name where empty.
        folder: where ``<name>.json`` and ``<name>.png`` go.
        tell: called with lines for people.

    Raises:
        ValueError: the recipe has no claim, or a run cannot work.
    """
    tree = method_tree(recipe)
    whole = build_method_recipe(tree)
    claim = claim_of(recipe)
    about = load(whole.method).about
    name, now, code = recipe.stem, digest(whole, with_claim=True), ran_on(whole)
    earlier = read_result(name, folder)
    if earlier is not None and (earlier["digest"], earlier.get("code")) == (now, code):
        tell(f"{name}: there is a result of this recipe and code; remove {folder / f'{name}.json'} to run it again")
        return earlier
    runs = {} if earlier is None else {run["name"]: run for run in earlier["runs"]}
    store = Store(folder / f"{name}.runs", runs)
    trials = Trials(tree, claim, store, tell)
    tell(f"{name}: {about.paper}; {trials.total} runs")
    tried = trials.tune()
    chosen = trials.best(tried)
    values = trials.compare(chosen)
    result = {
        "name": name,
        "method": whole.method,
        "wing": about.wing,
        "paper": about.paper,
        "says": " ".join(claim.says.split()),
        **judged(claim, values),
        "seeds": list(claim.seeds),
        "arms": values,
        "tuning": tuning_told(claim, tried, chosen),
        "seconds": round(sum(run["seconds"] for run in trials.done.values()), 1),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in trials.done.values()), 1),
        "long": claim.long,
        "tried": list(claim.tried),
        "command": f"align claims run {shlex.quote(called or name)}",
        "digest": now,
        "code": code,
        "versions": of_all([run["versions"] for run in trials.done.values()]),
        "runs": [{"name": key, **run} for key, run in trials.done.items()],
    }
    save(picture_of(result, claim), [folder / f"{name}.png"])
    with written_whole(folder / f"{name}.json") as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    store.clear()
    if result["cpu_seconds"] > LIMIT and not claim.long:
        spent = f"{result['cpu_seconds']:.0f} CPU seconds"
        tell(f"{name}: took {spent}, more than {LIMIT:.0f}; mark the claim long, or make it smaller")
    return result


def judged(claim: Claim, values: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Return verdict, reason, and the relations with their effects; the first relation's is the headline."""
    effects = [effect_of(relation, claim, values) for relation in claim.relations]
    word, reason = verdict(claim, effects)
    return {
        "verdict": word,
        "reason": reason,
        "effect": effects[0].value,
        "interval": [effects[0].low, effects[0].high],
        "relations": [asdict(effect) for effect in effects],
    }


def tuning_told(
    claim: Claim,
    tried: Mapping[str, Sequence[tuple[Mapping[str, Any], float]]],
    chosen: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return how each arm was tuned, or why none was."""
    if claim.tuning is None:
        return {"untuned": claim.untuned}
    return {
        "figure": claim.tuning.figure,
        "seeds": list(claim.tuning.seeds),
        "arms": {
            arm: {"chosen": dict(chosen[arm]), "trials": [{"settings": dict(s), "mean": mean} for s, mean in trials]}
            for arm, trials in tried.items()
        },
    }


def claim_of(recipe: Path) -> Claim:
    """Return the claim of a recipe.

    Raises:
        ValueError: it has none.
    """
    claim = build_method_recipe(method_tree(recipe)).claim
    if claim is None:
        raise ValueError(f"{recipe}: the recipe has no section 'claim'")
    return claim


def read_result(name: str, folder: Path) -> dict[str, Any] | None:
    """Return the result of a claim, or None where it was not run.

    Raises:
        ValueError: the file is broken.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if {"digest", "runs", "verdict"} <= found.keys() else None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is no result of a claim: {error}; remove it to run the claim again") from error


def listed(recipes: Mapping[str, Path], folder: Path) -> list[dict[str, Any]]:
    """Return what ``align claims ls`` says of every recipe with a claim.

    Returns:
        ``name``, ``wing``, ``paper``, ``verdict``, ``effect``, ``interval``, ``seeds`` (how many), ``seconds``,
        ``fresh`` (of the present recipe) and ``same_code`` of each; None and ``not run`` where there is no result.
    """
    return [_line(path, folder) for _, path in sorted(recipes.items(), key=lambda item: item[1].stem)]


def _line(recipe: Path, folder: Path) -> dict[str, Any]:
    whole = build_method_recipe(method_tree(recipe))
    about: About = load(whole.method).about
    found = read_result(recipe.stem, folder) or {}
    return {
        "name": recipe.stem,
        "wing": about.wing,
        "paper": about.paper,
        "verdict": found.get("verdict", NOT_RUN),
        "effect": found.get("effect"),
        "interval": found.get("interval"),
        "seeds": len(found.get("seeds", [])),
        "seconds": found.get("seconds"),
        "fresh": bool(found) and is_fresh(found, recipe),
        "same_code": bool(found) and is_of_same_code(found, recipe),
    }


def is_fresh(result: Mapping[str, Any], recipe: Path) -> bool:
    """Return whether a result is of the recipe as it is now."""
    same: bool = result["digest"] == digest(build_method_recipe(method_tree(recipe)), with_claim=True)
    return same


def is_of_same_code(result: Mapping[str, Any], recipe: Path) -> bool:
    """Return whether the modules that decide a result's figures, and one's own pictures, are as they were."""
    whole = build_method_recipe(method_tree(recipe))
    same: bool = result.get("code") == ran_on(whole)
    return same


def told(result: Mapping[str, Any], claim: Claim, *, fresh: bool = True, same_code: bool = True) -> str:
    """Return a result as text for a terminal: what is claimed, arms with their figures, relations, verdict."""
    shown = shown_figures(claim)
    arms = result["arms"]
    width = max(map(len, arms))
    lines = [f"{result['name']}: {result['paper']}", f"  {result['says']}", ""]
    lines.append(f"  {'':{width}}  " + "  ".join(f"{name:>22}" for name in shown))
    for arm, figures in arms.items():
        cells = [_cell(figures.get(name)) for name in shown]
        lines.append(f"  {arm:{width}}  " + "  ".join(f"{cell:>22}" for cell in cells))
    lines += ["", f"  means over {len(result['seeds'])} seeds with 95 % intervals; differences are paired by seed"]
    for relation in result["relations"]:
        effect = Effect(**relation)
        mark = "" if effect.asserted else " (reported, not asserted)"
        lines.append(
            f"  {effect.text}: {effect.value:+.4g} [{effect.low:+.4g}, {effect.high:+.4g}], {effect.word}{mark}"
        )
    lines += _tuning_lines(result["tuning"])
    lines += [f"  before: {' '.join(text.split())}" for text in result.get("tried", ())]
    reason = f" ({result['reason']})" if result["reason"] else ""
    lines += [
        f"  verdict: {result['verdict']}{reason}",
        f"  {result['seconds']:.0f} s ({result['cpu_seconds']:.0f} of CPU); {result['command']}",
    ]
    if not fresh:
        lines.append("  the recipe has changed since: the command runs what is missing, and judges anew")
    if not same_code:
        lines.append("  its code, or the pictures it was run on, has changed since: the command runs all of it again")
    return "\n".join(lines)


def shown_figures(claim: Claim) -> list[str]:
    """Return the figures a table shows: those of the relations, then those the claim names."""
    return list(dict.fromkeys([*(relation.figure for relation in claim.relations), *claim.figures]))


def of_all(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the versions that runs were made with; several of a package where runs were not made with the same."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: " and ".join(dict.fromkeys(one[name] for one in found if name in one)) for name in names}


def _cell(values: Sequence[float] | None) -> str:
    if values is None:
        return "-"
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _tuning_lines(tuning: Mapping[str, Any]) -> list[str]:
    if "arms" not in tuning:
        return (
            [f"  nothing was tuned: {tuning['untuned']}"] if tuning.get("untuned") else ["  arms were not tuned alike"]
        )
    lines = []
    for arm, found in tuning["arms"].items():
        chosen = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in found["chosen"].items())
        lines.append(f"  tuned: {arm} takes {chosen} of {len(found['trials'])} tried, by {tuning['figure']}")
    return lines
