"""What the sections ``spo`` and ``d2o`` ask of a model and its tokenizer, found out before anything is sampled."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from align.data.degrade import mask_id
from align.models.degree_head import layer_states
from align.recipe.schema import Recipe
from align.sampling.self_samples import (
    instruction_ids,
    load_instructions,
    refuse_beyond_positions,
    with_instructions,
)


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
        layers = int(config.get_text_config().num_hidden_layers)
        layer_states([torch.empty(0)] * (layers + 1), recipe.spo.head.layer)
        if recipe.spo.versions.removal == "mask":
            mask_id(tokenizer, recipe.spo.versions)
    if draws_samples(recipe):
        assert recipe.d2o is not None
        instruction_ids(tokenizer, recipe.d2o.instructions)


def check_room_for_samples(
    recipe: Recipe, config: Any, tokenizer: PreTrainedTokenizerBase, longest: Sequence[int]
) -> int:
    """Refuse a prompt behind which a sample has no place in the model's positions.

    Args:
        recipe: of the run, which draws samples.
        config: of the model.
        tokenizer: of the model.
        longest: ids of the longest prompt.

    Returns:
        Its tokens with the longest instruction.

    Raises:
        ValueError: with them, and what can be done.
    """
    assert recipe.d2o is not None
    under_each = math.ceil(max(1, len(load_instructions(recipe.d2o.instructions))) / recipe.d2o.samples)
    asked = with_instructions(tokenizer, [longest] * under_each, recipe.d2o)
    refuse_beyond_positions(config, asked, recipe.d2o)
    return max(map(len, asked))


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
