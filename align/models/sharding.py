"""Weights that no process holds whole: copying a policy that is sharded, and sharding its reference as it is.

Two libraries shard. DeepSpeed's ZeRO-3 leaves each parameter empty and keeps a piece aside (``ds_tensor``); FSDP2
makes each parameter a DTensor. A frozen reference is prepared as the policy is, layer by layer, so that one layer at a
time is whole while it computes.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor


def is_partitioned(parameter: torch.Tensor) -> bool:
    """Whether ZeRO-3 keeps a parameter in pieces."""
    return hasattr(parameter, "ds_id")


def duplicate(model: Any) -> Any:
    """Return a copy of a model; weights that ZeRO-3 keeps in pieces are so in the copy, one whole at a time."""
    if not any(is_partitioned(parameter) for parameter in model.parameters()):
        return copy.deepcopy(model)
    import deepspeed

    copied = copy.deepcopy(model)  # with empty tensors for those that lie in pieces
    done: set[int] = set()
    for ours, theirs in zip(model.modules(), copied.modules(), strict=True):
        own = [name for name, p in ours.named_parameters(recurse=False) if is_partitioned(p) and id(p) not in done]
        if not own:
            continue
        parameters = [getattr(ours, name) for name in own]
        done |= {id(parameter) for parameter in parameters}
        with deepspeed.zero.GatheredParameters(parameters):
            for name, parameter in zip(own, parameters, strict=True):
                getattr(theirs, name).data = parameter.data.clone()
        holder = nn.ParameterList([getattr(theirs, name) for name in own])
        deepspeed.zero.Init(module=holder, config_dict_or_path=_deepspeed_config())
    return copied


def prepared_reference(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return a frozen model where the engine wants it: on the device, or sharded as the policy is.

    Under ZeRO-1 and ZeRO-2 every process holds all weights, of the policy as of the reference.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        sharded: Any = fsdp2_prepare_model(accelerator, module)
        sharded.set_reshard_after_forward(True)  # else what lies outside the layers stays whole for a backward
        prepared: nn.Module = sharded.eval()
        return prepared
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        if accelerator.state.deepspeed_plugin.zero_stage == 3:
            return _under_zero3(module, accelerator)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
        module = module if dtype is None else module.to(dtype)
    return module.to(accelerator.device)


def _under_zero3(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return the model in an engine of DeepSpeed's that trains nothing and gathers a layer when it computes."""
    import deepspeed

    config = copy.deepcopy(accelerator.state.deepspeed_plugin.deepspeed_config)
    for training in ("optimizer", "scheduler"):
        config.pop(training, None)
    config["zero_optimization"].pop("offload_optimizer", None)
    config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"] = 1, 1
    config["train_batch_size"] = accelerator.num_processes
    hidden = int(module.config.get_text_config().hidden_size)  # type: ignore[operator,union-attr]
    for name, value in _BY_HIDDEN_SIZE.items():
        if config["zero_optimization"].get(name) in (None, "auto"):
            config["zero_optimization"][name] = int(value * (hidden if "threshold" in name else hidden * hidden))
    config["zero_optimization"] |= _ONE_LAYER
    engine, *_ = deepspeed.initialize(model=module, config=config)
    engine.eval()  # which returns nothing
    return engine  # type: ignore[no-any-return]


_BY_HIDDEN_SIZE = {
    "reduce_bucket_size": 1.0,
    "stage3_prefetch_bucket_size": 0.9,
    "stage3_param_persistence_threshold": 10.0,
}
"""What transformers' Trainer fills in for the policy: in squares of the hidden size, the threshold in hidden sizes."""


_ONE_LAYER = {"stage3_max_live_parameters": 1, "stage3_max_reuse_distance": 0}
"""A frozen model uses a weight once a batch. DeepSpeed's defaults would keep 1e9 gathered numbers for the next use."""


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return all weights by name, each whole, on the CPU; every process must call it."""
    return {name: whole(tensor) for name, tensor in model.named_parameters()}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a whole copy of a tensor on the CPU, however it is sharded; every process must call it."""
    if is_partitioned(tensor):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().cpu().clone()
    if isinstance(tensor, DTensor):
        gathered: torch.Tensor = tensor.full_tensor()
        return gathered.detach().cpu().clone()
    return tensor.detach().cpu().clone()


def held_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's weights that this process holds between two computations."""
    return sum(_held(parameter) for parameter in model.parameters())


def _held(parameter: Any) -> int:
    if is_partitioned(parameter):
        return max(int(parameter.ds_tensor.nbytes), int(parameter.data.nbytes))
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return int(local.nbytes)


@contextmanager
def kept_whole() -> Iterator[None]:
    """Load, and sample from, whole models inside, in one process alone, whatever the engine does with policies."""
    import os

    from transformers.integrations import deepspeed as zero3

    kept, name = zero3._hf_deepspeed_config_weak_ref, "FSDP_CPU_RAM_EFFICIENT_LOADING"
    asked = os.environ.get(name)
    zero3.unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    if asked is not None:
        os.environ[name] = "false"
    try:
        yield
    finally:
        zero3._hf_deepspeed_config_weak_ref = kept
        if asked is not None:
            os.environ[name] = asked


def _deepspeed_config() -> Any:
    from transformers.integrations.deepspeed import deepspeed_config

    return deepspeed_config()  # type: ignore[no-untyped-call]


def whole_on_device(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Return a tensor whole, on its device, without gradient; None for None. Every process must call it."""
    if tensor is None:
        return None
    if is_partitioned(tensor):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    if isinstance(tensor, DTensor):
        gathered: torch.Tensor = tensor.full_tensor()
        return gathered.detach()
    return tensor.detach()
