"""Settings that are right one by one and cannot work together or on this machine; nothing is loaded to tell."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache

from align.models.load import ADAPTER_CONFIG
from align.models.locate import Located, locate
from align.models.precision import fast_bfloat16
from align.models.quantise import quantisation_faults
from align.objectives.base import SIDES
from align.objectives.mixture import name_of
from align.recipe.paths import REFERENCES, SAMPLES_REFERENCES
from align.recipe.schema import Recipe
from align.recipe.trainer_fields import DEFAULTS
from align.sampling.prompts import load_prompts
from align.trainers.engine import asked_to_shard, fsdp_would_be_idle, idle_fsdp

LENGTH_COLUMN = "length"
"""The column of prepared pairs that says how long a pair is."""

OPTIMISER_PACKAGES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *("adamw_bnb_8bit", "adamw_8bit", "ademamix", "ademamix_8bit", "lion_8bit", "lion_32bit"),
            *("paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
            *("paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
        ),
        ("bitsandbytes", "bitsandbytes"),
    ),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), ("torchao", "torchao")),
    **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), ("apollo_torch", "apollo-torch")),
    **dict.fromkeys(("lomo", "adalomo"), ("lomo_optim", "lomo-optim")),
    **dict.fromkeys(
        ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"), ("schedulefree", "schedulefree")
    ),
    **dict.fromkeys(
        (f"galore_{kind}{way}" for kind in ("adamw", "adamw_8bit", "adafactor") for way in ("", "_layerwise")),
        ("galore_torch", "galore-torch"),
    ),
    "grokadamw": ("grokadamw", "grokadamw"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "adamw_anyprecision": ("torchdistx", "torchdistx"),
    "adamw_torch_xla": ("torch_xla", "torch-xla"),
    "adamw_torch_npu_fused": ("torch_npu", "torch-npu"),
}
"""Value of ``trainer.optim``: the module it needs, and the package that brings it."""

REPORTER_MODULES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune")},
    **{name: (name,) for name in ("swanlab", "trackio", "wandb")},
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "tensorboard": ("tensorboard", "tensorboardX"),
}
"""Value of ``trainer.report_to``: modules of which one must be installed."""

_EVERY_EVALUATION = (
    *(f"{name}/{side}" for name in ("logps", "mean_logps", "rewards", "length") for side in ("chosen", "rejected")),
    *("runtime", "samples_per_second", "steps_per_second"),
)
EVALUATION_METRICS = (
    *("loss", "accuracy", "accuracy_low", "accuracy_high", "accuracy_longer_wins", "accuracy_length_matched"),
    *("accuracy_length_matched_pairs", "margin", "margin_low", "margin_high", "pairs"),
    *("rewards/margins", "rewards/accuracies", *_EVERY_EVALUATION),
)
"""What an evaluation on pairs measures, as ``trainer.metric_for_best_model`` can name it."""
UNPAIRED_METRICS = (
    *("loss", "auc", "auc_low", "auc_high", "margin", "desirable", "undesirable", "kl", *_EVERY_EVALUATION),
)
"""What an evaluation on single completions measures; ``kl`` where the objective needs mismatched ones."""


def mistakes(recipe: Recipe, *, gpus: int | None = None) -> list[str]:
    """Return what cannot work, each naming the settings that clash and the likely fix.

    Args:
        recipe: of the run.
        gpus: how many it is planned on elsewhere; None for this machine, whose devices and weights are looked at.
    """
    trainer = recipe.trainer
    found = (
        *_weights(recipe, here=gpus is None),
        *(_number_types(recipe) if gpus is None else _kept_off_gpus(recipe)),
        *_attention(recipe, device_of(recipe) if gpus is None else torch.device("cuda")),
        *_packages(trainer),
        *_sampling_order(trainer),
        *_best_model(recipe),
        *_loading(trainer),
        *_mismatched(recipe, int(os.environ.get("WORLD_SIZE", "1")) if gpus is None else gpus),
        *(_engine(recipe) if gpus is None else ()),
        *_of_pairs_alone(recipe),
        *_quantised(recipe, device_of(recipe) if gpus is None else torch.device("cuda")),
    )
    return list(found)


def _of_pairs_alone(recipe: Recipe) -> Iterator[str]:
    """Refuse what is of pairs where single completions or negatives are trained, and what compiling hides."""
    asked = {
        "diagnostics.entanglement": recipe.diagnostics.entanglement is not None,
        "disentangle": recipe.disentangle is not None,
        "spo": recipe.spo is not None,
    }
    for key in (key for key, there in asked.items() if there):
        if recipe.trainer.get("torch_compile"):
            yield f"{key} reads what passes through modules, which trainer.torch_compile hides: leave one of them out"
        if key == "spo":
            if recipe.d2o is not None:
                yield "spo makes versions of responses, and d2o draws samples in their place: leave one of them out"
            continue
        if recipe.d2o is not None:
            yield f"{key} is about the two sides of a pair, and d2o trains on negatives alone: leave one of them out"
        if asks_for_completions(recipe):
            yield (
                f"{key} is about the two sides of a pair, and the objective or data.unpaired trains single "
                "completions: leave it out, or choose an objective of pairs"
            )
    if recipe.disentangle is not None and set(recipe.objective.reads) != set(SIDES):
        yield (
            f"disentangle with objective {name_of(recipe.objective)!r}, which reads the {recipe.objective.reads[0]} "
            "side alone: there is nothing to part; leave it out"
        )


def cautions(recipe: Recipe, *, here: bool = True) -> list[str]:
    """Return what works, but perhaps not as it was meant.

    Args:
        recipe: of the run.
        here: whether it is to run on this machine.
    """
    trainer = recipe.trainer
    slow, several = (_slow_types(recipe), _several_gpus(trainer)) if here else ((), ())
    found = [*_stopping(trainer), *slow, *_recomputing(recipe), *several, *_shared(recipe)]
    if recipe.model.quantization is not None:
        found.append("model.quantization: memory is counted as if weights were not quantised, which is too much")
    return found


def _weights(recipe: Recipe, *, here: bool) -> Iterator[str]:
    """Look for weights, without opening any: of the policy, and of a reference with a path of its own."""
    named = {"model.path": recipe.model.path}
    if recipe.model.reference not in REFERENCES and recipe.objective.needs_reference:
        named["model.reference"] = recipe.model.reference
    if recipe.d2o is not None and recipe.d2o.samples_reference not in SAMPLES_REFERENCES:
        named["d2o.samples_reference"] = recipe.d2o.samples_reference
    for key, path in named.items():
        try:
            located = locate(path)
        except ValueError as error:
            yield f"{key}: {error}"
            continue
        if located.gguf_file is None:
            yield from _folder(key, located, here) if Path(located.path).is_dir() else _hub(key, located.path)


def _folder(key: str, located: Located, here: bool) -> Iterator[str]:
    folder = Path(located.path)
    if not list(folder.glob("*config.json")):
        yield f"{key} {folder} holds no model: there is no config.json in it"
    elif not (folder / ADAPTER_CONFIG).is_file() and not list(folder.glob("*.safetensors")):
        pickled = list(folder.glob("*.bin")) + list(folder.glob("*.pt")) + list(folder.glob("*.pth"))
        if not here and not pickled:
            return  # a plan needs no weights
        said = f"only pickled weights ({pickled[0].name}), which are not loaded" if pickled else "no weights"
        yield f"{key} {folder} holds {said}; save the model there with save_pretrained, which writes safetensors"


def _hub(key: str, name: str) -> Iterator[str]:
    if not constants.HF_HUB_OFFLINE:
        return
    files = ("config.json", ADAPTER_CONFIG)
    if not any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
        yield (
            f"{key} {name!r} is no folder here and not in the hub's cache, and HF_HUB_OFFLINE=1 keeps it from being "
            "fetched: unset HF_HUB_OFFLINE, or name a folder"
        )


def _number_types(recipe: Recipe) -> Iterator[str]:
    trainer, dtype = recipe.trainer, recipe.model.dtype
    device = device_of(recipe)
    if trainer.get("fp16") and device.type == "cpu":
        yield (
            "trainer.fp16=true cannot work on the CPU, whose gradients are not scaled: set trainer.bf16=true, or leave "
            "both out (model.dtype=auto takes what the device does well)"
        )
    yield from _unscaled(recipe)
    if device.type == "cuda" and not fast_bfloat16(device):
        for key, asked in (("trainer.bf16=true", trainer.get("bf16")), ("model.dtype=bfloat16", dtype == "bfloat16")):
            if asked:
                yield f"{key}: this GPU has no bfloat16; leave it out, or set trainer.fp16=true"


def _unscaled(recipe: Recipe) -> Iterator[str]:
    if recipe.trainer.get("fp16") and recipe.model.dtype == "float16" and recipe.model.lora is None:
        yield (
            "trainer.fp16=true with model.dtype=float16 cannot train every weight: gradients in float16 cannot be "
            "unscaled; leave model.dtype out, or set model.lora"
        )


def _kept_off_gpus(recipe: Recipe) -> Iterator[str]:
    yield from _unscaled(recipe)
    if recipe.trainer.get("use_cpu"):
        yield "trainer.use_cpu=true keeps a run off the GPUs that --gpus plans it on: leave one of them out"


def _attention(recipe: Recipe, device: torch.device) -> Iterator[str]:
    chosen = recipe.model.attn_implementation or ""
    if not chosen.startswith("flash_attention"):
        return
    key = f"model.attn_implementation={chosen}"
    if device.type == "cpu":
        yield f"{key} works on GPUs only, and training would use the CPU: leave it out, or name sdpa"
    elif chosen == "flash_attention_2" and find_spec("flash_attn") is None:
        yield f"{key} needs a package: pip install flash-attn, or name sdpa"


def _packages(trainer: Any) -> Iterator[str]:
    optim = str(trainer.get("optim", ""))
    module, package = OPTIMISER_PACKAGES.get(optim, ("torch", "torch"))
    if find_spec(module) is None:
        yield f"trainer.optim={optim} needs a package: pip install {package}, or leave it out for adamw_torch_fused"
    chosen = trainer.get("report_to") or []
    for name in [chosen] if isinstance(chosen, str) else chosen:
        modules = REPORTER_MODULES.get(name, ())
        if modules and all(find_spec(module) is None for module in modules):
            yield f"trainer.report_to={name} needs a package: pip install {modules[0]}, or set report_to to none"


def _sampling_order(trainer: Any) -> Iterator[str]:
    order, column = trainer.get("train_sampling_strategy", "random"), trainer.get("length_column_name", LENGTH_COLUMN)
    if order in ("group_by_length", "batch_rebalance") and column != LENGTH_COLUMN:
        yield (
            f"trainer.length_column_name={column} with trainer.train_sampling_strategy={order}: prepared pairs have "
            f"their length in {LENGTH_COLUMN!r}; leave length_column_name out"
        )


def _best_model(recipe: Recipe) -> Iterator[str]:
    metric, unpaired = recipe.trainer.get("metric_for_best_model"), asks_for_completions(recipe)
    known = UNPAIRED_METRICS if unpaired else EVALUATION_METRICS
    if recipe.d2o is not None and set(recipe.objective.reads) != set(SIDES):
        known = ("loss", *(name for name in _EVERY_EVALUATION if not name.endswith("/chosen")))
    if recipe.spo is not None:
        names, versions = ("loss", "accuracy", "chance", "rank_correlation"), recipe.spo.versions
        of_degrees = tuple(f"{n}/{{}}_{k}" for n in ("logps", "mean_logps") for k in range(versions.degrees))
        every = (*(f"{name}/{{}}" for name in names), *of_degrees)
        known += tuple(f"spo/{each.format(side)}" for each in every for side in versions.degraded_sides)
    if unpaired and not recipe.objective.needs_mismatched:
        known = tuple(name for name in known if name != "kl")
    if metric is None or str(metric).removeprefix("eval_") in known:
        return
    near = get_close_matches(str(metric).removeprefix("eval_"), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    yield f"trainer.metric_for_best_model={metric}: an evaluation measures no such thing; {hint}"


def _loading(trainer: Any) -> Iterator[str]:
    if trainer.get("dataloader_persistent_workers") and not trainer.get("dataloader_num_workers"):
        yield (
            "trainer.dataloader_persistent_workers=true needs workers: set trainer.dataloader_num_workers to 1 or "
            "more, or leave it out"
        )
    if trainer.get("push_to_hub") and constants.HF_HUB_OFFLINE:
        yield "trainer.push_to_hub=true cannot work with HF_HUB_OFFLINE=1: unset one of them"


def _mismatched(recipe: Recipe, processes: int) -> Iterator[str]:
    key, accumulated = "per_device_train_batch_size", "gradient_accumulation_steps"
    step = processes
    for name in (key, accumulated):
        step *= int(recipe.trainer.get(name, DEFAULTS.get(name, 1)))
    if recipe.objective.needs_mismatched and step == 1:
        yield (
            f"trainer.{key}=1 cannot work with objective {name_of(recipe.objective)!r}, which pairs each prompt of an "
            f"optimiser step with another row's completion: set trainer.{key} or trainer.{accumulated} to 2 or more"
        )


def _engine(recipe: Recipe) -> Iterator[str]:
    device = device_of(recipe)
    if fsdp_would_be_idle(device):
        yield idle_fsdp(device)
    engine = asked_to_shard()
    for key in ("spo", "d2o"):
        if engine is not None and getattr(recipe, key) is not None:
            yield (
                f"{key} cannot work under {engine}, which shards the weights: launch with accelerate_configs/ddp.yaml, "
                "zero1.yaml or zero2.yaml"
            )


def _quantised(recipe: Recipe, device: torch.device) -> Iterator[str]:
    model = recipe.model
    if model.quantization is None:
        return
    try:
        located = locate(model.path)
    except ValueError:
        located = None  # among the mistakes of weights
    moves = model.reference_sync is not None
    yield from quantisation_faults(
        model.quantization, device, located, lora=model.lora is not None, reference=model.reference, moves=moves
    )
    for name in recipe.d2o.copies if recipe.d2o is not None and "chosen" in recipe.objective.reads else ():
        yield (
            f"model.quantization={model.quantization} with {name}, which keeps a copy of the policy that adapters are "
            f"merged into, and quantised weights take none: leave {name} out"
        )
    if (engine := asked_to_shard()) is not None:
        yield (
            f"model.quantization={model.quantization} cannot work under {engine}, which would shard the weights: "
            "launch with accelerate_configs/ddp.yaml, zero1.yaml or zero2.yaml"
        )


def _stopping(trainer: Any) -> Iterator[str]:
    steps, epochs = trainer.get("max_steps", -1), trainer.get("num_train_epochs")
    if steps > 0 and epochs != DEFAULTS["num_train_epochs"]:
        yield f"trainer.max_steps={steps} wins over trainer.num_train_epochs={epochs:g}, which is not used"
    if trainer.get("save_strategy") == "no":
        yield "trainer.save_strategy=no: a run that is killed starts again from its first step"


def _slow_types(recipe: Recipe) -> Iterator[str]:
    device = device_of(recipe)
    if device.type != "cpu" or fast_bfloat16(device):
        return
    if recipe.trainer.get("bf16"):
        yield "trainer.bf16=true: this CPU has no bfloat16 tiles, so that it can take longer than without"
    if recipe.model.dtype in ("bfloat16", "float16"):
        yield (
            f"model.dtype={recipe.model.dtype}: this CPU has no fast {recipe.model.dtype}; it saves memory, takes "
            "longer, and rounds small updates away"
        )


def _recomputing(recipe: Recipe) -> Iterator[str]:
    for name in ("gradient_checkpointing", "activation_checkpointing"):
        never = recipe.speed.checkpointing is False and not checkpointing(recipe)
        if recipe.trainer.get(f"{name}_kwargs") and never:
            yield f"trainer.{name}_kwargs is not used: trainer.{name} is not set, and speed.checkpointing is false"


def _several_gpus(trainer: Any) -> Iterator[str]:
    count = torch.cuda.device_count()
    if count > 1 and "WORLD_SIZE" not in os.environ and not trainer.get("use_cpu"):
        yield (
            f"there are {count} GPUs and one process would see them all, which training refuses: start it with "
            "'accelerate launch --config_file accelerate_configs/ddp.yaml scripts/train.py RECIPE', or set "
            "CUDA_VISIBLE_DEVICES"
        )


def _shared(recipe: Recipe) -> Iterator[str]:
    """Tell prompts that pairs are made from and that before and after are compared on as well."""
    generation = recipe.evaluation.generation
    made = [source.synth for source in recipe.data.train if source.synth is not None]
    if generation is None or not made:
        return
    trained = {p for synth in made for p in load_prompts(synth.prompts, synth.split, synth.limit)}
    asked = load_prompts(generation.prompts, generation.split, generation.limit)
    if both := sum(prompt in trained for prompt in asked):
        yield (
            f"{both} of {len(asked)} prompts of evaluation.generation are also in data.train.synth: before and after "
            "is then no comparison on unseen prompts; set evaluation.generation.split=heldout and "
            "data.train.synth.split=train"
        )


def asks_for_completions(recipe: Recipe) -> bool:
    """Whether a recipe asks for training on single completions; whether its objective can is not looked at."""
    asked = recipe.data.unpaired
    return recipe.objective.needs_mismatched if asked is None else asked


def checkpointing(recipe: Recipe) -> bool:
    """Whether a recipe says that activations are computed again in the backward."""
    asked = recipe.trainer.get("gradient_checkpointing") or recipe.trainer.get("activation_checkpointing")
    return bool(asked) or recipe.speed.checkpointing is True


def device_of(recipe: Recipe) -> torch.device:
    """Return the device that training would use, without touching it."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if recipe.trainer.get("use_cpu") or accelerator is None else accelerator
