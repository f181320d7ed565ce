"""What ``vs_trl.py`` makes of the seconds of its steps: ratios with their spread, agreement, use of a GPU."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scripts.benchmarks.vs_trl_loops import Limit, Turns
from scripts.benchmarks.vs_trl_rows import TUNED, Row, sizes

PEAK = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12}
"""Dense bf16 operations a second, as the makers state them."""


def spread(values: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median, and the first and third quartile."""
    if len(values) < 2:
        return values[0], [values[0], values[0]]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, [low, high]


def ratios(some: Sequence[float], others: Sequence[float]) -> tuple[float, list[float]]:
    """Return median and quartiles of the ratio of each step of one arm to the same step of another.

    The steps of a pair run one after the other, so what slows the machine down for longer than a step is in both.
    """
    middle, quartiles = spread([one / other for one, other in zip(some, others, strict=True)])
    return round(middle, 2), [round(each, 2) for each in quartiles]


def times(steps: Mapping[str, Sequence[float]], limit: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return what is said of the seconds of steps that count.

    Args:
        steps: seconds of each arm's.
        limit: seconds of the limit's forward and backward, and of all of its step.
    """
    ours = steps["align"]
    best = min((arm for arm in TUNED if arm in steps), key=lambda arm: statistics.median(steps[arm]))
    found: dict[str, Any] = {"best": best}
    for name, some, others in (
        ("wall_ratio", steps[best], ours),
        ("wall_ratio_default", steps["trl as it comes"], ours),
        ("over_limit", ours, [each[0] for each in limit]),
        ("over_limit_with_optimizer", ours, [each[1] for each in limit]),
    ):
        if others:
            found[name], found[f"{name}_quartiles"] = ratios(some, others)
    found["wall_ratios"] = {arm: ratios(steps[arm], ours)[0] for arm in steps if arm != "align"}
    return found


def completed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what files of before do not have: one tuned arm, no quartiles of ratios to TRL."""
    return {**times(row["steps"], []), **row}


def figures(
    row: Row,
    turns: Mapping[str, Turns],
    limit: Limit,
    logps: Mapping[str, Sequence[Tensor]],
    warm: int,
) -> dict[str, Any]:
    """Return times, tokens and agreement."""
    steps = {arm: found.seconds[warm:] for arm, found in turns.items()}
    seconds = {arm: statistics.median(each) for arm, each in steps.items()}
    cpu = {arm: statistics.median(found.cpu_seconds[warm:]) for arm, found in turns.items()}
    unique = statistics.mean(int(layout.real.sum()) for layout in limit.layouts[warm:])
    padded, real = sizes(row, len(limit.layouts), warm)
    found = times(steps, limit.seconds[warm:])
    found |= {
        "cpu_ratio": round(cpu[found["best"]] / cpu["align"], 2),
        "cpu_ratio_default": round(cpu["trl as it comes"] / cpu["align"], 2),
        "tokens_ratio": round(padded / unique, 2),
        "max_logp_rel_diff": furthest(logps["align"], logps["trl"]),
        "grad_rel_diff": difference(turns["align"].gradients, turns["trl"].gradients),
        "seconds": {arm: round(value, 4) for arm, value in seconds.items()},
        "seconds_quartiles": {arm: [round(s, 4) for s in spread(each)[1]] for arm, each in steps.items()},
        "steps": {arm: [round(s, 4) for s in each] for arm, each in steps.items()},
        "limit_steps": [[round(s, 4) for s in each] for each in limit.seconds[warm:]],
        "real_tokens_per_second": {arm: round(real / value) for arm, value in seconds.items()},
        "backbone_tokens": {"align": round(unique), "trl": round(padded)},
    }
    found["seconds"]["limit"] = round(statistics.median(each[0] for each in limit.seconds[warm:]), 4)
    if limit.device == "cuda":
        found["mfu"] = {arm: round(useful(limit, unique) / value / peak_flops(), 3) for arm, value in seconds.items()}
    return found


def furthest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Return the largest relative difference of the log-probability of any one sequence of any step."""
    return max(float(((a - b).abs() / b.abs()).max()) for a, b in zip(ours, theirs, strict=True))


def difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the norm of the difference of two gradients, relative to the second."""
    gap = sum(float(((a - b) ** 2).sum()) for a, b in zip(one, other, strict=True))
    return math.sqrt(gap / sum(float((b**2).sum()) for b in other))


def useful(limit: Limit, unique: float) -> float:
    """Return the operations that the unique tokens need: 6 a weight and token, the head at scored positions alone."""
    inner: Any = limit.model.get_base_model() if hasattr(limit.model, "get_base_model") else limit.model
    layers = sum(p.numel() for n, p in inner.model.layers.named_parameters() if "lora" not in n)
    scored = statistics.mean(len(layout.parents) for layout in limit.layouts)
    return 6.0 * (layers * unique + inner.lm_head.weight.numel() * scored)


def peak_flops() -> float:
    """Return the device's stated peak."""
    name = torch.cuda.get_device_name()
    return next((value for known, value in PEAK.items() if name.startswith(known)), math.nan)
