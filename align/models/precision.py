"""Which number types to use: what the device does well, unless the recipe says otherwise."""

from dataclasses import dataclass
from typing import Literal

import torch

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Precision:
    """Types of the weights and of the arithmetic.

    Attributes:
        weights: type the policy is loaded in.
        autocast: whether training runs under bfloat16 autocast.
        sampling: type of the copies that only generate.
        reason: one line for people.
    """

    weights: torch.dtype
    autocast: bool
    sampling: torch.dtype
    reason: str


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones on this device.

    On CPUs that holds where there are AMX tiles; elsewhere bfloat16 is emulated or a wash.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("amx_tile"))
    return False


def choose_precision(dtype: Dtype, device: torch.device, *, lora: bool, fast: bool | None = None) -> Precision:
    """Resolve ``model.dtype``.

    ``auto``: float32 weights, so that small updates are not rounded away, under bfloat16 autocast where the
    device is fast at it. On CUDA the frozen weights beneath adapters are bfloat16 too; the adapters stay float32.

    Args:
        dtype: ``model.dtype``.
        device: that training uses.
        lora: whether adapters are trained.
        fast: whether the device is fast at bfloat16; asked of it where absent.
    """
    if dtype != "auto":
        chosen = getattr(torch, dtype)
        return Precision(chosen, False, chosen, f"{dtype} as the recipe says")
    fast = fast_bfloat16(device) if fast is None else fast
    if not fast:
        return Precision(torch.float32, False, torch.float32, f"float32: {device.type} has no fast bfloat16")
    weights = torch.bfloat16 if device.type == "cuda" and lora else torch.float32
    kind = str(weights).removeprefix("torch.")
    return Precision(weights, True, torch.bfloat16, f"{kind} weights, bfloat16 autocast: {device.type} is fast at it")
