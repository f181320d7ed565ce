"""What shared prompts save where a pair brings many rows: SPO's versions and D2O's samples, with ``speed`` and without.

``python scripts/benchmarks/extra_rows.py`` measures what is missing, one result file a method in
``docs/results/extra_rows/<device>/``, and writes the table of ``docs/results/extra_rows.md``. Both arms are the same
trainer on the same rows, ``speed: auto`` and ``speed: off``; they take turns, one optimiser step at a time, as in
``vs_trl.py``, whose models and rows these are. The learning rate is 0, so that losses, step by step, and the first
step's gradient can be held against each other. D2O's samples are drawn by the model before training, and how many
tokens a second that gives stands beside.
"""

import argparse
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from align import DPO, PairTrainer
from align.data.degree_batches import PREFIX
from align.data.packing import prefix_of
from align.recipe.d2o import D2oSettings
from align.recipe.speed import OFF, SpeedSettings
from align.recipe.spo import DegreeSettings, SpoSettings
from align.sampling.self_samples import self_samples
from align.trainers.d2o import D2OTrainer
from align.trainers.spo import SPOTrainer
from scripts.benchmarks.vs_trl import machine
from scripts.benchmarks.vs_trl_figures import difference, ratios
from scripts.benchmarks.vs_trl_loops import start
from scripts.benchmarks.vs_trl_page import slug
from scripts.benchmarks.vs_trl_rows import Row, model_of, rows_of, tokenizer_of
from scripts.studies.over_seeds import line, say, table_head, write_between

RESULTS, PAGE = Path("docs/results/extra_rows"), Path("docs/results/extra_rows.md")
ROWS: Mapping[str, Row] = {
    "cpu": Row(model="small Llama", prompt=128, completion=64, pairs=4),
    "cuda": Row(model="Llama 0.5B", prompt=256, completion=128, pairs=8),
}
STEPS, WARM = 5, {"cpu": 1, "cuda": 3}
SPEEDS = {"auto": SpeedSettings(), "off": OFF}


def d2o(row: Row, samples: int) -> D2oSettings:
    """Return how samples are drawn: as long as the row's completions are on average, the whole distribution."""
    return D2oSettings(
        samples=samples, max_new_tokens=row.completion, temperature=1.0, top_p=1.0, instructions=None, batch_size=88
    )


METHODS: Mapping[str, tuple[type[PairTrainer], Callable[[Row], Mapping[str, Any]]]] = {
    "DPO": (PairTrainer, lambda row: {"objective": DPO(beta=0.1)}),
    "SPO, 4 degrees": (
        SPOTrainer,
        lambda row: {"objective": DPO(beta=0.1), "spo": SpoSettings(versions=DegreeSettings(extractor="tfidf"))},
    ),
    "D2O, 4 samples": (D2OTrainer, lambda row: {"d2o": d2o(row, 4)}),
    "D2O, 11 samples": (D2OTrainer, lambda row: {"d2o": d2o(row, 11)}),
}
"""What is trained; DPO stands beside as what a pair costs by itself."""


def trainer_of(method: str, row: Row, steps: int, device: str, speed: SpeedSettings, folder: str) -> PairTrainer:
    """Return the trainer of an arm."""
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=row.pairs,
        max_steps=steps,
        learning_rate=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        train_sampling_strategy="sequential",
        disable_tqdm=True,
    )
    kind, options = METHODS[method]
    trainer = kind(
        model_of(row, device),
        arguments,
        train_dataset=rows_of(row, steps),
        processing_class=tokenizer_of(row),
        max_length=None,
        speed=speed,
        **options(row),
    )
    if trainer.speed.settings.cache:
        trainer.keep_reference()
    return trainer


