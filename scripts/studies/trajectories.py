"""The same training under every engine: losses, log-probabilities and weights of a small Llama, side by side.

``python scripts/studies/trajectories.py [--json] [--write]`` trains every case of :data:`CASES` under every engine of
:data:`ENGINES` for 20 AdamW steps in float32, each engine launched with its file in ``accelerate_configs/``, and
compares with one process and the whole batch. A result file a case and engine, below ``runs/trajectories``: the same
command runs only what is missing. ``--write`` keeps the table in docs/results/trajectories.md. ``--short`` is what CI
runs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs/results/trajectories.md"
STEPS, SHORT_STEPS = 20, 4
TOLERANCE, OF_ADAPTERS = 1e-5, 1e-4
"""Asked for, of losses, log-probabilities and weights; and of adapters' tensors. Those begin at 0: where one number's
gradient is near Adam's epsilon, its rounding is seen in a tensor that has no other weight (3.1e-5 on one CPU, 1e-6 on
another; 4e-7 of all adapters together)."""
VOCABULARY = 128
BASELINE = "one process, 8"
COMPARED = ("loss", "logps/chosen", "logps/rejected", "kl")


@dataclass(frozen=True)
class Engine:
    """How a training is launched.

    Attributes:
        config: file of ``accelerate_configs``.
        batch: rows of a batch in one process.
        accumulate: batches of an optimiser step in one process.
        processes: that train together.
    """

    config: str
    batch: int
    accumulate: int = 1
    processes: int = 2


ENGINES = {
    BASELINE: Engine("cpu", 8, processes=1),
    "one process, accumulation 4 x 2": Engine("cpu", 4, 2, processes=1),
    "ddp, 2 x 4": Engine("ddp", 4),
    "ddp, 2 x 2, accumulation 2": Engine("ddp", 2, 2),
    "zero1, 2 x 4": Engine("zero1", 4),
    "zero2, 2 x 4": Engine("zero2", 4),
    "zero3, 2 x 4": Engine("zero3", 4),
    "zero3, 2 x 2, accumulation 2": Engine("zero3", 2, 2),
    "fsdp2, 2 x 4": Engine("fsdp2", 4),
    "fsdp2, 2 x 2, accumulation 2": Engine("fsdp2", 2, 2),
}


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        objective: as a recipe has it.
        rows: of the data; 21 and 19 leave a last batch of 5 and 3 rows, of which a second process has 1 and none.
        lora: whether adapters are trained.
        unpaired: whether rows are single completions.
        couples: whether micro-batches of an accumulation are coupled by themselves, so that they are left out.
    """

    objective: Any
    rows: int = 64
    lora: bool = False
    unpaired: bool = False
    couples: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


MIXTURE = [{"name": "dpo", "beta": 0.2}, {"name": "sft", "weight": 0.2}]
CASES = {
    "dpo": Case({"name": "dpo", "beta": 0.2}),
    "dpo, lora": Case({"name": "dpo", "beta": 0.2}, lora=True),
    "dpo + 0.2 sft": Case(MIXTURE),
    "kto": Case({"name": "kto", "beta": 0.2}, unpaired=True),
    "aot": Case({"name": "aot", "beta": 0.2}, couples=True),
    "dpo, a last batch of 4 + 1": Case({"name": "dpo", "beta": 0.2}, rows=21),
    "dpo, a process without rows": Case({"name": "dpo", "beta": 0.2}, rows=19),
    "kto, a last batch of 4 + 1": Case({"name": "kto", "beta": 0.2}, rows=21, unpaired=True),
    "aot, a process without rows": Case({"name": "aot", "beta": 0.2}, rows=19, couples=True),
}


# ---- in every process of a launch ----------------------------------------------------------------------------------


def train(name: str, engine: Engine, steps: int, folder: Path) -> None:
    """Train a case in this process, together with the others that were launched; the first writes what came of it."""
    import torch
    from transformers import TrainingArguments

    from align.recipe.speed import SpeedSettings
    from align.trainers.pair import PairTrainer
    from align.trainers.unpaired import UnpairedTrainer

    case = CASES[name]
    arguments = TrainingArguments(
        str(folder / "run"),
        per_device_train_batch_size=engine.batch,
        gradient_accumulation_steps=engine.accumulate,
        max_steps=steps,
        learning_rate=1e-3,
        weight_decay=0.01,
        adam_epsilon=1e-5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=5,
        use_cpu=True,
    )
    trainer = (UnpairedTrainer if case.unpaired else PairTrainer)(
        model(),
        arguments,
        objective=objective(case),
        peft_config=adapters() if case.lora else None,
        train_dataset=data(case),
        processing_class=tokenizer(),
        speed=SpeedSettings(cache=False),  # a reference on disk has no weights that an engine could shard
    )
    trainer.train()
    found = outcome(trainer)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        weights = found.pop("weights")
        torch.save(weights, folder / "weights.pt")
        (folder / "outcome.json").write_text(json.dumps(found) + "\n")


