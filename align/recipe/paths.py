"""Paths of a recipe made absolute where they exist, so that its run can be repeated from any folder."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from align.recipe.d2o import D2oSettings
from align.recipe.schema import (
    DataSettings,
    EvaluationSettings,
    GenerationSettings,
    ModelSettings,
    Recipe,
    SourceSettings,
    SynthSettings,
)
from align.recipe.spo import SpoSettings

Sampling = TypeVar("Sampling", SynthSettings, GenerationSettings)

PROMPT_LISTS = ("sentiment",)
"""Values of ``prompts`` that come with the package and never mean a file."""
INSTRUCTION_LISTS = ("moral",)
"""Values of ``d2o.instructions`` that come with the package."""
SAMPLES_REFERENCES = ("same", "base")
"""Values of ``d2o.samples_reference`` that are no path."""
REFERENCES = ("auto", "base", "adapter_off", "none")
"""Values of ``model.reference`` that are no path."""


def anchored(recipe: Recipe) -> Recipe:
    """Return the recipe with every path that exists on this machine made absolute; others may be hub names."""
    return replace(
        recipe,
        model=_model(recipe.model),
        data=_data(recipe.data),
        evaluation=_evaluation(recipe.evaluation),
        spo=None if recipe.spo is None else _spo(recipe.spo),
        d2o=None if recipe.d2o is None else _d2o(recipe.d2o),
    )


def input_files(recipe: Recipe) -> list[Path]:
    """Return the files, of those the recipe names, whose content decides what a run does."""
    generation = recipe.evaluation.generation
    sources = [*recipe.data.train, *recipe.data.eval]
    samplings = [s for s in (*(source.synth for source in sources), generation) if s is not None]
    named = [str(spec.get("file", "")) for spec in recipe.objective_spec]
    named += [str(source.path) for source in sources]
    named += [path for s in samplings for path in (s.prompts, s.scorer.rpartition(":")[0])]
    named += [] if recipe.spo is None else [recipe.spo.versions.extractor.rpartition(":")[0]]
    named += [] if recipe.d2o is None else [str(recipe.d2o.instructions or "")]
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
    return replace(settings, prompts=prompts, scorer=_function(settings.scorer))


def _function(name: str) -> str:
    """Return ``FILE.py:FUNCTION`` with an absolute file, anything else as it is."""
    file, colon, function = name.rpartition(":")
    return f"{absolute_where_it_exists(file)}{colon}{function}" if colon else name


def _spo(settings: SpoSettings) -> SpoSettings:
    versions = replace(settings.versions, extractor=_function(settings.versions.extractor))
    return replace(settings, versions=versions)


def _d2o(settings: D2oSettings) -> D2oSettings:
    given, other = settings.instructions, settings.samples_reference
    shipped = given is None or given in INSTRUCTION_LISTS
    return replace(
        settings,
        instructions=given if shipped else absolute_where_it_exists(str(given)),
        samples_reference=other if other in SAMPLES_REFERENCES else absolute_where_it_exists(other),
    )
