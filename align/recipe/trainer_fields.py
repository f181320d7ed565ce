"""The fields of ``transformers.TrainingArguments``: what a recipe can set, and our defaults.

``transformers`` is imported by the functions, not with this module.
"""

from dataclasses import Field, fields
from functools import cache
from typing import Any, Literal, get_type_hints

from align.objectives.registry import did_you_mean
from align.recipe.convert import convert
from align.recipe.errors import RecipeError
from align.recipe.foreign.dialects import renamed_hint
from align.recipe.yaml_tree import Node, join

KEY = "trainer"

_LAUNCHER = "chosen by the launcher: accelerate launch --config_file accelerate_configs/..."
_EVALUATION = "align's own evaluation goes over the pairs"
OWNED: dict[str, str] = {
    "output_dir": "set output.dir",
    "remove_unused_columns": "the columns of a pair are all used",
    "label_names": "a pair has no labels",
    "label_smoothing_factor": "set objective.label_smoothing, which goes with any objective",
    "neftune_noise_alpha": "noise in the policy alone would make it differ from the reference before training",
    "do_train": "align train trains",
    "do_eval": "set data.eval or data.eval_fraction, and trainer.eval_strategy",
    "do_predict": "there is no prediction pass; see evaluation.generation",
    "resume_from_checkpoint": "a killed run continues by itself: give the same command again",
    "save_only_model": "a killed run could not continue from it; the finished model is saved without optimizer state",
    "prediction_loss_only": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "average_tokens_across_devices": "the loss is a mean over pairs, never over tokens",
    "auto_find_batch_size": "it changes how many pairs make a step; lower per_device_train_batch_size and raise "
    "gradient_accumulation_steps",
    "use_liger_kernel": "its fused head computes what align's completion-only head leaves out",
    "liger_kernel_config": "its fused head computes what align's completion-only head leaves out",
    "local_rank": _LAUNCHER,
    "deepspeed": _LAUNCHER,
    "fsdp": _LAUNCHER,
    "fsdp_config": _LAUNCHER,
    "parallelism_config": _LAUNCHER,
    "hub_token": "a recipe is copied into every run folder and is no place for a secret; log in with `hf auth login`",
}
"""Fields a recipe cannot set, and why or what to set instead."""

DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 1.0,  # preference data is memorised fast: a second pass mostly lowers both sides
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-5,  # between what full training (1e-6) and adapters (1e-4) like; TrainingArguments has 5e-5
    "lr_scheduler_type": "linear",
    "logging_steps": 5.0,  # short runs are the rule here; 500 would show nothing
    "logging_first_step": True,  # where the run starts from; every curve is drawn as a change from there
    "logging_nan_inf_filter": False,  # a NaN is shown, not replaced by the last good value
    "report_to": "none",  # nothing leaves the machine unless asked
    "save_strategy": "steps",
    "save_steps": 50.0,  # what a killed run loses at most
    "save_total_limit": 2,
}
"""Values that stand in every resolved recipe unless it gives others."""


def known_fields() -> dict[str, "Field[Any]"]:
    """Return the fields of ``TrainingArguments`` that a recipe can set, in their order."""
    from transformers import TrainingArguments

    return {field.name: field for field in fields(TrainingArguments) if field.init and field.name not in OWNED}


@cache
def _annotations() -> dict[str, Any]:
    """Return the type of each field; the choices in a field's metadata make a type of their own."""
    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    for name, field in known_fields().items():
        if "choices" in field.metadata:
            choices: Any = Literal[tuple(field.metadata["choices"])]
            hints[name] = choices if field.default is not None else choices | None
    return hints


def convert_field(name: str, node: Node) -> Any:
    """Return the value of one field of the section ``trainer``.

    Raises:
        RecipeError: for a field that does not exist or is align's own, a wrong type, or an unknown choice.
    """
    key = join(KEY, name)
    if name in OWNED:
        raise RecipeError(f"not set here: {OWNED[name]}", key=key, origin=node.origin)
    if name not in known_fields():
        near = did_you_mean(name, list(known_fields()))
        hint = renamed_hint(name, key) or ("" if near.startswith("; known") else near)
        raise RecipeError(f"transformers.TrainingArguments has no field {name!r}{hint}", key=key, origin=node.origin)
    return convert(node, _annotations()[name], key)
