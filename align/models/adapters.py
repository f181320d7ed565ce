"""Low-rank adapters on a policy, with peft."""

import copy

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from align.recipe.schema import LoraSettings


def lora_config(settings: LoraSettings) -> LoraConfig:
    """Return peft's configuration for a recipe's ``model.lora``."""
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.target_modules,
        task_type=TaskType.CAUSAL_LM,
    )


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """Freeze a model and put trainable adapters on it; as made, they change nothing.

    Raises:
        ValueError: if the target modules are not in the model.
    """
    adapted = get_peft_model(model, copy.deepcopy(config))  # peft writes into what it is given
    # So that the folder the adapter is saved in says which model to load it on.
    adapted.peft_config["default"].base_model_name_or_path = model.name_or_path
    return adapted


def has_adapter(model: object) -> bool:
    """Whether the model carries peft adapters."""
    return isinstance(model, PeftModel)
