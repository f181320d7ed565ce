"""What runs a training: one process, data parallelism, FSDP2 or DeepSpeed's ZeRO; and who continues whose run.

Which one it is, is accelerate's: a configuration file at launch (``accelerate_configs/``) decides, never the recipe.
"""

import gc
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import DistributedType

ENGINE_FILE = "engine.json"
"""What a checkpoint says of the engine it was written under."""
PLAIN = ("one process", "ddp")
"""Engines that keep everything whole in every process, and write the same checkpoints."""
ASKED_FOR_FSDP = "ACCELERATE_USE_FSDP"
WAY_OUT = (
    "use accelerate_configs/ddp.yaml, or accelerate_configs/zero2.yaml and zero3.yaml with DS_ACCELERATOR=cpu, which "
    "do run on CPUs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine, as it is running.

    Attributes:
        name: ``one process``, ``ddp``, ``fsdp2``, ``zero1``, ``zero2``, ``zero3``; ``zero0``, DeepSpeed without ZeRO.
        processes: that train together.
    """

    name: str
    processes: int

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds all weights."""
        return self.name in ("fsdp2", "zero3")

    def continues(self, other: "Engine") -> str | None:
        """Return why a checkpoint of another engine cannot be continued, or None where it can.

        Optimiser state is what decides: plain engines write it whole; FSDP2 writes shards that any number of processes
        can read; ZeRO writes shards that as many processes as wrote them can read, stages 1 and 2 each other's.
        """
        if {self.name, other.name} <= {*PLAIN}:
            return None
        if self.name != other.name and {self.name, other.name} != {"zero1", "zero2"}:
            return f"its optimiser state is in the form of {other}, which {self.name} cannot read"
        if self.name.startswith("zero") and self.processes != other.processes:
            return f"its optimiser state lies in {other.processes} shards, which {self.processes} processes cannot read"
        return None

    def __str__(self) -> str:
        return self.name if self.name == "one process" else f"{self.name} with {self.processes} processes"


def engine_of(accelerator: Accelerator) -> Engine:
    """Return the engine that an accelerator has set up.

    Raises:
        ValueError: if FSDP was asked for and is not what runs, or it is the first version of FSDP.
    """
    kind, processes = accelerator.distributed_type, accelerator.num_processes
    if os.environ.get(ASKED_FOR_FSDP, "false").lower() == "true" and kind != DistributedType.FSDP:
        raise ValueError(idle_fsdp(accelerator.device))
    if kind == DistributedType.DEEPSPEED:
        return Engine(name=f"zero{accelerator.state.deepspeed_plugin.zero_stage}", processes=processes)
    if kind == DistributedType.FSDP:
        if accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise ValueError("FSDP1 is not supported: set fsdp_version: 2, as in accelerate_configs/fsdp2.yaml")
        return Engine(name="fsdp2", processes=processes)
    return Engine(name="ddp" if processes > 1 else "one process", processes=processes)


def leave_group() -> None:
    """Close this process's connections to the others, its work done; nothing where there is one process.

    Left to the interpreter's end, a thread of the group that still holds a tensor asks for Python when it is gone, and
    takes the process down: seldom, and after everything was written, but with an exit code that is not 0.
    """
    gc.collect()  # trainers stand in circles, and hold the group
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fsdp_needs_gpu(device: torch.device) -> bool:
    """Whether accelerate leaves FSDP out on this device, without a word."""
    return device.type == "cpu"


def idle_fsdp(device: torch.device) -> str:
    """Return what to say where FSDP was asked for and would not be used."""
    return (
        f"the launcher asks for FSDP, and accelerate leaves it out on {device.type}: every process would hold the "
        f"whole model without a word. Run it on GPUs, one process each; without them, {WAY_OUT}"
    )


def fsdp_would_be_idle(device: torch.device) -> bool:
    """Whether the launcher asks for FSDP on a device where accelerate leaves it out."""
    return os.environ.get(ASKED_FOR_FSDP, "false").lower() == "true" and fsdp_needs_gpu(device)


def asked_to_shard() -> str | None:
    """Return the engine that shards weights and that the launcher asks for, or None."""
    if os.environ.get(ASKED_FOR_FSDP, "false").lower() == "true":
        return "fsdp2"
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return "zero3" if deepspeed and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else None


def write_engine(engine: Engine, rows: int, checkpoint: Path) -> None:
    """Note in a checkpoint what wrote it, and how many rows its optimiser steps saw on all processes."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(engine), "rows": rows})
    (checkpoint / ENGINE_FILE).write_text(text + "\n", encoding="utf-8")


def rows_of_step(checkpoint: Path) -> int | None:
    """Return how many rows an optimiser step of the checkpoint's run saw; None where it does not say."""
    said = _said(checkpoint)
    return None if said is None else int(said["rows"])


def check_continues(engine: Engine, rows: int, checkpoint: Path) -> None:
    """Refuse a checkpoint that the engine cannot read whole, or whose steps saw another number of rows.

    Raises:
        ValueError: naming the engine that can, and what else can be done.
    """
    if (said := _said(checkpoint)) is None:
        return  # of a plain engine before this was noted, or not of this library: transformers says what it lacks
    wrote = Engine(name=said["name"], processes=said["processes"])
    if (why := engine.continues(wrote)) is not None:
        raise ValueError(
            f"{checkpoint} was written under {wrote} and cannot be continued under {engine}: {why}. Go on under "
            f"{wrote}; or start a new run from the weights alone, with a new output.dir and model.path set to "
            f"{_weights_of(checkpoint)}"
        )
    if said["rows"] != rows:
        raise ValueError(
            f"{checkpoint} is of a run whose optimiser steps see {said['rows']} rows; under {engine} they would see "
            f"{rows}: choose trainer.per_device_train_batch_size and trainer.gradient_accumulation_steps so that their "
            f"product with {engine.processes} processes is {said['rows']}"
        )


def _said(checkpoint: Path) -> dict[str, Any] | None:
    file = checkpoint / ENGINE_FILE
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return {"name": str(said["name"]), "processes": int(said["processes"]), "rows": int(said["rows"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: continue from an earlier checkpoint, or remove this one") from error


def _weights_of(checkpoint: Path) -> str:
    whole = any(checkpoint.glob("model*.safetensors")) or (checkpoint / "adapter_model.safetensors").is_file()
    if whole:
        return str(checkpoint)
    merge = f"accelerate merge-weights {checkpoint}/pytorch_model_fsdp_0 {checkpoint}"
    return f"{checkpoint}, after '{merge}' has put the weights beside its config"