def measure(method: str, row: Row, device: str) -> dict[str, Any]:
    """Return a method's figures."""
    steps = STEPS + WARM[device]
    with tempfile.TemporaryDirectory() as folder:
        begun, trainers = time.perf_counter(), {}
        for name, speed in SPEEDS.items():
            trainers[name] = trainer_of(method, row, steps, device, speed, f"{folder}/{name}")
            if name == "auto":
                made = time.perf_counter() - begun
        losses = {name: watch(trainer) for name, trainer in trainers.items()}
        turns = {name: start(trainer, device) for name, trainer in trainers.items()}
        for step in range(steps):
            for name in list(SPEEDS) if step % 2 else list(reversed(SPEEDS)):
                turns[name].turn()
        seconds = {name: turn.seconds[WARM[device] :] for name, turn in turns.items()}
        middle, quartiles = ratios(seconds["off"], seconds["auto"])
        memory = {name: max(turn.bytes[WARM[device] :], default=0) for name, turn in turns.items()}
        found = {
            "method": method,
            "ratio": middle,
            "ratio_quartiles": quartiles,
            "seconds": {name: round(statistics.median(each), 4) for name, each in seconds.items()},
            "steps": {name: [round(s, 4) for s in each] for name, each in seconds.items()},
            "shared_fraction": round(shared(trainers["auto"], row.pairs), 3),
            "notes": list(trainers["auto"].speed.notes),
            "max_loss_difference": max(abs(a - b) for a, b in zip(losses["auto"], losses["off"], strict=True)),
            "gradient_difference": difference(turns["auto"].gradients, turns["off"].gradients),
            "memory_mib": {name: round(each / 2**20) for name, each in memory.items()} if device == "cuda" else None,
            "seconds_to_make": round(made, 2),
            "tokens_per_second": drawn_a_second(trainers["auto"], row, steps),
        }
        del trainers, turns
        gc.collect()
    return {**found, "machine": machine(device), "command": "python scripts/benchmarks/extra_rows.py"}


def watch(trainer: PairTrainer) -> list[float]:
    """Return a list that fills with the loss of each step."""
    found: list[float] = []
    plain = trainer.training_step

    def watched(*args: Any, **kwargs: Any) -> Any:
        loss = plain(*args, **kwargs)
        found.append(float(loss))
        return loss

    trainer.training_step = watched  # type: ignore[method-assign]
    return found


def shared(trainer: PairTrainer, pairs: int) -> float:
    """Return the share of the first batch's tokens that another row has computed, versions and samples among them."""
    rows = [trainer.train_dataset[i] for i in range(pairs)]
    batch = trainer.data_collator(rows)
    whole = sum(int(batch[name].sum()) for name in batch if name.endswith("attention_mask"))
    layouts = [trainer.speed.layout(batch, prefix) for prefix in (prefix_of(trainer.sides), f"{PREFIX}packed_")]
    return 1 - sum(int(layout.real.sum()) for layout in layouts if layout is not None) / whole


def drawn_a_second(trainer: PairTrainer, row: Row, steps: int) -> int | None:
    """Return the tokens a second of drawing the samples of all rows again, with another seed; None without samples."""
    if not isinstance(trainer, D2OTrainer):
        return None
    prompts = trainer.train_dataset["prompt_ids"][:]
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    begun = time.perf_counter()
    drawn = self_samples(model, tokenizer, prompts, replace(trainer.d2o, seed=1))
    return round(sum(len(ids) for each in drawn for ids in each) / (time.perf_counter() - begun))


def table(found: list[dict[str, Any]]) -> str:
    """Return methods as a table."""
    columns = ["method", "s a step", "off", "off / auto", "tokens shared", "largest difference of losses", "gradient"]
    gpu = any(one["memory_mib"] for one in found)
    columns += ["memory of a step, MiB (off)"] * gpu + ["tokens drawn a second"]
    said = found[0]["machine"]
    rows = table_head(said["device"], columns)
    for one in found:
        low, high = one["ratio_quartiles"]
        cells = [one["method"], f"{one['seconds']['auto']:.3g}", f"{one['seconds']['off']:.3g}"]
        cells += [f"{one['ratio']:.2f} ({low:.2f}–{high:.2f})", f"{one['shared_fraction']:.0%}"]
        cells += [f"{one['max_loss_difference']:.0e}", f"{one['gradient_difference']:.0e}"]
        if gpu:
            cells.append(f"{one['memory_mib']['auto']:,} ({one['memory_mib']['off']:,})")
        rows.append(line([*cells, f"{one['tokens_per_second']:,}" if one["tokens_per_second"] else ""]))
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items() if name != "trl")
    return "\n".join([*rows, "", f"{versions}."])


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(ROWS), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--method", action="append", choices=tuple(METHODS), help="only this one (may be repeated)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--page", action="store_true", help="write the table of the files that are there, and stop")
    arguments = parser.parse_args()
    device = arguments.device
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(sys.stderr):
        os.environ["ALIGN_CACHE"] = cache
        for method in () if arguments.page else arguments.method or METHODS:
            file = arguments.out / device / f"{slug(method)}.json"
            if not file.is_file():
                found = measure(method, ROWS[device], device)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
                say(f"{method}: off / auto {found['ratio']}")
    parts = []
    for each in ROWS:
        files = [arguments.out / each / f"{slug(method)}.json" for method in METHODS]
        there = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        parts += [table(there)] if there else []
    if arguments.out == RESULTS:
        write_between(PAGE, "scripts/benchmarks/extra_rows.py", "Many rows a pair", "\n\n".join(parts))
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
