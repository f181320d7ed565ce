"""Our trainer beside TRL's ``DPOTrainer``: the same model, rows, tokens, optimiser and precision, in one process.

``python scripts/benchmarks/vs_trl.py`` measures what is missing, one result file a row in
``docs/results/vs_trl/<device>/``, draws the charts and writes the tables of ``docs/results/vs_trl.md``. ``--quick`` is
five of the rows, three steps of half the pairs, into a folder that is thrown away; ``--json`` prints one object.
``--profile ROW`` says where the time of that row's steps goes, beside the limit's, and measures nothing.

Every arm runs its own whole training loop in a thread of its own, and the threads take turns, one optimiser step at a
time: a step's time runs from its beginning to the beginning of the next, so batches, metrics and logging are in it.

- ``align``: ``PairTrainer`` as it comes.
- ``trl``: TRL as it is fastest in the precision of ``align``: the reference's log-probabilities computed before, no
  checkpointing, on a CPU float32.
- ``trl bf16``: on a CPU, the same in bfloat16. The faster of both is *TRL at its best*.
- ``align bf16``: on a CPU and of some rows, ``align`` in bfloat16, held against ``trl bf16`` in a run of their own.
- ``trl as it comes``: ``DPOConfig`` with nothing changed but what is measured.
- ``limit``: a plain forward and backward of the batch's unique tokens as one packed sequence, cross-entropy at
  completion positions, and AdamW's step.

The learning rate is 0, so that all arms see the same weights at every step; log-probabilities, sequence by sequence,
and gradients of ``align`` and ``trl`` are compared. Ratios of times are medians of the ratios of neighbouring steps,
with their quartiles: what slows a machine down for a while slows both. Peak memory is above weights (those of a
reference too) and optimiser state: on a CPU of a fresh child process an arm, on a GPU the most that a step allocates.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.benchmarks.vs_trl_figures import figures, furthest, ratios
from scripts.benchmarks.vs_trl_loops import Limit, start, watch
from scripts.benchmarks.vs_trl_page import RESULTS, slug, table, write_page
from scripts.benchmarks.vs_trl_profile import profile
from scripts.benchmarks.vs_trl_rows import ARMS, CPU_ROWS, GPU_ROWS, OURS_TOO, Row, ratio_of, trainer_of, write_lengths

REPETITIONS = {"all": 5, "quick": 3}
"""Steps that count."""
WARM = {"cpu": 1, "cuda": 3}
"""Steps before those that are counted; on a GPU kernels are compiled, for shapes that vary too."""
PRINTED = (
    "name",
    "prompt_completion_ratio",
    "wall_ratio",
    "wall_ratio_default",
    "memory_ratio",
    "max_logp_rel_diff",
    "tokens_ratio",
    "best",
)
"""What ``--json`` prints of a row."""


def measure(name: str, row: Row, device: str, *, quick: bool = False) -> dict[str, Any]:
    """Return a row's figures; a quick one's memory is of ``align`` and TRL at its best alone."""
    warm = WARM[device]
    steps = REPETITIONS["quick" if quick else "all"] + warm
    row = replace(row, pairs=row.pairs // 2) if quick else row
    with tempfile.TemporaryDirectory() as folder:
        trainers = {arm: trainer_of(arm, row, steps, device, f"{folder}/{arm}") for arm in ARMS[device]}
        for arm, trainer in trainers.items():
            if arm != "align":
                same_start(trainers["align"].model, trainer.model)
        limit = Limit(row, steps, device)
        logps = {arm: watch(trainers[arm], arm) for arm in ("align", "trl")}
        turns = {arm: start(trainer, device) for arm, trainer in trainers.items()}
        order = [*ARMS[device], "limit"]
        for step in range(steps):
            first = step % len(order)
            for arm in order[first:] + order[:first]:
                limit.step(step) if arm == "limit" else turns[arm].turn()
        found = figures(row, turns, limit, logps, warm)
        memory: dict[str, float] = {arm: max(each.bytes[warm:], default=0) for arm, each in turns.items()}
        del trainers, turns, limit
        gc.collect()
    if device == "cpu":
        arms = ("align", found["best"]) if quick else ARMS[device]
        memory = {arm: peak(arm, name, device, row.pairs) for arm in arms}
    others = {"memory_ratio": found["best"], "memory_ratio_default": "trl as it comes"}
    return {
        "name": name,
        "model": row.model,
        "pairs": row.pairs,
        "lora": row.lora,
        "prompt_completion_ratio": ratio_of(row),
        **found,
        **{key: round(memory["align"] / memory[arm], 3) for key, arm in others.items() if arm in memory},
        "memory_mib": {arm: round(found / 2**20) for arm, found in memory.items()},
    }


def measure_both_in_bf16(row: Row) -> dict[str, Any]:
    """Return what a row's two arms in bfloat16 come to, measured by themselves: memory would not hold all arms."""
    steps, arms = REPETITIONS["all"] + WARM["cpu"], (OURS_TOO, "trl bf16")
    with tempfile.TemporaryDirectory() as folder:
        trainers = {arm: trainer_of(arm, row, steps, "cpu", f"{folder}/{arm}") for arm in arms}
        same_start(trainers[OURS_TOO].model, trainers["trl bf16"].model)
        logps = {arm: watch(trainers[arm], arm) for arm in arms}
        turns = {arm: start(trainer, "cpu") for arm, trainer in trainers.items()}
        for step in range(steps):
            for arm in arms[step % 2 :] + arms[: step % 2]:
                turns[arm].turn()
        seconds = {arm: each.seconds[WARM["cpu"] :] for arm, each in turns.items()}
    middle, quartiles = ratios(seconds["trl bf16"], seconds[OURS_TOO])
    return {
        "wall_ratio_bf16": middle,
        "wall_ratio_bf16_quartiles": quartiles,
        "max_logp_rel_diff_bf16": furthest(logps[OURS_TOO], logps["trl bf16"]),
        "steps_bf16": {arm: [round(s, 4) for s in each] for arm, each in seconds.items()},
    }


