"""Parts of a recipe that several of their keys decide together: adapters, and the sources of TRL."""

from typing import Any

from align.recipe.foreign.answers import scaled_alpha
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given

RANK = 16
"""Rank of adapters where TRL's file names none."""


def trl_adapters(given: Given, draft: Draft) -> None:
    """Set ``model.lora`` by TRL's keys, with the values that TRL takes where the file is silent."""
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora")
    if given.take("use_peft") is not True:
        for key in (key for key in keys if key in given.nodes):
            given.take(key)
            draft.leave(key, "use_peft is not true, so nothing used it")
        return
    rank, alpha, stabilised = given.take("lora_r", RANK), given.take("lora_alpha", 32), given.take("use_rslora")
    draft.set("model.lora.r", rank, f"use_peft, {_source(given, 'lora_r')}")
    note = f"scaled from {alpha}, as use_rslora does" if stabilised else ""
    alpha = scaled_alpha(alpha, rank) if stabilised else alpha
    draft.set("model.lora.lora_alpha", alpha, _source(given, "lora_alpha"), note)
    draft.set("model.lora.lora_dropout", given.take("lora_dropout", 0.05), _source(given, "lora_dropout"))
    target_modules(given, draft, given.take("lora_target_modules"))


def target_modules(given: Given, draft: Draft, names: Any) -> None:
    """Set the layers that get adapters; where none are named, those that peft chooses for most models."""
    if names is None:
        names = ["q_proj", "v_proj"]
        text = "not given; peft then chooses by architecture, these for Llama, Mistral, Qwen and Gemma"
        draft.decide("lora_target_modules", None, text)
    whole = names in ("all-linear", ["all-linear"])
    draft.set("model.lora.target_modules", "all-linear" if whole else names, _source(given, "lora_target_modules"))


def _source(given: Given, key: str) -> str:
    return key if given.peek(key) is not None else "TRL's default"


def trl_sources(given: Given, draft: Draft) -> None:
    """Set ``data`` by ``dataset_name`` or a mixture ``datasets``."""
    name, config = given.take("dataset_name"), given.take("dataset_config")
    train, test = given.take("dataset_train_split", "train"), given.take("dataset_test_split", "test")
    mixture, held_out = given.take("datasets") or [], given.take("test_split_size")
    if mixture:
        draft.set("data.train", [s for part in mixture for s in trl_source(given, draft, part)], "datasets")
        shares(given, draft, "datasets")
    elif name is not None:
        extra = {} if config is None else {"config": config}
        draft.set(
            "data.train",
            [{"path": name, **extra, "split": train}],
            given.said("dataset_name", "dataset_config", "dataset_train_split"),
        )
        if evaluates(given):
            draft.set(
                "data.eval",
                [{"path": name, **extra, "split": test}],
                given.said("dataset_test_split") or "TRL's default",
            )
    hold_out(given, draft, "test_split_size", held_out)


def trl_source(given: Given, draft: Draft, part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one data set of a mixture as sources: several where it names several files."""
    part = dict(part)
    path, config, split = part.pop("path", None), part.pop("name", None), part.pop("split", "train")
    files, share = part.pop("data_files", None), part.pop("fraction", None)
    part.pop("columns", None)  # they select, and columns that are not needed are left alone here
    for key in [key for key in part if part[key] is not None]:
        draft.decide(f"datasets: {key}", given.line("datasets"), f"{part[key]!r} of {path} has no counterpart")
    weight = {} if share is None else {"weight": share}
    if files is not None:
        chosen = files.get(split, []) if isinstance(files, dict) else files
        return [{"path": file, **weight} for file in ([chosen] if isinstance(chosen, str) else chosen)]
    return [{"path": path, **({} if config is None else {"config": config}), "split": split, **weight}]


def shares(given: Given, draft: Draft, key: str) -> None:
    """Make TRL's fractions of a mixture into weights, and say where that needs the number of rows."""
    sources = draft.settings["data.train"].value
    if not any("weight" in source for source in sources):
        return
    whole = {source.get("weight") for source in sources}
    for source in sources:
        source["weight"] = 1.0 if len(whole) == 1 and len(sources) == 1 else source.get("weight", 1.0)
    if len(sources) > 1:
        text = (
            "fractions are shares of the mixture there, weights are shares of each source's rows here; with N rows in "
            "a source and T in all, its weight is fraction * T / N"
        )
        draft.decide(f"{key}: fraction", given.line(key), text)


def evaluates(given: Given) -> bool:
    """Return whether a file of TRL or alignment-handbook asks for evaluation while it trains."""
    said = {str(given.peek(key)) for key in ("eval_strategy", "evaluation_strategy") if given.peek(key) is not None}
    return bool(said - {"no", "False"})


def hold_out(given: Given, draft: Draft, key: str, size: Any) -> None:
    """Set ``data.eval_fraction`` by a share or a count of rows; a count becomes a share that its reader corrects."""
    if not size or "data.eval" in draft.settings:
        return
    if 0 < size < 1:
        draft.set("data.eval_fraction", size, key, "a share of the prompts, chosen by a hash of their text")
        return
    draft.set("data.eval_fraction", 0.05, f"{key}: {size}")
    draft.decide(
        key,
        given.line(key.partition(":")[0]),
        f"{size} rows were held out; data.eval_fraction takes a share of the prompts, and 0.05 stands there for now",
    )
