"""A model's structure without its numbers: built from the config alone, every parameter on torch's meta device."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from align.models.adapters import add_adapter, lora_config
from align.models.load import ADAPTER_CONFIG, Source, disable_dropout
from align.models.locate import locate
from align.recipe.schema import LoraSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Sizes of a model's parameters; a tensor that two modules share counts once.

    Attributes:
        parameters: numbers in all tensors, adapters included.
        trainable: numbers that training changes.
        weight_bytes: bytes of all tensors.
        trainable_bytes: bytes of those that training changes.
    """

    parameters: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int


def load_config(source: Source) -> Any:
    """Return the config that a model is built from; of an adapter's folder, that of its base.

    No weights are read: of a GGUF file, only its metadata is parsed.

    Raises:
        ValueError: if there is no config, or it cannot be read.
    """
    located = locate(source.path)
    if (file := Path(located.path) / ADAPTER_CONFIG).is_file():
        base = json.loads(file.read_text(encoding="utf-8"))
        return load_config(replace(source, path=base["base_model_name_or_path"], revision=base.get("revision")))
    options = {"revision": source.revision} if source.revision is not None else {}
    try:
        return AutoConfig.from_pretrained(
            located.path, gguf_file=located.gguf_file, trust_remote_code=source.trust_remote_code, **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"cannot read the config of {source.path!r}: {' '.join(str(error).split())}") from error


def skeleton(source: Source, lora: LoraSettings | None = None, *, config: Any = None) -> Any:
    """Build the policy as training does, dropout off and adapters on, with every tensor on the meta device.

    Args:
        source: the model; its weights are not opened.
        lora: adapters to put on it.
        config: the model's config, where it was read already.

    Raises:
        ValueError: if the config is of no causal language model, or the adapters' layers are not in it.
    """
    config = load_config(source) if config is None else config
    # A flash kernel holds as much memory as torch's own fused one, and cannot be called on tensors without numbers.
    wanted = "eager" if source.attn_implementation == "eager" else "sdpa"
    try:
        with torch.device("meta"):
            model = _from_config(config, source, wanted)
    except (ValueError, KeyError, ImportError) as error:
        raise ValueError(f"{source.path!r} is no causal language model: {' '.join(str(error).split())}") from error
    disable_dropout(model)
    return model if lora is None else _with_adapters(model, lora)


def counts(model: nn.Module) -> Counts:
    """Count a model's parameters; on the meta device as anywhere."""
    tensors = list(model.parameters())
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    return Counts(
        parameters=sum(tensor.numel() for tensor in tensors),
        trainable=sum(tensor.numel() for tensor in trained),
        weight_bytes=sum(tensor.nbytes for tensor in tensors),
        trainable_bytes=sum(tensor.nbytes for tensor in trained),
    )


def dropouts(config: Any) -> dict[str, float]:
    """Return the dropout probabilities of a config that are not 0; training sets them to 0."""
    named = vars(config).items()
    return {name: value for name, value in named if "drop" in name and isinstance(value, float) and value > 0}


def _from_config(config: Any, source: Source, attention: str) -> Any:
    options = {"dtype": source.dtype, "trust_remote_code": source.trust_remote_code}
    try:
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=attention, **options
        )
    except (ValueError, ImportError):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="eager", **options
        )


def _with_adapters(model: Any, lora: LoraSettings) -> Any:
    try:
        return add_adapter(model, lora_config(lora))
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ValueError(text if text.startswith("model.lora") else f"model.lora: {text}") from error