def same_start(ours: nn.Module, theirs: nn.Module) -> None:
    """Give another trainer's model the adapters that ours has drawn."""
    state = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name].to(parameter))


# ---- memory -----------------------------------------------------------------------------------------------------


def peak(arm: str, name: str, device: str, pairs: int) -> float:
    """Return an arm's peak of memory over three steps of a fresh process, without weights and optimiser, in bytes."""
    command = [sys.executable, __file__, "--child", arm, "--row", name, "--device", device, "--pairs", str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return float(json.loads(done.stdout.splitlines()[-1])["bytes"])


def child(arm: str, row: Row, device: str) -> float:
    """Train three steps, and return the peak above weights and optimiser state, in bytes."""
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arm, row, 3, device, folder)
        kept = [trainer.model, *([trainer.ref_model] if getattr(trainer, "ref_model", None) is not None else [])]
        weights = sum(p.numel() * p.element_size() for model in kept for p in model.parameters())
        trained = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from here
        trainer.train()
    return resident("VmHWM") - before - weights - 2 * trained


def resident(line: str = "VmRSS") -> int:
    """Return the process's memory in bytes, as the kernel counts it."""
    status = Path("/proc/self/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith(line)).split()[1]) * 1024


# ---- the command ------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure what is missing."""
    arguments = parse()
    warnings.filterwarnings("ignore")
    rows = CPU_ROWS if arguments.device == "cpu" else GPU_ROWS
    if arguments.lengths:
        write_lengths(arguments.lengths)
    elif arguments.page:
        write_page()
    elif arguments.child:
        row = replace(rows[arguments.row[0]], pairs=arguments.pairs)
        print(json.dumps({"bytes": child(arguments.child, row, arguments.device)}))
    elif arguments.profile:
        with contextlib.redirect_stdout(sys.stderr):  # trainers print what they log
            said = profile(rows[arguments.profile], arguments.device)
        print(said)
    else:
        run(arguments, rows)


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five of the rows, smaller, nothing written")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--row", action="append", help="only this one (may be repeated)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--profile", metavar="ROW", help="print where the time of a row's steps goes, and stop")
    parser.add_argument(
        "--page", action="store_true", help="make tables and charts of the files that are there, and stop"
    )
    parser.add_argument("--lengths", metavar="FILE", help="write hh_lengths.json from a file of HH's pairs, and stop")
    parser.add_argument("--child", choices=ARMS["cpu"], help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(arguments: argparse.Namespace, rows: Any) -> None:
    """Measure the rows that are asked for and missing, and say what was found."""
    quick = arguments.quick
    wanted: Sequence[str] = arguments.row or [name for name, row in rows.items() if row.quick or not quick]
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(sys.stderr):
        os.environ["ALIGN_CACHE"] = cache
        folder = Path(cache) / "results" if quick else arguments.out / arguments.device
        found = [result(name, rows[name], arguments.device, folder, quick=quick) for name in wanted]
    if arguments.json:
        shown = [{key: row[key] for key in PRINTED if key in row} for row in found]
        print(json.dumps({"machine": machine(arguments.device), "rows": shown}))
        return
    print(table(found))
    if not quick and arguments.out == RESULTS:
        write_page()


def result(name: str, row: Row, device: str, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return a row's figures, from its file where there is one."""
    file = folder / f"{slug(name)}.json"
    if not file.is_file():
        print(f"{name} ...", file=sys.stderr, flush=True)
        begun = time.perf_counter()
        found = {**measure(name, row, device, quick=quick), "machine": machine(device), "command": "vs_trl.py"}
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    kept = dict(json.loads(file.read_text(encoding="utf-8")))
    if row.both and device == "cpu" and not quick and "wall_ratio_bf16" not in kept:
        print(f"{name}, both in bfloat16 ...", file=sys.stderr, flush=True)
        kept |= measure_both_in_bf16(row)
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return kept


def machine(device: str) -> dict[str, Any]:
    """Return what the figures were measured on, and with."""
    packages = ("torch", "transformers", "trl", "accelerate", "peft")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