def outcome(trainer: Any) -> dict[str, Any]:
    """Return what is compared, and what shows which engine it was; every process must call it."""
    from torch.distributed.tensor import DTensor

    from align.models.sharding import is_partitioned, whole

    inner = trainer.accelerator.unwrap_model(trainer.model)
    trained = {name: p for name, p in inner.named_parameters() if p.requires_grad}
    sharded = [isinstance(p, DTensor) or is_partitioned(p) for p in inner.parameters()]
    reference = trainer.reference.module if hasattr(trainer.reference, "module") else None
    return {
        "engine": trainer.engine.name,
        "distributed_type": str(trainer.accelerator.distributed_type.value),
        "processes": trainer.engine.processes,
        "sharded": sum(sharded) / len(sharded),
        "reference_sharded": None
        if reference is None
        else all(isinstance(p, DTensor) or is_partitioned(p) for p in reference.parameters()),
        "log": [entry for entry in trainer.state.log_history if "loss" in entry],
        "weights": {name: whole(parameter) for name, parameter in trained.items()},
    }


def model() -> Any:
    """Return a small Llama, the same in every process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def objective(case: Case) -> Any:
    """Return the objective of a case."""
    from align.objectives.mixture import Mixture, Part
    from align.objectives.registry import OBJECTIVES

    def built(spec: dict[str, Any]) -> Any:
        settings = {key: value for key, value in spec.items() if key not in ("name", "weight")}
        return OBJECTIVES.build(spec["name"], **settings)

    if isinstance(case.objective, dict):
        return built(case.objective)
    return Mixture(parts=tuple(Part(objective=built(s), weight=s.get("weight", 1.0)) for s in case.objective))


def adapters() -> Any:
    """Return LoRA on every linear layer."""
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def data(case: Case) -> Any:
    """Return prepared rows of random tokens, of differing lengths and weights."""
    import datasets
    import numpy as np

    from align.data.store import FEATURES, UNPAIRED_FEATURES

    draw = np.random.default_rng(3)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(1, VOCABULARY, draw.integers(low, high)).tolist()  # type: ignore[no-any-return]

    rows = []
    for number in range(case.rows):
        row = {"prompt_ids": ids(3, 9), "weight": float(draw.choice([0.5, 1.0, 2.0])), "where": f"row {number + 1}"}
        row["prompt_hash"] = f"{number:016x}"
        sides = ("completion_ids",) if case.unpaired else ("chosen_ids", "rejected_ids")
        row |= {side: ids(2, 8) for side in sides}
        row["length"] = len(row["prompt_ids"]) + max(len(row[side]) for side in sides)
        row |= {"desirable": bool(number % 2)} if case.unpaired else {"chosen_score": None, "rejected_score": None}
        rows.append(row)
    features = datasets.Features(UNPAIRED_FEATURES if case.unpaired else FEATURES)
    return datasets.Dataset.from_list(rows, features=features)


def tokenizer() -> Any:
    """Return a tokenizer that only says what padding is filled with."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w1")), pad_token="w0", eos_token="w0"
    )


# ---- in the process that launches ----------------------------------------------------------------------------------


