"""Frozen weights in 4 or 8 bits beneath adapters (QLoRA, Dettmers et al., 2023, arXiv:2305.14314), by bitsandbytes."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Literal

import torch

from align.models.locate import Located

Quantisation = Literal["nf4", "fp4", "int8"]
DEVICES = ("cpu", "cuda", "xpu")
"""Devices on which bitsandbytes 0.50 multiplies quantised weights."""


def quantisation_config(kind: Quantisation, arithmetic: torch.dtype) -> Any:
    """Return transformers' configuration of a quantisation.

    Args:
        kind: ``nf4`` and ``fp4`` have four bits and doubly quantised scales; ``int8`` is LLM.int8(), arXiv:2208.07339.
        arithmetic: number type that 4-bit weights are turned into to be multiplied.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=arithmetic,
    )


def is_quantised(model: object) -> bool:
    """Whether a model's weights were quantised when it was loaded."""
    return bool(getattr(model, "is_quantized", False))


def quantisation_faults(
    kind: Quantisation, device: torch.device, located: Located | None, *, lora: bool, reference: str, moves: bool
) -> Iterator[str]:
    """Yield why a recipe's ``model.quantization`` cannot work, each with the fix.

    Args:
        kind: of the quantisation.
        device: that training uses.
        located: the weights; None where they were not found.
        lora: whether adapters are trained.
        reference: ``model.reference``.
        moves: whether the reference follows the policy.
    """
    asked = f"model.quantization={kind}"
    if not lora:
        yield f"{asked} cannot work without model.lora: quantised weights are frozen, only adapters on them are trained"
    if find_spec("bitsandbytes") is None:
        yield f"{asked} needs the package bitsandbytes: pip install 'align[qlora]'"
    if device.type not in DEVICES:
        yield f"{asked} cannot work on {device.type}: bitsandbytes runs on {', '.join(DEVICES)}; leave it out"
    if located is not None and located.gguf_file is not None:
        yield f"{asked} with a GGUF file, which is quantised itself and read whole: give the original weights"
    if lora and (reference not in ("auto", "adapter_off", "none") or moves):
        yield (
            f"{asked} with a reference of its own would hold a second, whole model: leave model.reference and "
            "model.reference_sync out; the reference is then the policy with its adapters off"
        )
