"""``align validate RECIPE [KEY=VALUE ...]``."""

import argparse
from pathlib import Path

from align.cli.recipe_arguments import add_recipe_arguments, recipe_of
from align.recipe.schema import Recipe, SourceSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the recipe, its files and its parts; load no weights."""
    recipe, name = recipe_of(arguments)
    for line in check(recipe):
        print(line)
    print(f"{name}: the recipe is valid")
    return 0


def check(recipe: Recipe) -> list[str]:
    """Return a line for each part that was found in order.

    Raises:
        ValueError: at the first that is not.
    """
    from align.models.locate import locate
    from align.objectives.registry import OBJECTIVES

    located = locate(recipe.model.path)
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
    from align.sampling.prompts import load_prompts
    from align.sampling.scorers import load_scorer

    if source.synth is not None:
        load_scorer(source.synth.scorer)
        prompts = load_prompts(source.synth.prompts, source.synth.split, source.synth.limit)
        return f"pairs from {len(prompts)} prompts x {source.synth.samples} samples"
    from align.data.sources import count_rows

    rows = count_rows(source)
    return f"{Path(str(source.path)).name}, {'rows unknown before loading' if rows is None else f'{rows:,} rows'}"


def _generation(recipe: Recipe) -> list[str]:
    from align.sampling.prompts import load_prompts
    from align.sampling.scorers import load_scorer

    settings = recipe.evaluation.generation
    if settings is None:
        return []
    load_scorer(settings.scorer)
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    return [f"evaluation.generation: {len(prompts)} prompts x {settings.samples} samples from each model"]
