"""What this machine has: memory that is free, and how fast it multiplies matrices and moves numbers."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

MEASURED_SECONDS = 0.15
"""How long matrix products are timed at a time."""
MOVED_SECONDS = 0.1
"""How long an elementwise operation is timed at a time."""
MOVED_NUMBERS = 2**25
"""Numbers in the block it is timed on: 128 MiB in float32, more than caches hold."""
NO_LIMIT = 2**60
"""Control groups of the first kind state a limit beyond this where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory that a run could use.

    Attributes:
        kind: ``GPU memory`` or ``memory``.
        available: bytes that are free, or could be freed by the system.
        total: bytes there are.
        source: what said so.
    """

    kind: str
    available: int
    total: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast this machine is at a model's shapes, with what else it does when measured.

    Attributes:
        flops: floating-point operations a second in matrix products.
        traffic: bytes a second that elementwise operations read and write.
        dtype: number type of the matrix products.
        threads: threads that torch used; 0 on a GPU.
    """

    flops: float
    traffic: float
    dtype: torch.dtype
    threads: int

    def best(self, other: "Speed") -> "Speed":
        """Return the higher of both speeds: a moment in which something else ran says little of the machine."""
        return replace(self, flops=max(self.flops, other.flops), traffic=max(self.traffic, other.traffic))


def free_memory(device: torch.device, root: Path = Path("/")) -> Memory:
    """Return the memory of a device; of the CPU, what the machine and its control group leave.

    What this process holds itself counts as free: it ends before a run begins.

    Args:
        device: that training uses.
        root: where ``proc`` and ``sys`` are.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(kind="GPU memory", available=free, total=total, source="torch.cuda.mem_get_info")
    least = _least(root)
    available = min(least.available + _resident(root), least.total)
    return replace(least, available=available)


def memory_left(device: torch.device, *, sharers: int = 1, root: Path = Path("/")) -> Memory:
    """Return the memory of a device that this process, as it is, can still take.

    Args:
        device: that training uses.
        sharers: processes of the run on this machine; a CPU's memory is divided among them.
        root: where ``proc`` and ``sys`` are.
    """
    if device.type == "cuda":
        memory = free_memory(device, root)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return replace(memory, available=memory.available + unused)
    least = _least(root)
    return replace(least, available=least.available // sharers)


def measure_speed(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> Speed:
    """Time products of matrices ``(rows, inner) @ (inner, columns)``, and elementwise operations, for 0.25 s in all.

    The fastest of the repetitions counts: others are disturbed by what else the machine does.

    Args:
        device: that training uses.
        dtype: that training multiplies in.
        shape: rows, inner and columns: tokens of a batch, hidden size, intermediate size.
    """
    rows, inner, columns = shape
    with torch.no_grad():
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(columns, inner, device=device, dtype=dtype).t()
        seconds = _fastest(lambda: left @ right, device, MEASURED_SECONDS)
        here = torch.ones(MOVED_NUMBERS, device=device)
        moved = _fastest(lambda: torch.mul(here, here), device, MOVED_SECONDS)
    return Speed(
        flops=2.0 * rows * inner * columns / seconds,
        traffic=3.0 * here.nbytes / moved,
        dtype=dtype,
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
    )


def _fastest(work: Any, device: torch.device, seconds: float) -> float:
    work()  # the first call sets up
    _wait(device)
    best, begun = float("inf"), time.perf_counter()
    while True:  # once at least, however busy the machine is
        start = time.perf_counter()
        work()
        _wait(device)
        end = time.perf_counter()
        best = min(best, end - start)
        if end - begun >= seconds:
            return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(root: Path) -> Memory:
    file = root / "proc" / "meminfo"
    if file.is_file():
        said = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        available, total = (int(said[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        return Memory(kind="memory", available=available, total=total, source="MemAvailable")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(kind="memory", available=total, total=total, source="all memory of the machine")


def _least(root: Path) -> Memory:
    """Return what the machine or its tightest control group leaves, whichever is less."""
    machine = _machine(root)
    return min([machine, *_groups(root)], key=lambda memory: memory.available)


def _resident(root: Path) -> int:
    file = root / "proc" / "self" / "statm"
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else 0


def _groups(root: Path) -> Iterator[Memory]:
    """Yield what each control group that this process is in leaves of its limit; groups without one are left out."""
    file = root / "proc" / "self" / "cgroup"
    for line in file.read_text().splitlines() if file.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(root / "sys/fs/cgroup", path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            yield from _limits(base, path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _limits(base: Path, path: str, limit_file: str, used_file: str) -> Iterator[Memory]:
    here = base / path.lstrip("/")
    for folder in (here, *(p for p in here.parents if p.is_relative_to(base))):
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None and used is not None and limit < NO_LIMIT:
            free = max(limit - used + _cached(folder / "memory.stat"), 0)
            yield Memory(kind="memory", available=free, total=limit, source="limit of the control group")


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None


def _cached(file: Path) -> int:
    """Return the bytes of files that a group holds in memory and gives back when asked."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
