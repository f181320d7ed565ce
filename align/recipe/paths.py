"""Paths of a recipe made absolute where they exist, so that its run can be repeated from any folder."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from align.recipe.schema import (
    DataSettings,
    EvaluationSettings,
    GenerationSettings,
    ModelSettings,
    Recipe,
    SourceSettings,
    SynthSettings,
)

Sampling = TypeVar("Sampling", SynthSettings, GenerationSettings)

PROMPT_LISTS = ("sentiment",)
"""Values of ``prompts`` that come with the package and never mean a file."""
REFERENCES = ("auto", "base", "adapter_off", "none")
"""Values of ``model.reference`` that are no path."""


def anchored(recipe: Recipe) -> Recipe:
    """Return the recipe with every path that exists on this machine made absolute; others may be hub names."""
    return replace(
        recipe, model=_model(recipe.model), data=_data(recipe.data), evaluation=_evaluation(recipe.evaluation)
    )


def input_files(recipe: Recipe) -> list[Path]:
    """Return the files, of those the recipe names, whose content decides what a run does."""
    generation = recipe.evaluation.generation
    sources = [*recipe.data.train, *recipe.data.eval]
    samplings = [s for s in (*(source.synth for source in sources), generation) if s is not None]
    named = [str(spec.get("file", "")) for spec in recipe.objective_spec]
    named += [str(source.path) for source in sources]
    named += [path for s in samplings for path in (s.prompts, s.scorer.rpartition(":")[0])]
    return sorted({Path(path) for path in named if os.path.isfile(path)})


def absolute_where_it_exists(path: str) -> str:
    """Return an existing path as an absolute one, anything else as it is."""
    file = os.path.expanduser(path)
    return os.path.abspath(file) if os.path.exists(file) else path


def _model(model: ModelSettings) -> ModelSettings:
    reference = model.reference if model.reference in REFERENCES else absolute_where_it_exists(model.reference)
    return replace(model, path=absolute_where_it_exists(model.path), reference=reference)


def _data(data: DataSettings) -> DataSettings:
    return replace(data, train=[_source(s) for s in data.train], eval=[_source(s) for s in data.eval])


def _source(source: SourceSettings) -> SourceSettings:
    path = None if source.path is None else absolute_where_it_exists(source.path)
    synth = None if source.synth is None else _sampling(source.synth)
    return replace(source, path=path, synth=synth)


def _evaluation(evaluation: EvaluationSettings) -> EvaluationSettings:
    generation = None if evaluation.generation is None else _sampling(evaluation.generation)
    return replace(evaluation, generation=generation)


def _sampling(settings: Sampling) -> Sampling:
    prompts = settings.prompts if settings.prompts in PROMPT_LISTS else absolute_where_it_exists(settings.prompts)
    file, colon, function = settings.scorer.rpartition(":")
    return replace(settings, prompts=prompts, scorer=f"{absolute_where_it_exists(file)}{colon}{function}")
