"""Loading policies and tokenizers with transformers: folders, hub names, adapters and GGUF files."""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from align.models.locate import Located, locate
from align.models.quantise import Quantisation, quantisation_config
from align.models.sharding import kept_whole

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model to load, and how.

    Attributes:
        path: a folder, a hub name, a GGUF file, or one inside an installed package.
        revision: of a hub name.
        dtype: of the weights.
        attn_implementation: transformers' own.
        trust_remote_code: whether code that comes with the model is run.
        quantisation: of the weights, which are then on ``device``; None for none.
        arithmetic: number type that quantised weights are multiplied in.
        device: where quantised weights are brought.
        keep_adapter: whether a folder with an adapter is loaded with the adapter on it, and only that trainable.
    """

    path: str
    revision: str | None = None
    dtype: torch.dtype = torch.float32
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    quantisation: Quantisation | None = None
    arithmetic: torch.dtype = torch.float32
    device: torch.device | None = None
    keep_adapter: bool = False


def load_model(source: Source) -> PreTrainedModel:
    """Load a causal language model, ready to train and to save, with dropout off.

    A GGUF file is dequantised. A folder with a LoRA adapter is loaded as its base with the adapter merged in, unless
    ``keep_adapter``.

    Raises:
        ValueError: if it cannot be found, is no causal language model, or has weights only in pickle form.
    """
    located = locate(source.path)
    if (adapter := _adapter_config(located)) is not None:
        with kept_whole():
            return _load_adapter(source, adapter)
    with _plain_errors(source.path), kept_whole() if located.gguf_file else nullcontext():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            located.path,
            gguf_file=located.gguf_file,
            dtype=source.dtype,
            output_loading_info=True,
            **_options(source),
            **({} if located.gguf_file else {"use_safetensors": True}),
        )
    model: PreTrainedModel
    model, found = loaded
    if lacking := sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])]):
        raise ValueError(f"the weights of {source.path!r} lack {len(lacking)} tensors, {lacking[0]} among them")
    if located.gguf_file:
        with kept_whole():
            model = _fresh_copy(model)
        model.name_or_path = source.path
    disable_dropout(model)
    return model


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; a missing pad token becomes the end-of-sequence token.

    Padding is masked by length everywhere, never by the pad id, so that the two may be the same.

    Raises:
        ValueError: if it cannot be found, or has no end-of-sequence token.
    """
    located = locate(source.path)
    with _plain_errors(source.path):
        tokenizer = AutoTokenizer.from_pretrained(
            located.path,
            revision=source.revision,
            gguf_file=located.gguf_file,
            trust_remote_code=source.trust_remote_code,
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source.path} has no end-of-sequence token; set eos_token in it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout but that of adapters to 0: policy and reference must agree where their weights do."""
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in path:
            module.p = 0.0
        for name, value in vars(module).items():  # probabilities that a model hands to functional dropout
            if "drop" in name and isinstance(value, float) and "lora" not in path:
                setattr(module, name, 0.0)


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Let adapters drop nothing inside; the model stays in the mode that it is in."""
    dropping = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.training and m.p > 0]
    for module in dropping:
        module.eval()
    try:
        yield
    finally:
        for module in dropping:
            module.train()


def describe_weights(path: str) -> str | None:
    """Return what a reader of results should know of the weights, or None: GGUF files are quantised."""
    located = locate(path)
    if located.gguf_file is None:
        return None
    return f"weights dequantised from {located.gguf_file}; they are not the original full-precision ones"


def _options(source: Source) -> dict[str, Any]:
    options: dict[str, Any] = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    if source.attn_implementation is not None:
        options["attn_implementation"] = source.attn_implementation
    if source.quantisation is not None:
        options["quantization_config"] = quantisation_config(source.quantisation, source.arithmetic)
        options["device_map"] = {"": source.device or torch.device("cpu")}
    return {key: value for key, value in options.items() if value is not None}


def _fresh_copy(quantised: PreTrainedModel) -> PreTrainedModel:
    # transformers marks models from GGUF files as quantised and refuses to save them; the weights are plain.
    config = copy.deepcopy(quantised.config)
    del config.quantization_config
    config._name_or_path = ""
    with no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=quantised.dtype, attn_implementation=quantised.config._attn_implementation
        )
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.generation_config = quantised.generation_config
    return model


def _adapter_config(located: Located) -> dict[str, Any] | None:
    file = Path(located.path) / ADAPTER_CONFIG
    return json.loads(file.read_text()) if file.is_file() else None


def _load_adapter(source: Source, config: dict[str, Any]) -> PreTrainedModel:
    from dataclasses import replace

    from peft import PeftModel

    if not (Path(source.path).expanduser() / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"the adapter in {source.path!r} has no adapter_model.safetensors; pickled ones are not loaded"
        )
    base = load_model(replace(source, path=config["base_model_name_or_path"], revision=config.get("revision")))
    adapted: Any = PeftModel.from_pretrained(base, source.path, is_trainable=source.keep_adapter)
    if source.keep_adapter:
        return adapted  # type: ignore[no-any-return]
    merged: PreTrainedModel = adapted.merge_and_unload()
    merged.name_or_path = source.path
    return merged


@contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        logging.getLogger(__name__).debug("loading %s failed", path, exc_info=True)
        raise ValueError(f"cannot load {path!r}: {str(error).strip()}") from error
