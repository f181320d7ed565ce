"""Low-rank adapters on a policy, with peft."""

import copy
import re
from collections.abc import Collection
from difflib import get_close_matches

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
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
    if config.target_modules:
        check_targets(model, config.target_modules)
    adapted = get_peft_model(model, copy.deepcopy(config))  # peft writes into what it is given
    # So that the folder the adapter is saved in says which model to load it on.
    adapted.peft_config["default"].base_model_name_or_path = model.name_or_path
    return adapted


def check_targets(model: nn.Module, targets: str | Collection[str]) -> None:
    """Check that ``model.lora.target_modules`` names layers of the model, each of them.

    peft takes a list of which only one name fits, and leaves the others out without a word.

    Raises:
        ValueError: naming those that fit no layer, and near names.
    """
    if targets == "all-linear":
        return
    paths = [path for path, _ in model.named_modules()]
    linear = sorted({path.rpartition(".")[2] for path, m in model.named_modules() if isinstance(m, nn.Linear)})
    if isinstance(targets, str):
        strangers = [] if any(re.fullmatch(targets, path) for path in paths) else [targets]
    else:
        strangers = [name for name in targets if not any(p == name or p.endswith(f".{name}") for p in paths)]
    if strangers:
        near = dict.fromkeys(n for name in strangers for n in get_close_matches(name, linear, n=2))
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"its layers: {', '.join(linear)}"
        names = ", ".join(map(repr, strangers))
        raise ValueError(f"model.lora.target_modules: the model has no layer {names}; {hint}")


def has_adapter(model: object) -> bool:
    """Whether the model carries peft adapters."""
    return isinstance(model, PeftModel)
