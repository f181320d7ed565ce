"""FSDP2 that is really used, on CPUs over gloo: what ``align train`` refuses for users, for tests and studies.

accelerate turns FSDP into plain data parallelism where there is no GPU. Here the state it has made is corrected before
a trainer reads it, so that weights become DTensors. Slow, and supported by nobody: not for training.

    accelerate launch --config_file accelerate_configs/fsdp2.yaml scripts/studies/fsdp_on_gloo.py RECIPE
"""

import os
import sys
from typing import Any


def use_fsdp_on_gloo() -> None:
    """Let accelerate's state say FSDP, with its plugin, wherever it was asked for and turned off."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    from align.trainers import engine

    made = AcceleratorState.__init__

    def corrected(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = FullyShardedDataParallelPlugin()

    AcceleratorState.__init__ = corrected
    engine.fsdp_needs_gpu = lambda device: False


def asked_for() -> bool:
    """Whether the launcher was given an FSDP configuration."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"


if __name__ == "__main__":
    if not asked_for():
        sys.exit("launch this with accelerate_configs/fsdp2.yaml")
    use_fsdp_on_gloo()
    from align.cli.main import ended, main

    sys.exit(ended(main(["train", *sys.argv[1:]])))
