"""Parts of an Axolotl recipe that several of its keys decide together."""

from typing import Any

from align.recipe.foreign.asked import Asked, Part, set_objective
from align.recipe.foreign.axolotl import MARKUP
from align.recipe.foreign.draft import Draft, Setting
from align.recipe.foreign.given import Given
from align.recipe.foreign.methods import METHODS
from align.recipe.foreign.parts import hold_out, target_modules

_PLAIN_FORMATS = {f"{ours}_format": f"{{{ours}}}" for ours in ("prompt", "chosen", "rejected", "completion")}
_COLUMNS = ("prompt", "chosen", "rejected", "completion", "label")
_OWN_TEMPLATE = "rows go through the tokenizer's own chat template here"


def axolotl_parts(given: Given, draft: Draft) -> None:
    """Set the objective, adapters, data, number types, evaluation and reporting.

    Raises:
        RecipeError: for a method that has no counterpart.
    """
    _objective(given, draft)
    _adapters(given, draft)
    _data(given, draft)
    _numbers(given, draft)
    _steps(given, draft)
    _reporters(given, draft)
    _special_tokens(given, draft)


METHODS_OF_RL = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo", "simpo": "cpo"}
"""Values of ``rl``, and which of TRL's trainers they choose."""
_NAMES = {
    "dpo": {
        "loss_type": "dpo_loss_type",
        "loss_weights": "dpo_loss_weights",
        "label_smoothing": "dpo_label_smoothing",
        "use_weighting": "dpo_use_weighting",
        "rpo_alpha": "rpo_alpha",
    },
    "ipo": {"loss_type": "rl", "use_weighting": "dpo_use_weighting", "rpo_alpha": "rpo_alpha"},
    "kto": {"desirable_weight": "kto_desirable_weight", "undesirable_weight": "kto_undesirable_weight"},
    "orpo": {},
    "simpo": {"loss_type": "rl", "simpo_gamma": "simpo_gamma", "cpo_alpha": "cpo_alpha"},
}
"""For each value of ``rl``, Axolotl's key for each setting of TRL's trainer that it passes on."""


def _objective(given: Given, draft: Draft) -> None:
    kind, nested = given.take("rl"), given.take("trl") or {}
    if kind is None:
        message = "no 'rl' in this file: it trains on single answers, and align trains on preferences"
        raise given.refuse(next(iter(given.nodes)), message)
    if kind not in METHODS_OF_RL:
        raise given.refuse("rl", f"{kind!r} has no counterpart here; these have: {', '.join(METHODS_OF_RL)}")
    for key in [key for key in nested if key != "beta" and nested[key] is not None]:
        draft.decide(f"trl: {key}", given.line("trl"), "no counterpart in training on preferences")
    asked = Asked(given, draft, {**_NAMES[kind], "beta": _beta_key(given)}, loss=f"rl: {kind}")
    parts = METHODS[METHODS_OF_RL[kind]].parts(asked)
    _normalise(given, draft, parts)
    set_objective(draft, parts)


def _beta_key(given: Given) -> str:
    """Return the key of the strength: Axolotl reads the first of these, whatever the method."""
    keys = (given.lift("trl", "beta"), "rl_beta", "dpo_beta", "orpo_alpha")
    return next((key for key in keys if given.peek(key) is not None), "rl_beta")


def _normalise(given: Given, draft: Draft, parts: list[Part]) -> None:
    """Make DPO length-normalised where ``dpo_norm_loss``, a former key, asks for it."""
    if given.peek("dpo_norm_loss") is not True or any(part["name"].value != "dpo" for part in parts):
        return
    given.take("dpo_norm_loss")
    for part in parts:
        part["name"] = Setting(value="sigmoid_norm", source="dpo_norm_loss")


