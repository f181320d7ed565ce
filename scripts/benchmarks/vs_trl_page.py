"""The tables and pictures of ``vs_trl.py``, of result files of today and of before."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.report.look import COLOURS, look, save
from scripts.benchmarks.vs_trl_figures import completed
from scripts.benchmarks.vs_trl_rows import CPU_ROWS, GPU_ROWS
from scripts.studies.over_seeds import write_between

RESULTS = Path("docs/results/vs_trl")
PAGE = Path("docs/results/vs_trl.md")
BEST = {"trl": "float32", "trl bf16": "bfloat16"}
"""How the two tuned arms are called in the CPU's table."""


def write_page() -> None:
    """Write the tables of what is measured so far, and draw it."""
    parts = []
    for device, rows, title in (("cpu", CPU_ROWS, "On 2 CPU cores"), ("cuda", GPU_ROWS, "On a GPU, bfloat16")):
        found = measured(RESULTS / device, list(rows))
        if found:
            said = found[0]["machine"]
            versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
            text = f"### {title}\n\n{said['device']}; {versions}.\n\n{table(found)}"
            parts.append(text + f"\n\n![Times and memory beside TRL](../images/vs_trl-{device}.png)")
            draw(found, Path(f"docs/images/vs_trl-{device}"))
    write_between(PAGE, "scripts/benchmarks/vs_trl.py", "Beside TRL", "\n\n".join(parts))


def measured(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows whose files are there."""
    files = [folder / f"{slug(name)}.json" for name in names]
    return [completed(json.loads(file.read_text(encoding="utf-8"))) for file in files if file.is_file()]


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw times and memory of a device's rows as bars."""
    from matplotlib.figure import Figure

    with look(9):
        figure = Figure(figsize=(9.5, 0.42 * len(found) + 1.4), layout="constrained")
        times, memory = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        both = any("trl bf16" in row["seconds"] for row in found)
        # Two baselines share the dark bars until every row is measured with both of TRL's arms.
        lacks = [", TRL in float32" if both and "trl bf16" not in row["seconds"] else "" for row in found]
        names = [f"{row['name']} ({row['model']}{lack})" for row, lack in zip(found, lacks, strict=True)]
        places = [-float(i) for i in range(len(found))]
        for shift, key, colour, label in (
            (0.18, "wall_ratio", "blue", "TRL at its best"),
            (-0.18, "wall_ratio_default", "sky", "TRL as it comes"),
        ):
            values = [row[key] for row in found]
            bars = times.barh([place + shift for place in places], values, 0.34, color=COLOURS[colour], label=label)
            times.bar_label(bars, [f"{value:.1f}" for value in values], padding=2, fontsize=8)
        times.axvline(1, color=COLOURS["ink"], linewidth=0.8)
        times.set(xlabel="time of a step, times align's", yticks=places, yticklabels=names)
        values = [row["memory_ratio"] for row in found]
        bars = memory.barh(places, values, 0.5, color=COLOURS["green"], label="align / TRL at its best")
        memory.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=8)
        memory.axvline(1, color=COLOURS["ink"], linewidth=0.8)
        memory.set(xlabel="peak memory, align / TRL", xlim=(0, 1.15))
        times.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
        save(figure, [path.with_suffix(".png"), path.with_suffix(".svg")])


def slug(name: str) -> str:
    """Return a row's name as a file is called."""
    return name.replace(", ", "-").replace(" ", "-")


def columns(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Yield what the table shows of rows."""
    yield "row", lambda r: r["name"]
    yield "prompt : completion", lambda r: f"{r['prompt_completion_ratio']:g}"
    yield "s a step", lambda r: f"{r['seconds']['align']:.3g}"
    yield "TRL / align", lambda r: with_quartiles(r, "wall_ratio")
    if any("trl bf16" in row["seconds"] for row in found):
        yield "its best", lambda r: BEST[r["best"]]
    if any("wall_ratio_bf16" in row for row in found):
        yield "both in bfloat16", lambda r: with_quartiles(r, "wall_ratio_bf16") if "wall_ratio_bf16" in r else ""
    yield "as it comes", lambda r: with_quartiles(r, "wall_ratio_default")
    yield "CPU time", lambda r: f"{r['cpu_ratio']:.2f}"
    yield "tokens", lambda r: f"{r['tokens_ratio']:.2f}"
    yield "memory, align / TRL", lambda r: f"{r['memory_ratio']:.2f}"
    yield "memory, as it comes", lambda r: f"{r['memory_ratio_default']:.2f}" if "memory_ratio_default" in r else ""
    yield "over the limit", lambda r: f"{with_quartiles(r, 'over_limit')}; {r['over_limit_with_optimizer']:.2f}"
    if any("mfu" in row for row in found):
        yield "MFU, TRL's", lambda r: f"{r['mfu']['align']:.1%}, {r['mfu'][r['best']]:.1%}"
    yield "log-probs", lambda r: f"{r['max_logp_rel_diff']:.0e}"
    yield "gradient", lambda r: f"{r['grad_rel_diff']:.0e}"


def with_quartiles(row: Mapping[str, Any], name: str) -> str:
    """Return a median, and its quartiles where they are known."""
    quartiles = row.get(f"{name}_quartiles")
    return f"{row[name]:.2f}" + ("" if quartiles is None else f" ({quartiles[0]:.2f}–{quartiles[1]:.2f})")


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    heads = [name for name, _ in columns(found)]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(show(row) for _, show in columns(found)) for row in found]
    return "\n".join(f"| {line} |" for line in lines)
