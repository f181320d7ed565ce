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
    }
)
"""Settings of configurations that do not decide about log-probabilities, or that the weights say themselves."""


def identity_of(model: Any, *, adapters: bool) -> str:
    """Return 32 hex digits that are the same for models that compute the same; every process must call it.

    The same weights have one identity beneath adapters, in an engine, or by themselves.

    Args:
        model: sharded or not.
        adapters: whether adapters that are on it count; else it is the model beneath them.
    """
    digest = hashlib.blake2b(_configuration(model).encode(), digest_size=16)
    for name, tensor in sorted(_weights(model, adapters=adapters), key=lambda found: found[0]):
        value = whole(tensor).contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weights(model: nn.Module, *, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    beside = [name for name, module in model.named_modules() if getattr(module, BESIDE, False)]
    for name, tensor in model.named_parameters():
        if any(name.startswith(f"{other}.") for other in beside) or (not adapters and ".lora_" in name):
            continue
        yield _own_name(name), tensor


def _own_name(name: str) -> str:
    cut = True
    while cut:
        found = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), "")
        name, cut = name[len(found) :], bool(found)
    return name.replace(".base_layer.", ".").replace("._orig_mod.", ".")


def _configuration(model: Any) -> str:
    while not hasattr(getattr(model, "config", None), "to_dict"):  # an engine's own configuration is another
        model = model.module
    settings = {name: value for name, value in model.config.to_dict().items() if name not in VOLATILE}
    return json.dumps(settings, sort_keys=True, default=str)
