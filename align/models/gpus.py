"""GPUs that a run is planned on: memory, speed, links, and how long collectives take on them."""

import math
from dataclasses import dataclass, fields
from typing import Any

GIGA = 1e9
TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """GPUs and their links, as options of ``align validate`` name them.

    Defaults are data sheet figures of an H100 SXM in a node of eight with one 400 Gbit/s network adapter a GPU, and a
    share of the peak that is ours. It is the share of every operation that is computed, those of the reference and
    those that checkpointing repeats among them. Public figures of full DPO count neither: 22.5 % of the peak with
    OLMo2-7B on 16 H100s (github.com/allenai/open-instruct, pull request 1466), about 32 % later (pull request 1720).
    Where a forward is repeated, 8 operations are computed for 6 that they count: 30 % and 43 % as counted here.

    Attributes:
        count: ``--gpus``, all nodes together.
        memory: ``--gpu-memory``, GiB of one GPU.
        tflops: ``--gpu-tflops``, peak of one GPU in the number type that is computed in, 10^12 operations a second.
        utilisation: ``--utilisation``, share of the peak that computing reaches.
        per_node: ``--gpus-per-node``.
        node_bandwidth: ``--node-bandwidth``, 10^9 bytes a second that a GPU receives from others of its node.
        network_bandwidth: ``--network-bandwidth``, 10^9 bytes a second that a node receives for each of its GPUs.

    Raises:
        ValueError: for a number that cannot be, naming the option.
    """

    count: int
    memory: float = 80.0
    tflops: float = 989.0
    utilisation: float = 0.4
    per_node: int = 8
    node_bandwidth: float = 450.0
    network_bandwidth: float = 50.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{OPTIONS[each.name]} must be more than 0, got {value:g}")
        if self.utilisation > 1:
            raise ValueError(f"--utilisation is a share of the peak, at most 1, got {self.utilisation:g}")
        if self.count > self.per_node and self.count % self.per_node:
            raise ValueError(
                f"--gpus {self.count} do not fill nodes of {self.per_node} (--gpus-per-node), and accelerate starts as "
                "many processes on each node: choose a multiple"
            )

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Gpus | None":
        """Return the GPUs that options describe, None where no option is given.

        Args:
            given: fields by name, None for options that are not given.

        Raises:
            ValueError: for options beside a missing ``--gpus``, or a number that cannot be.
        """
        known = {name: value for name, value in given.items() if value is not None}
        if "count" not in known and known:
            named = ", ".join(OPTIONS[name] for name in known)
            raise ValueError(f"{named} without --gpus: say how many GPUs the run is planned on, such as --gpus 8")
        return cls(**known) if known else None

    @property
    def nodes(self) -> int:
        """Nodes that so many GPUs take."""
        return math.ceil(self.count / self.per_node)

    @property
    def flops(self) -> float:
        """Operations a second that computing reaches on one GPU."""
        return self.tflops * TERA * self.utilisation

    def gathering(self, size: float) -> float:
        """Return the seconds in which every GPU has all of ``size`` bytes, of which each holds an equal part.

        A GPU lacks ``(count - 1) / count`` of it. A node lacks ``(nodes - 1) / nodes`` of it, which comes once, over
        the adapters of all its GPUs, and is handed on inside. Both go on at the same time: the slower one counts.
        Reducing and scattering is the same the other way round, and takes as long.
        """
        inside = size * (self.count - 1) / self.count / (self.node_bandwidth * GIGA)
        adapters = min(self.per_node, self.count)
        between = size * (self.nodes - 1) / self.nodes / (adapters * self.network_bandwidth * GIGA)
        return max(inside, between)


OPTIONS = {
    "count": "--gpus",
    "memory": "--gpu-memory",
    "tflops": "--gpu-tflops",
    "utilisation": "--utilisation",
    "per_node": "--gpus-per-node",
    "node_bandwidth": "--node-bandwidth",
    "network_bandwidth": "--network-bandwidth",
}
"""Field of :class:`Gpus`: the option that sets it."""
