"""Data sets of alignment-handbook: ``dataset_mixture``, and ``dataset_mixer`` with ``dataset_splits`` before it."""

from typing import Any

from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.parts import hold_out, trl_sources


def handbook_sources(given: Given, draft: Draft) -> None:
    """Set ``data`` by whichever of its forms a file uses."""
    mixture, mixer = given.take("dataset_mixture"), given.take("dataset_mixer")
    splits, configs = given.take("dataset_splits") or ["train", "test"], given.take("dataset_configs")
    trl_sources(given, draft)
    if isinstance(mixture, dict):
        _mixture(given, draft, dict(mixture))
    elif isinstance(mixer, dict):
        names = configs if isinstance(configs, list) else [None] * len(mixer)
        draft.set(
            "data.train",
            _parts(mixer, names, [s for s in splits if "test" not in s]),
            given.said("dataset_mixer", "dataset_splits", "dataset_configs"),
        )
        test = _parts(dict.fromkeys(mixer, 1.0), names, [s for s in splits if "test" in s])
        if test:
            draft.set("data.eval", test, "dataset_splits")


def _parts(mixer: dict[str, Any], configs: list[Any], splits: list[str]) -> list[dict[str, Any]]:
    sources = []
    for (path, share), config in zip(mixer.items(), configs, strict=False):
        for split in splits:
            source = {"path": path, "config": config, "split": split, "weight": share}
            sources.append({k: v for k, v in source.items() if v is not None and (k, v) != ("weight", 1)})
    return sources


def _mixture(given: Given, draft: Draft, mixture: dict[str, Any]) -> None:
    held_out = mixture.pop("test_split_size", None)
    mixture.pop("seed", None)  # of a shuffle; training goes over the pairs in an order of its own
    sources = [_source(given, draft, dict(part)) for part in mixture.pop("datasets", None) or []]
    if sources:
        draft.set("data.train", sources, "dataset_mixture")
    for key, value in mixture.items():
        draft.decide(f"dataset_mixture: {key}", given.line("dataset_mixture"), f"{value!r} has no counterpart")
    hold_out(given, draft, "dataset_mixture: test_split_size", held_out)


def _source(given: Given, draft: Draft, part: dict[str, Any]) -> dict[str, Any]:
    path, config, split = part.pop("id", None), part.pop("config", None), part.pop("split", "train")
    weight = part.pop("weight", None)
    part.pop("columns", None)  # they select, and columns that are not needed are left alone here
    for key, value in part.items():
        draft.decide(f"dataset_mixture: {key}", given.line("dataset_mixture"), f"{value!r} of {path} is not known")
    source = {"path": path, "config": config, "split": split, "weight": weight}
    return {k: v for k, v in source.items() if v is not None and (k, v) != ("weight", 1)}
