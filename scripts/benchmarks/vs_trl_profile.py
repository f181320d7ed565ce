"""Where the time of a row's steps goes, operator by operator, beside the limit's: ``vs_trl.py --profile ROW``."""

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as recorded
from transformers import TrainerCallback

from scripts.benchmarks.vs_trl_loops import Limit
from scripts.benchmarks.vs_trl_rows import Row, trainer_of

STEPS = 3
WARM = 1
SHOWN = 14
NONE = (0.0, 0)


class _Recorder(TrainerCallback):
    """Records a trainer's steps after the first, in the thread that they run in."""

    def __init__(self, made: recorded) -> None:
        self.made, self.begun, self.seconds = made, 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with the first step that counts."""
        if state.global_step == WARM:
            self.made.start()
            self.begun = time.perf_counter()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """End with the last one."""
        self.seconds = time.perf_counter() - self.begun
        self.made.stop()


def profile(row: Row, device: str) -> str:
    """Return a table of the operators that take longest by themselves, a step of one thread's, in milliseconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of("align", row, WARM + STEPS, device, folder)
            recorder = _Recorder(_recorded(device))
            trainer.add_callback(recorder)
            trainer.train()
        return _table(_found(recorder.made, recorder.seconds, device), _least(row, device))
    finally:
        torch.set_num_threads(before)


def _least(row: Row, device: str) -> dict[str, tuple[float, int]]:
    """Return the same of the limit."""
    limit, made = Limit(row, WARM + STEPS, device), _recorded(device)
    for number in range(WARM):
        limit.step(number)
    begun = time.perf_counter()
    with made:
        for number in range(WARM, WARM + STEPS):
            limit.step(number)
        seconds = time.perf_counter() - begun
    return _found(made, seconds, device)


def _recorded(device: str) -> recorded:
    return recorded(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])])


def _found(made: recorded, seconds: float, device: str) -> dict[str, tuple[float, int]]:
    """Return self time and calls a step of each operator, and the whole by the clock."""
    attribute = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    found = {each.key: (getattr(each, attribute) / 1e3 / STEPS, each.count // STEPS) for each in made.key_averages()}
    return {**found, "whole": (1e3 * seconds / STEPS, 1)}


def _table(ours: Mapping[str, tuple[float, int]], least: Mapping[str, tuple[float, int]]) -> str:
    whole, limit = ours["whole"][0], least["whole"][0]
    either = {name: max(ours.get(name, NONE)[0], least.get(name, NONE)[0]) for name in {*ours, *least} - {"whole"}}
    top = sorted(either, key=lambda name: -either[name])[:SHOWN]
    top.sort(key=lambda name: -ours.get(name, NONE)[0])
    lines = ["| operator | align, ms | share | calls | limit, ms | calls |", "| --- | --- | --- | --- | --- | --- |"]
    for name in top:
        (spent, calls), (theirs, others) = ours.get(name, NONE), least.get(name, NONE)
        lines.append(f"| `{name}` | {spent:.1f} | {spent / whole:.0%} | {calls} | {theirs:.1f} | {others} |")
    rest = [each - sum(some.get(name, NONE)[0] for name in top) for each, some in ((whole, ours), (limit, least))]
    lines.append(f"| all others, and Python | {rest[0]:.1f} | {rest[0] / whole:.0%} | | {rest[1]:.1f} | |")
    lines.append(f"| a step, profiled | {whole:.1f} | 100% | | {limit:.1f} | |")
    return "\n".join(lines)
