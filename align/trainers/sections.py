"""What the sections ``spo`` and ``d2o`` ask of a model and its tokenizer, found out before anything is sampled."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from align.data.degrade import mask_id
from align.models.degree_head import check_layer
from align.models.skeleton import Counts
from align.recipe.paths import REFERENCES, SAMPLES_REFERENCES
from align.recipe.schema import Recipe
from align.sampling.self_samples import instruction_ids


def check_sections(recipe: Recipe, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse settings of ``spo`` and ``d2o`` that this model cannot have.

    Args:
        recipe: of the run.
        config: of the model.
        tokenizer: of the model.

    Raises:
        ValueError: naming the setting.
    """
    if recipe.spo is not None:
        check_layer(config, recipe.spo.head.layer)
        if recipe.spo.versions.removal == "mask":
            mask_id(tokenizer, recipe.spo.versions)
    if draws_samples(recipe):
        assert recipe.d2o is not None
        instruction_ids(tokenizer, recipe.d2o.instructions)


def other_models(recipe: Recipe) -> dict[str, str]:
    """Return the paths of models that log-probabilities are compared with, by their keys in the recipe."""
    found = {}
    if recipe.model.reference not in REFERENCES and recipe.objective.needs_reference:
        found["model.reference"] = recipe.model.reference
    if recipe.d2o is not None and recipe.d2o.samples_reference not in SAMPLES_REFERENCES:
        found["d2o.samples_reference"] = recipe.d2o.samples_reference
    return found


def draws_samples(recipe: Recipe) -> bool:
    """Return whether the model is sampled for negatives to be held against."""
    return recipe.d2o is not None and "chosen" in recipe.objective.reads


def copies_of_d2o(recipe: Recipe) -> tuple[int, int]:
    """Return the copies of the policy that follow it for d2o, which checkpoints keep, and models that stand still."""
    settings = recipe.d2o
    if settings is None or not draws_samples(recipe):
        return 0, 0
    moving = int(settings.online is not None) + int(settings.samples_reference_sync is not None)
    return moving, int(settings.samples_reference_sync is None and settings.samples_reference != "same")


def moving_bytes(recipe: Recipe, counts: Counts) -> int:
    """Return the bytes of copies of the policy that follow it, as checkpoints keep them.

    Args:
        recipe: of the run.
        counts: of the policy's parameters.
    """
    follows = int(recipe.model.reference_sync is not None) + copies_of_d2o(recipe)[0]
    return follows * counts.weight_bytes + finer_bytes(recipe, counts)


def finer_bytes(recipe: Recipe, counts: Counts) -> int:
    """Return the bytes of the float32 weights that copies keep beside coarser ones, where they move by shares."""
    syncs = [recipe.model.reference_sync]
    if draws_samples(recipe):
        assert recipe.d2o is not None
        syncs.append(recipe.d2o.samples_reference_sync)
    coarse = counts.weight_bytes < 3 * counts.parameters  # most of the weights are of two bytes or fewer
    return 4 * counts.parameters * sum(sync is not None and sync.alpha < 1 for sync in syncs) * int(coarse)