def _adapters(given: Given, draft: Draft) -> None:
    rank, alpha, dropout = given.take("lora_r"), given.take("lora_alpha"), given.take("lora_dropout", 0.0)
    linear, names, stabilised = (
        given.take(key) for key in ("lora_target_linear", "lora_target_modules", "peft_use_rslora")
    )
    kind = given.take("adapter")
    if kind is None:
        return
    if kind not in ("lora", "qlora"):
        draft.decide("adapter", given.line("adapter"), f"{kind!r} has no counterpart; plain LoRA stands there")
    if rank is None:
        rank = 8
        draft.decide("lora_r", None, "not given; 8 is what peft takes")
    alpha = 8 if alpha is None else alpha
    draft.set("model.lora.r", rank, f"adapter: {kind}, lora_r")
    note = f"scaled from {alpha}, as peft_use_rslora does" if stabilised else ""
    draft.set("model.lora.lora_alpha", alpha * rank**0.5 if stabilised else alpha, "lora_alpha", note)
    draft.set("model.lora.lora_dropout", dropout, "lora_dropout")
    if linear:
        draft.set("model.lora.target_modules", "all-linear", given.said("lora_target_linear", "lora_target_modules"))
    else:
        target_modules(given, draft, names)


def _data(given: Given, draft: Draft) -> None:
    for key, ours in (("datasets", "data.train"), ("test_datasets", "data.eval")):
        parts = given.take(key) or []
        if parts:
            draft.set(ours, [source for part in parts for source in _sources(given, draft, key, dict(part))], key)
    hold_out(given, draft, "val_set_size", given.take("val_set_size"))


def _sources(given: Given, draft: Draft, key: str, part: dict[str, Any]) -> list[dict[str, Any]]:
    path, kind = part.pop("path", None), part.pop("type", None)
    config, split, files = part.pop("name", None), part.pop("split", None), part.pop("data_files", None)
    part.pop("ds_type", None)  # the kind of file, which its name says
    columns, doubt = _columns(part, kind)
    if doubt:
        draft.decide(f"{key}: type", given.line(key), f"{path}: {doubt}")
    for name in [name for name in part if part[name] not in (None, [], {})]:
        draft.decide(f"{key}: {name}", given.line(key), f"{part[name]!r} of {path} has no counterpart")
    more = {"columns": columns} if columns else {}
    if files:
        return [{"path": file, **more} for file in ([files] if isinstance(files, str) else files)]
    source = {"path": path, "config": config, "split": split, **more}
    return [{name: value for name, value in source.items() if value is not None}]


def _columns(part: dict[str, Any], kind: Any) -> tuple[dict[str, str], str]:
    """Return our columns' names over theirs, and what a person should look at; takes the keys it reads."""
    if isinstance(kind, dict):
        formats = {key: kind.get(key) or plain for key, plain in _PLAIN_FORMATS.items()}
        doubt = "" if formats == _PLAIN_FORMATS else "its formats write around the cells; write the rows so"
        if kind.get("field_system"):
            doubt = "a system column has no counterpart; write it into the rows as turns"
        return _renamed({ours: kind.get(f"field_{ours}") for ours in _COLUMNS}), doubt
    family, _, strategy = str(kind or "").partition(".")
    if family == "chat_template":
        return _chat_columns(part, strategy)
    if family in ("chatml", "llama3", "zephyr"):
        doubt = f"{kind!r} writes {family} markup whatever the tokenizer, and a column 'system'; {_OWN_TEMPLATE}"
        return MARKUP.get(strategy, {}), doubt
    return {}, "" if kind is None or kind == "passthrough" else f"{kind!r} is not known; rows are read as they are"


def _chat_columns(part: dict[str, Any], strategy: str) -> tuple[dict[str, str], str]:
    fields = {"prompt": part.pop("field_messages", None) or "messages"}
    fields |= {ours: part.pop(f"field_{ours}", None) for ours in ("chosen", "rejected")}
    mappings, roles = part.pop("message_property_mappings", None) or {}, part.pop("roles", None) or {}
    doubt = ""
    if any(ours != theirs for ours, theirs in mappings.items()):
        doubt = f"turns are read as {{role, content}}, not as {mappings}"
    if any(theirs != [ours] for ours, theirs in roles.items()):
        doubt = f"roles are read by their usual names, not as {roles}"
    if strategy.startswith("argilla"):
        del fields["prompt"]  # chosen and rejected are whole conversations; the turns they share are the prompt
    return _renamed(fields), doubt