def launch(name: str, cases: Sequence[str], steps: int, out: Path) -> None:
    """Train cases under an engine, all in one launch."""
    engine = ENGINES[name]
    words = ["--worker", name, "--steps", str(steps), "--out", str(out)]
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--main_process_port", "0"]
    config = ["--config_file", f"accelerate_configs/{engine.config}.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    for case in cases:
        words += ["--case", case]
    command = [*launcher, *config, "scripts/studies/trajectories.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")


def place(out: Path, engine: str, case: str, steps: int) -> Path:
    """Return the folder of a run."""
    return out / f"{steps}" / _slug(engine) / _slug(case)


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def compared(engine: str, case: str, steps: int, out: Path) -> dict[str, Any]:
    """Return the row of an engine and a case: largest relative differences from the baseline."""
    import torch

    mine, base = (place(out, name, case, steps) for name in (engine, BASELINE))
    ours, theirs = (json.loads((folder / "outcome.json").read_text()) for folder in (mine, base))
    logged = {
        key: max(_relative(a[key], b[key]) for a, b in zip(ours["log"], theirs["log"], strict=True))
        for key in COMPARED
        if key in theirs["log"][0]
    }
    weights, others = (torch.load(folder / "weights.pt") for folder in (mine, base))
    names = {name.replace("_checkpoint_wrapped_module.", ""): name for name in weights}
    drift = max(float((weights[names[n]] - w).norm() / w.norm()) for n, w in others.items())
    kl = logged.pop("kl", None)  # near 0, where a relative difference says nothing: in nats
    row = {
        "engine": engine,
        "case": case,
        "processes": ours["processes"],
        "distributed_type": ours["distributed_type"],
        "sharded": ours["sharded"],
        "reference_sharded": ours["reference_sharded"],
        "steps": len(ours["log"]),
        "loss": logged["loss"],
        "logps": max(value for key, value in logged.items() if key.startswith("logps")),
        "weights": drift,
    }
    row["max_rel_diff"] = max(row["loss"], row["logps"], row["weights"])
    row["agrees"] = max(row["loss"], row["logps"]) <= TOLERANCE and drift <= tolerance_of(case)
    return row if kl is None else {**row, "kl_nats": max(_absolute(ours, theirs))}


def tolerance_of(case: str) -> float:
    """Return the largest difference of a trained tensor that is put down to rounding."""
    return OF_ADAPTERS if CASES[case].lora else TOLERANCE


def _absolute(ours: Any, theirs: Any) -> list[float]:
    return [abs(a["kl"] - b["kl"]) for a, b in zip(ours["log"], theirs["log"], strict=True)]


def _relative(mine: float, other: float) -> float:
    return abs(mine - other) / max(abs(other), 1e-12)


def wanted(engine: str, cases: Sequence[str]) -> Iterator[str]:
    """Yield the cases that are compared under an engine."""
    for case in cases:
        if not (CASES[case].couples and ENGINES[engine].accumulate > 1):
            yield case


def study(engines: Sequence[str], cases: Sequence[str], steps: int, out: Path) -> list[dict[str, Any]]:
    """Run what is missing and return the rows."""
    for engine in dict.fromkeys([BASELINE, *engines]):
        whole = list(wanted(engine, cases))
        missing = [case for case in whole if not (place(out, engine, case, steps) / "outcome.json").is_file()]
        if missing:
            print(f"{engine}: {len(missing)} of {len(whole)} cases", file=sys.stderr, flush=True)
            launch(engine, missing, steps, out)
    others = [engine for engine in engines if engine != BASELINE]
    return [compared(engine, case, steps, out) for engine in others for case in wanted(engine, cases)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table for people."""
    lines = ["| engine | state | case | loss | logps | weights | largest |", "|" + "---|" * 7]
    for row in rows:
        numbers = " | ".join(f"{row[key]:.1e}" for key in ("loss", "logps", "weights", "max_rel_diff"))
        state = row["distributed_type"] + (", sharded" if row["sharded"] == 1 else "")
        lines.append(f"| {row['engine']} | {state} | {row['case']} | {numbers} |")
    return "\n".join(lines)


HEAD = """# The same training under every engine

`python scripts/studies/trajectories.py --write`: a Llama of three layers in float32, 20 steps of AdamW (learning rate
1e-3, weight decay 0.01, gradients clipped at 1), rows of differing lengths and weights. Adam's epsilon is 1e-5: with
1e-8, numbers whose gradient is a rounding error take whole steps, and adapters differ by up to 4e-5. Compared with
one process and a batch of 8: the largest relative difference of the losses and of the mean log-probabilities over all
steps, and of each trained tensor at the end, as norm of the difference over norm. Under FSDP2 and ZeRO-3, `sharded`
says that every weight of the policy lay in pieces. An objective that couples the pairs of a batch (aot) couples those
of all processes; under accumulation it couples a micro-batch, which is another objective and is left out.
Adapters are asked for 1e-4 of each tensor, all else for 1e-5: they begin at 0, and a number whose gradient is near
epsilon shows its rounding (3.1e-5 in one tensor on another CPU than the table's).

"""


def main() -> int:
    """Run the study, or a process of one of its launches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--write", action="store_true", help="keep the table under docs/results")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_STEPS} steps")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="only this one (may be repeated)")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one (may be repeated)")
    parser.add_argument("--out", type=Path, default=Path("runs/trajectories"), help="where runs are kept")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    steps = given.steps or (SHORT_STEPS if given.short else STEPS)
    out = given.out.resolve()
    if given.worker:
        return _worker(given.worker, given.case, steps, out)
    rows = study(given.engine or list(ENGINES), given.case or list(CASES), steps, out)
    print(json.dumps(rows, indent=2) if given.json else table(rows))
    if given.write:
        RESULT.write_text(HEAD + table(rows) + "\n", encoding="utf-8")
        RESULT.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    worst = max(row["max_rel_diff"] for row in rows)
    print(f"largest: {worst:.1e} (asked for: {TOLERANCE:.0e})", file=sys.stderr)
    return 0 if all(row["agrees"] for row in rows) else 1


def _worker(engine: str, cases: Sequence[str], steps: int, out: Path) -> int:
    sys.path.insert(0, str(ROOT))
    from align.trainers.engine import leave_group
    from scripts.studies.fsdp_on_gloo import asked_for, use_fsdp_on_gloo

    if asked_for():
        use_fsdp_on_gloo()
    for case in cases:
        train(case, ENGINES[engine], steps, place(out, engine, case, steps))
    leave_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
