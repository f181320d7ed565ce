"""The section ``trainer``: fields of ``transformers.TrainingArguments``, checked together, and the arguments they make.

``transformers`` is imported when a recipe is built, not with this module.
"""

import os
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from align.objectives.registry import did_you_mean
from align.recipe.convert import entries
from align.recipe.errors import RecipeError
from align.recipe.schema import Recipe
from align.recipe.trainer_fields import DEFAULTS, KEY, convert_field, known_fields
from align.recipe.yaml_tree import Node, join

if TYPE_CHECKING:
    from transformers import TrainingArguments

_AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "logging_steps": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "save_total_limit": 1,
    "dataloader_num_workers": 0,
}
_HOLDS_OUT = "needs held-out pairs: give data.eval or data.eval_fraction"


def build_trainer(node: Node, *, holds_out: bool) -> Mapping[str, Any]:
    """Return the section's settings over ``DEFAULTS``, in the order of ``TrainingArguments``, checked together.

    Args:
        node: the section.
        holds_out: whether the recipe holds pairs out for evaluation.

    Raises:
        RecipeError: for a field that does not exist or is align's own, a wrong type, a value out of range, or values
            that ``TrainingArguments`` refuses. What depends on the machine (bf16, tf32) is left to
            :func:`training_arguments`.
    """
    given = {name: convert_field(name, child) for name, child in entries(node, KEY).items()}
    settings = DEFAULTS | given
    _check_ranges(node, given)
    _check_evaluation(node, given, holds_out)
    _check_reporters(node, settings)
    _rehearse(node, settings)
    return MappingProxyType({name: settings[name] for name in known_fields() if name in settings})


def training_arguments(recipe: Recipe, output_dir: Path, **forced: Any) -> "TrainingArguments":
    """Make the ``TrainingArguments`` of a recipe on this machine.

    Args:
        recipe: its ``trainer`` section.
        output_dir: the run folder.
        forced: values that stand over the recipe's.

    Raises:
        RecipeError: if this machine or ``TrainingArguments`` cannot do what the section asks.
    """
    from transformers import TrainingArguments

    # Without use_cpu, transformers on a machine without accelerator ignores that it was launched as several processes.
    machine = {} if torch.accelerator.is_available() else {"use_cpu": True}
    own = {"output_dir": str(output_dir), "remove_unused_columns": False}
    try:
        return TrainingArguments(**DEFAULTS | machine | dict(recipe.trainer) | own | forced)
    except (ValueError, TypeError, OSError) as error:
        raise RecipeError(_one_line(error), key=KEY) from error


def _refuse(node: Node, name: str, message: str) -> RecipeError:
    assert isinstance(node.value, dict)
    return RecipeError(message, key=join(KEY, name), origin=node.value[name].origin)


def _check_ranges(node: Node, given: Mapping[str, Any]) -> None:
    for name, least in _AT_LEAST.items():
        value = given.get(name)
        if value is not None and not value >= least:
            raise _refuse(node, name, f"must be at least {least}, got {value}")


def _check_evaluation(node: Node, given: Mapping[str, Any], holds_out: bool) -> None:
    if holds_out:
        return
    if given.get("eval_strategy", "no") != "no":
        raise _refuse(node, "eval_strategy", f"{given['eval_strategy']!r} {_HOLDS_OUT}")
    if given.get("eval_on_start"):
        raise _refuse(node, "eval_on_start", _HOLDS_OUT)


def _check_reporters(node: Node, settings: Mapping[str, Any]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = ["none", "all", *INTEGRATION_TO_CALLBACK]
    chosen = settings["report_to"]
    for name in [chosen] if isinstance(chosen, str) else chosen or []:
        if name not in known:
            raise _refuse(node, "report_to", f"{name!r} is none of the choices{did_you_mean(name, known)}")


def _rehearse(node: Node, settings: Mapping[str, Any]) -> None:
    """Let ``TrainingArguments`` judge the settings together, touching no device and no process group."""
    from transformers import TrainingArguments

    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true" and find_spec("deepspeed") is None:
        message = "launched with a DeepSpeed configuration, but the package is missing: pip install 'align[deepspeed]'"
        raise RecipeError(message, key=KEY, origin=node.origin)

    class Rehearsal(TrainingArguments):
        _setup_devices = torch.device("cpu")

    elsewhere = {"use_cpu": True, "tf32": None, "torch_compile": False}
    elsewhere |= {"torch_compile_backend": None, "torch_compile_mode": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shown once, when the run begins
            Rehearsal(**{**settings, **elsewhere, "output_dir": "."})
    except (ValueError, TypeError, OSError) as error:
        raise _blamed(node, _one_line(error)) from error


def _blamed(node: Node, message: str) -> RecipeError:
    """Return the error at the first setting that the message names, be it as ``logging_steps`` or ``LoggingSteps``."""
    assert isinstance(node.value, dict)
    given = {_folded(name): name for name in node.value}
    named = next((given[_folded(word)] for word in re.findall(r"\w+", message) if _folded(word) in given), None)
    return RecipeError(message, key=KEY, origin=node.origin) if named is None else _refuse(node, named, message)


def _folded(word: str) -> str:
    return word.replace("_", "").lower()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
