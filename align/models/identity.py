"""What decides about a model's log-probabilities, as one text: its weights by name, and how it is put together."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from align.models.beside import BESIDE
from align.models.sharding import whole

WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
"""Names of engines, compilers and adapters around a model, in front of its own."""
VOLATILE = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "use_cache",
        "dtype",
        "torch_dtype",
        "attn_implementation",
        "architectures",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "peft_version",
        "lora_dropout",
    }
)
"""Settings of configurations that do not decide about log-probabilities, or that the weights say themselves."""
ADAPTED = (".lora_", ".modules_to_save.")
"""Parts of names of weights that adapters brought."""
ZERO_AT_FIRST = (".lora_B.", ".lora_embedding_A.")
"""The factor of a LoRA product that begins as 0."""


def identity_of(model: Any, *, adapters: bool | None) -> str:
    """Return 32 hex digits that are the same for models that compute the same; every process must call it.

    The same weights have one identity beneath adapters, in an engine, or by themselves.

    Args:
        model: sharded or not.
        adapters: whether adapters that are on it count; else it is the model beneath them. None: where they add
            something, which new ones do not.
    """
    if adapters is None:
        adapters = not _adds_nothing(model)
    digest = hashlib.blake2b(_configuration(model).encode(), digest_size=16)
    if adapters:
        digest.update(_of_adapters(model).encode())
    for name, tensor in sorted(_weights(model, adapters=adapters), key=lambda found: found[0]):
        value = whole(tensor).contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _adds_nothing(model: nn.Module) -> bool:
    """Return whether there are adapters, and none of them is trained yet: one factor of each product is 0."""
    found = [(name, tensor) for name, tensor in model.named_parameters() if any(part in name for part in ADAPTED)]
    factors = [tensor for name, tensor in found if any(part in name for part in ZERO_AT_FIRST)]
    saved = any(".modules_to_save." in name for name, _ in found)
    return bool(factors) and not saved and not any(bool(tensor.any()) for tensor in factors)


def _weights(model: nn.Module, *, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    beside = [name for name, module in model.named_modules() if getattr(module, BESIDE, False)]
    for name, tensor in (*model.named_parameters(), *_kept_buffers(model)):
        if any(name.startswith(f"{other}.") for other in beside) or (not adapters and any(a in name for a in ADAPTED)):
            continue
        yield _own_name(name), tensor
        for part, value in _of_codes(tensor):
            yield f"{_own_name(name)}.{part}", value


def _of_codes(tensor: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield what the codes of a quantised weight are multiplied by, where bitsandbytes keeps it beside them."""
    state = getattr(tensor, "quant_state", None)
    yield from (() if state is None else state.as_dict(packed=True).items())
    scales = getattr(tensor, "SCB", None)
    yield from (("SCB", scales),) if isinstance(scales, Tensor) else ()


def _kept_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield buffers that are saved with a model; the others follow from its configuration."""
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name, buffer


def _of_adapters(model: Any) -> str:
    """Return which adapters are on and what they are multiplied by; empty where there are none."""
    configs = next((found for each in _inwards(model) if (found := getattr(each, "peft_config", None))), None)
    if not isinstance(configs, dict):
        return ""
    of_layers: dict[str, Any] = {}
    for path, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            active = list(getattr(module, "active_adapters", ()))
            off = [bool(getattr(module, name, False)) for name in ("disable_adapters", "merged")]
            of_layers[_own_name(f"{path}.")] = [{k: float(v) for k, v in scaling.items()}, active, off]
    plain = (bool, int, float, str, type(None))
    settings = {
        name: {key: value for key, value in vars(config).items() if isinstance(value, plain) and key not in VOLATILE}
        for name, config in configs.items()
    }
    return json.dumps([settings, of_layers], sort_keys=True, default=str)


def _inwards(model: Any) -> Iterator[Any]:
    """Yield a model and what engines and compilers have wrapped, the outermost first."""
    while model is not None:
        yield model
        model = getattr(model, "module", None) or getattr(model, "_orig_mod", None)


def depends_on_batch(model: Any, longest: int | None) -> str:
    """Return why log-probabilities of a row depend on the rows beside it, for people; empty where they do not.

    Args:
        model: wrapped or not.
        longest: most tokens that a row has; None for any number.
    """
    config: Any = _config_of(model)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(each for each in ropes.values() if isinstance(each, dict))):
        kind = str(rope.get("rope_type", ""))
        before: int = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", 0) or 0
        if ("dynamic" in kind or kind == "longrope") and (longest is None or longest > before):
            return (
                f"positions of rope type {kind!r} depend on the longest row of a batch from {before:,} tokens on, and "
                f"rows may have {'any number' if longest is None else f'{longest:,}'}"
            )
    return ""


def _own_name(name: str) -> str:
    cut = True
    while cut:
        found = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), "")
        name, cut = name[len(found) :], bool(found)
    for inserted in (".base_layer.", ".original_module.", "._orig_mod."):
        name = name.replace(inserted, ".")
    return name


def _config_of(model: Any) -> Any:
    while not hasattr(getattr(model, "config", None), "to_dict"):  # an engine's own configuration is another
        model = model.module
    return model.config


def _configuration(model: Any) -> str:
    settings = {name: value for name, value in _config_of(model).to_dict().items() if name not in VOLATILE}
    return json.dumps(settings, sort_keys=True, default=str)
