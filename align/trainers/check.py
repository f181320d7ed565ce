"""A recipe checked against what it names, before anything heavy is loaded."""

from itertools import islice
from pathlib import Path

from align.data.formats import to_row
from align.data.sources import count_rows, read_rows
from align.models.locate import locate
from align.objectives.registry import OBJECTIVES
from align.recipe.schema import GenerationSettings, Recipe, SourceSettings, SynthSettings
from align.sampling.prompts import load_prompts
from align.sampling.scorers import load_scorer


def check(recipe: Recipe) -> list[str]:
    """Return a line for each part that was found in order.

    Raises:
        ValueError: at the first that is not.
    """
    located = locate(recipe.model.path)
    if Path(located.path).is_dir() and not (located.gguf_file or list(Path(located.path).glob("*config.json"))):
        raise ValueError(f"model.path {located.path} holds no model: there is no config.json in it")
    needs = "a reference" if recipe.objective.needs_reference else "no reference"
    lines = [
        f"model: {located.gguf_file or located.path}",
        f"objective: {OBJECTIVES.name_of(recipe.objective)}, needs {needs}",
        f"reference: {_reference(recipe)}",
    ]
    sources = [("train", source) for source in recipe.data.train] + [("eval", source) for source in recipe.data.eval]
    return lines + [f"data.{part}: {_source(source)}" for part, source in sources] + _generation(recipe)


def _reference(recipe: Recipe) -> str:
    kind, lora = recipe.model.reference, recipe.model.lora is not None
    if not recipe.objective.needs_reference:
        if kind not in ("auto", "none"):
            raise ValueError(f"model.reference {kind!r} would not be used: the objective needs no reference")
        return "none"
    if kind == "none":
        raise ValueError("model.reference 'none' cannot work: the objective compares with a reference")
    if kind == "adapter_off" and not lora:
        raise ValueError("model.reference 'adapter_off' needs adapters; set model.lora, or use 'base'")
    return ("adapter_off" if lora else "base") if kind == "auto" else kind


def _source(source: SourceSettings) -> str:
    if source.synth is not None:
        return f"pairs from {_prompts(source.synth)}"
    rows = count_rows(source)
    for where, raw in islice(read_rows(source), 1):
        to_row(raw, where, source.format)
    return f"{Path(str(source.path)).name}, {'rows unknown before loading' if rows is None else f'{rows:,} rows'}"


def _generation(recipe: Recipe) -> list[str]:
    settings = recipe.evaluation.generation
    return [] if settings is None else [f"evaluation.generation: {_prompts(settings)}, from each model"]


def _prompts(settings: SynthSettings | GenerationSettings) -> str:
    load_scorer(settings.scorer)
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    return f"{len(prompts)} prompts x {settings.samples} samples"
