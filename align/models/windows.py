"""Which window an attention layer has: said where attention is called, by the config, or by the model's mask alone."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

_PROBE = "align_window_probe"
_MARK = 7
"""Size of the fourth dimension of a mask that stands for one with a window."""


def layer_window(module: nn.Module, said: int | None) -> int | None:
    """Return the window of an attention layer: what attention was called with, else what ``layer_types`` say.

    Some models (Qwen2-MoE) put the window into the mask that they build, and call attention without it.

    Args:
        module: the attention, as transformers' attention interface passes it.
        said: the argument ``sliding_window`` of the call.
    """
    if isinstance(said, int) and said > 0:
        return said
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds or not isinstance(layer, int) or kinds[layer] != "sliding_attention":
        return None
    window = getattr(config, "sliding_window", None)
    return window if isinstance(window, int) and window > 0 else None


def hidden_window(model: Any) -> str:
    """Return in words that a model's window is in the mask that it builds, and nowhere else; empty where it is not.

    A copy of one layer, without numbers, is run up to its attention. Models whose ``layer_types`` say which layers
    have the window need no look, nor do those without one.
    """
    config = model.config.get_text_config()
    if getattr(config, "layer_types", None) or not getattr(config, "sliding_window", None):
        return ""
    name = type(model).__name__
    try:
        built, said = _first_call(model)
    except (ValueError, RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        return f"{name} has a sliding_window, and how it comes to the attention is not known ({type(error).__name__})"
    return f"{name} puts its sliding_window into the mask that it builds alone" if built and said is None else ""


class _CalledError(Exception):
    """Ends a forward at its first attention."""


def _first_call(model: Any) -> tuple[bool, int | None]:
    """Return whether the mask of the first layer's attention has a window, and which it is called with."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    text.num_hidden_layers = 1
    for each in (config, text):
        each._attn_implementation = _PROBE
    with torch.device("meta"):
        probe = type(model)(config)
        try:
            ids = torch.zeros(1, 2, dtype=torch.long)
            probe(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        except _CalledError as call:
            return call.args
    raise ValueError("no attention was called through the interface")


def _called(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> None:
    built = isinstance(attention_mask, Tensor) and attention_mask.shape[-1] == _MARK
    raise _CalledError(built, layer_window(module, sliding_window))


def _marked(*, local_size: int | None = None, **kwargs: Any) -> Tensor:
    return torch.zeros(1, 1, 1, 1 if local_size is None else _MARK)


AttentionInterface.register(_PROBE, _called)
AttentionMaskInterface.register(_PROBE, _marked)