def _renamed(fields: dict[str, Any]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in fields.items() if theirs and theirs != ours}


def _numbers(given: Given, draft: Draft) -> None:
    said = next((v for key in ("bf16", "bfloat16") if (v := given.take(key)) is not None), None)
    if said == "auto":
        draft.set(
            "model.dtype",
            "auto",
            "bf16: auto",
            "float32 weights under bfloat16 arithmetic where the device is "
            "fast at it; there the weights are bfloat16 too, which rounds small updates away",
        )
    elif said:
        draft.set("model.dtype", "bfloat16", "bf16")
        draft.set("trainer.bf16", True, "bf16")


def _steps(given: Given, draft: Draft) -> None:
    epochs = given.peek("num_epochs") or 1
    evaluations, saves = given.take("evals_per_epoch"), given.take("saves_per_epoch")
    held_out = {"data.eval", "data.eval_fraction"} & draft.settings.keys()
    if evaluations and held_out:
        draft.set("trainer.eval_strategy", "steps", "evals_per_epoch")
        draft.set("trainer.eval_steps", _share(evaluations, epochs), f"evals_per_epoch: {evaluations}")
        draft.set("trainer.eval_on_start", True, "Axolotl's default")
    elif evaluations:
        draft.leave("evals_per_epoch", "nothing is held out, so nothing was evaluated")
    if saves:
        draft.set("trainer.save_strategy", "steps", "saves_per_epoch")
        draft.set("trainer.save_steps", _share(saves, epochs), f"saves_per_epoch: {saves}")
    steps = given.peek("eval_steps")
    if steps and held_out:
        draft.set("trainer.eval_strategy", "steps", "eval_steps")
    if given.peek("save_steps"):
        draft.set("trainer.save_strategy", "steps", "save_steps")
    if draft.settings.get("trainer.save_strategy") is None and not given.peek("save_strategy"):
        draft.set("trainer.save_strategy", "epoch", "Axolotl's default")
    if given.peek("eval_batch_size") is None:
        size = given.peek("micro_batch_size") or 1
        draft.set("trainer.per_device_eval_batch_size", size, "Axolotl's default: micro_batch_size")


def _share(times: float, epochs: float) -> float:
    """Return how many times an epoch as a share of all steps, to six digits."""
    share = round(1 / (times * epochs), 6)
    return share if share < 1 else 0.999999  # 1 would be one step


def _reporters(given: Given, draft: Draft) -> None:
    keys = {"use_wandb": "wandb", "use_tensorboard": "tensorboard", "use_mlflow": "mlflow"}
    keys |= {"use_comet": "comet_ml", "use_trackio": "trackio"}
    names = [name for key, name in keys.items() if given.take(key) is True]
    project, run = given.take("wandb_project"), given.take("wandb_name")
    if project and "wandb" not in names:
        names.append("wandb")
    if names:
        note = f"set the environment variable WANDB_PROJECT to {project}" if project else ""
        draft.set("trainer.report_to", names, "wandb_project" if project else "use_...", note)
    if run:
        draft.set("trainer.run_name", run, "wandb_name")


def _special_tokens(given: Given, draft: Draft) -> None:
    tokens = {key: value for key, value in (given.take("special_tokens") or {}).items() if value}
    others = [key for key in tokens if key != "pad_token"]
    if others:
        text = f"{', '.join(others)}: the tokenizer is taken as it is saved beside the model; save it with these"
        draft.decide("special_tokens", given.line("special_tokens"), text)
    elif tokens:
        draft.leave("special_tokens", "padding is masked by length, so any pad token will do")
