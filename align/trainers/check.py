"""A recipe checked against what it names, before anything heavy is loaded; every mistake is told at once."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from align.data.bad_rows import BadRows, OnBadRow
from align.data.formats import to_row
from align.data.key_content import load_extractor
from align.data.rows import RowError
from align.data.sources import count_rows, read_rows
from align.data.unpaired import to_unpaired
from align.models.locate import locate
from align.objectives.base import Objective, TokenObjective
from align.objectives.dispreference import D2O
from align.objectives.mixture import Mixture, Smoothed, name_of, trains_unpaired
from align.recipe.d2o import D2oSettings
from align.recipe.schema import GenerationSettings, Recipe, SourceSettings, SynthSettings
from align.recipe.spo import SpoSettings
from align.sampling.prompts import load_prompts
from align.sampling.scorers import load_scorer
from align.sampling.self_samples import load_instructions
from align.trainers.combinations import asks_for_completions, mistakes
from align.trainers.engine import Engine


def check(recipe: Recipe, *, gpus: int | None = None) -> list[str]:
    """Return a line for each part that was found in order.

    Nothing is tokenised and no model is built; the first row of every source is read.

    Args:
        recipe: of the run.
        gpus: how many it is planned on elsewhere; None for this machine.

    Raises:
        ValueError: naming everything that is not in order.
    """
    data = [("train", source) for source in recipe.data.train] + [("eval", source) for source in recipe.data.eval]
    unpaired = asks_for_completions(recipe) or recipe.d2o is not None
    parts: list[Callable[[], list[str]]] = [
        partial(_model, recipe),
        partial(_objective, recipe),
        *(partial(_source, part, source, recipe.data.on_bad_row, unpaired) for part, source in data),
        partial(_spo, recipe),
        partial(_d2o, recipe),
        partial(_generation, recipe),
    ]
    return together(parts, mistakes(recipe, gpus=gpus))


def together(parts: Sequence[Callable[[], list[str]]], problems: Sequence[str] = ()) -> list[str]:
    """Return the lines of all parts.

    Args:
        parts: each returns its lines or raises a ValueError.
        problems: what is known to be wrong already.

    Raises:
        ValueError: the one that a part raised, or one that lists all of them.
    """
    lines: list[str] = []
    errors = [ValueError(problem) for problem in problems]
    for part in parts:
        try:
            lines += part()
        except ValueError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        told = dict.fromkeys(str(error) for error in errors)
        raise ValueError(f"{len(told)} things cannot work:" + "".join(f"\n  - {text}" for text in told))
    return lines


def reference_kind(recipe: Recipe) -> str:
    """Return the reference that training will use: ``none``, ``base``, ``adapter_off``, or a model's path.

    Raises:
        ValueError: for a combination that cannot work.
    """
    kind, lora = recipe.model.reference, recipe.model.lora is not None
    moves = recipe.model.reference_sync is not None
    if moves and not recipe.objective.needs_reference:
        raise ValueError("model.reference_sync would not be used: the objective needs no reference; leave it out")
    if not recipe.objective.needs_reference:
        if kind not in ("auto", "none"):
            raise ValueError(
                f"model.reference {kind!r} would not be used: the objective needs no reference; leave it out"
            )
        return "none"
    if kind == "none":
        raise ValueError(
            "model.reference 'none' cannot work: the objective compares with a reference; leave it out, or choose "
            "another objective"
        )
    if kind == "adapter_off" and not lora:
        raise ValueError("model.reference 'adapter_off' needs adapters; set model.lora, or use 'base'")
    if kind == "adapter_off" and moves:
        raise ValueError(
            "model.reference 'adapter_off' has no weights of its own that model.reference_sync could move; leave it out"
        )
    return ("adapter_off" if lora and not moves else "base") if kind == "auto" else kind


def trains_on_completions(recipe: Recipe) -> bool:
    """Return whether a recipe trains on single completions, each desirable or not.

    Raises:
        ValueError: if ``data.unpaired`` and the objective do not fit.
    """
    asked, objective = recipe.data.unpaired, recipe.objective
    if objective.needs_mismatched and not trains_unpaired(objective):
        raise ValueError(
            f"objective {name_of(objective)!r} cannot be trained: one part needs single completions (kto), another "
            "compares the two sides of a pair; leave one of them out"
        )
    if asked and not trains_unpaired(objective):
        raise ValueError(
            f"data.unpaired=true with objective {name_of(objective)!r}, which compares the two sides of a pair: leave "
            "data.unpaired out, or choose an objective that trains on single completions (kto, bco_pair, apo_zero, ...)"
        )
    if asked is False and objective.needs_mismatched:
        raise ValueError(
            f"data.unpaired=false with objective {name_of(objective)!r}, which trains on single completions: leave "
            "data.unpaired out; pairs are taken apart"
        )
    return asks_for_completions(recipe)


def reads_completions(recipe: Recipe) -> bool:
    """Return whether a recipe's rows are prepared as single completions: to be trained on, or for their negatives.

    Raises:
        ValueError: as :func:`trains_on_completions`.
    """
    return recipe.d2o is not None or trains_on_completions(recipe)


UNREAD = ("scores", "prompt", "collision", "draws", "mismatched", "lengths")
"""What an objective may not need whose chosen side is a mean of samples: there is none of it."""


def refuse_to_hold_against_samples(objective: Objective) -> None:
    """Refuse an objective that reads more of samples than the mean of their log-probabilities, or no negative.

    Raises:
        ValueError: naming what it reads.
    """
    if "rejected" not in objective.reads:
        raise ValueError(f"objective {name_of(objective)!r} reads no negative, and d2o trains on nothing else")
    if isinstance(objective, Smoothed | Mixture):
        inner = [objective.objective] if isinstance(objective, Smoothed) else [p.objective for p in objective.parts]
        for each in inner:
            if "rejected" in each.reads:
                refuse_to_hold_against_samples(each)
        return
    needs = [need for need in UNREAD if getattr(objective, f"needs_{need}")]
    own_tokens = isinstance(objective, TokenObjective) or type(objective).weigh is not Objective.weigh
    if "chosen" in objective.reads and (needs or own_tokens):
        raise ValueError(
            f"objective {name_of(objective)!r} reads {', '.join(needs) or 'single tokens'}, and a mean of samples has "
            "none: use d2o, dpo, or another function of two sequences' log-probabilities"
        )


def _has(objective: Objective, kind: type[Objective]) -> bool:
    """Return whether an objective is of a kind, or made of one that is."""
    if isinstance(objective, Smoothed):
        return _has(objective.objective, kind)
    if isinstance(objective, Mixture):
        return any(_has(part.objective, kind) for part in objective.parts)
    return isinstance(objective, kind)


def refuse_unread_versions(settings: SpoSettings, objective: Objective) -> None:
    """Refuse versions of completions that the objective does not train on, where rows are single completions.

    Raises:
        ValueError: naming the side.
    """
    unread = [side for side in settings.versions.degraded_sides if side not in objective.reads]
    if unread:
        kind = "desirable" if "chosen" in objective.reads else "undesirable"
        raise ValueError(
            f"spo.versions.sides={settings.versions.sides}: objective {name_of(objective)!r} trains on {kind} "
            f"completions alone, and rows of the others are left out; set spo.versions.sides to {objective.reads[0]}"
        )


def refuse_unread_samples(settings: D2oSettings, objective: Objective, *, given: bool = False) -> None:
    """Refuse settings of samples that nothing would read.

    Args:
        settings: of the section ``d2o``.
        objective: that is trained.
        given: whether a model to compare samples with was passed from Python, or is named by a path.

    Raises:
        ValueError: naming the first.
    """
    read = "chosen" in objective.reads
    unread = {"online": not read, "level": not read, "samples_reference": not (read and objective.needs_reference)}
    unread["samples_reference_sync"] = unread["samples_reference"]
    for name, idle in unread.items():
        if idle and getattr(settings, name) != getattr(D2oSettings(), name):
            what = "draws no sample" if not read else "needs no reference"
            raise ValueError(f"d2o.{name} would not be used: objective {name_of(objective)!r} {what}; leave it out")
    if not given:
        return
    if unread["samples_reference"]:
        what = "draws no sample" if not read else "needs no reference"
        raise ValueError(f"samples_reference would not be used: objective {name_of(objective)!r} {what}; leave it out")
    for name in ("d2o.samples_reference_sync", "d2o.samples_reference"):
        if name in settings.copies:
            raise ValueError(
                f"{name} asks for a copy of the policy, and samples_reference is a model: give one of them"
            )


def refuse_shards(engine: Engine, *, quantised: bool, moves: bool) -> None:
    """Refuse what needs whole weights in each process, under an engine that shards them.

    Raises:
        ValueError: naming it.
    """
    if not engine.shards_weights:
        return
    for asked, what in ((quantised, "quantised weights"), (moves, "model.reference_sync")):
        if asked:
            raise ValueError(
                f"{what} cannot work under {engine}, where no process holds all weights: use ddp, zero1 or zero2, or "
                "leave it out"
            )


def refuse_copies(settings: D2oSettings, *, quantised: bool) -> None:
    """Refuse settings that copy a policy whose weights are quantised.

    Raises:
        ValueError: naming the first.
    """
    if quantised and settings.copies:
        raise ValueError(
            f"{settings.copies[0]} keeps a copy of the policy that adapters are merged into, and quantised weights "
            "take none: leave it out"
        )


def _model(recipe: Recipe) -> list[str]:
    try:
        located = locate(recipe.model.path)
    except ValueError:
        return []  # among the mistakes
    return [f"model: {located.gguf_file or located.path}"]


def _objective(recipe: Recipe) -> list[str]:
    objective, unpaired = recipe.objective, trains_on_completions(recipe)
    needs = [need for need in objective.needs if need != "reference"]
    reference = "a reference" if objective.needs_reference else "no reference"
    line = f"objective: {name_of(objective)}, needs {', '.join([reference, *needs])}"
    rows = ["rows: single completions"] if unpaired else ["rows: negatives alone"] if recipe.d2o is not None else []
    return [line, f"reference: {reference_kind(recipe)}", *rows]


def _source(part: str, source: SourceSettings, on_bad_row: OnBadRow, unpaired: bool) -> list[str]:
    if source.synth is not None:
        return [f"data.{part}: pairs from {_prompts(source.synth)}"]
    rows = count_rows(source)
    try:
        for where, raw in islice(read_rows(source), 1):
            (to_unpaired if unpaired else to_row)(raw, where, source.format)
    except RowError as fault:
        BadRows(on_bad_row=on_bad_row).take(fault, None)
    told = "rows unknown before loading" if rows is None else f"{rows:,} rows"
    return [f"data.{part}: {Path(str(source.path)).name}, {told}"]


def _spo(recipe: Recipe) -> list[str]:
    if recipe.spo is None:
        return []
    made = recipe.spo.versions
    if trains_on_completions(recipe):
        refuse_unread_versions(recipe.spo, recipe.objective)
    load_extractor(made.extractor, lambda answers: [[0.0] * len(answer.ids) for answer in answers])
    shares = ", ".join(f"{100 * share:.0f} %" for share in made.removed)
    return [f"spo: {made.degrees} versions of {made.sides} responses ({made.extractor}), lacking {shares}"]


def _d2o(recipe: Recipe) -> list[str]:
    if recipe.d2o is None:
        if _has(recipe.objective, D2O):
            raise ValueError(
                "objective 'd2o' without the section d2o would hold rejected responses against the chosen ones, as dpo "
                "does, and draw no sample: add 'd2o: {}', or choose dpo"
            )
        return []
    refuse_to_hold_against_samples(recipe.objective)
    refuse_unread_samples(recipe.d2o, recipe.objective)
    if "chosen" not in recipe.objective.reads:
        return ["d2o: no samples, for the objective reads the negatives alone"]
    instructions = len(load_instructions(recipe.d2o.instructions))
    under = f"under {instructions} instructions in turn" if instructions else "without instructions"
    return [f"d2o: {recipe.d2o.samples} samples a negative, {under}"]


def _generation(recipe: Recipe) -> list[str]:
    settings = recipe.evaluation.generation
    return [] if settings is None else [f"evaluation.generation: {_prompts(settings)}, from each model"]


def _prompts(settings: SynthSettings | GenerationSettings) -> str:
    load_scorer(settings.scorer)
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    return f"{len(prompts)} prompts x {settings.samples} samples"
