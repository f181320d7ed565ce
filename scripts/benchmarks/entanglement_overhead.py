"""What measuring entanglement costs: step times with and without the monitor, on the quickstart's model and pairs.

``python scripts/benchmarks/entanglement_overhead.py`` runs what is missing, one result file a case in
``docs/results/entanglement_overhead/``, and prints the table. All arms train the same model in turns, batch by batch in
one process, so that what disturbs the machine disturbs all of them; the overhead is that of mean step times. Beside the
monitor stands the method of two backwards, as the paper's authors measure: a forward and a backward for each side of
each pair, whole gradients, their product. Cosines of both are compared; the learning rate is 0, so that every arm sees
the same weights.
"""

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
from torch import Tensor
from tqdm import trange
from transformers import TrainingArguments

from align import DPO, PairTrainer
from align.diagnostics.measure import brute_force, rows_of_pairs
from align.models.adapters import lora_config
from align.models.load import Source, load_model, load_tokenizer
from align.models.logprobs import output_head
from align.recipe.load import load_recipe
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.recipe.speed import OFF
from align.sampling.synth import synthesise
from align.trainers.live import LiveEntanglement

RESULTS = Path("docs/results/entanglement_overhead")
RECIPE = "recipes/quickstart.yaml"
ARMS: Mapping[str, EntanglementSettings | None] = {
    "unmonitored": None,
    "every 20": EntanglementSettings(every=20, pairs=None),
    "every step": EntanglementSettings(every=1, pairs=None),
}
TWO_BACKWARDS = "every step, two backwards"
TWO_EVERY = 10
"""Batches from one that two backwards are measured on to the next: they take long."""
CASES = {"lora": True, "full": False}


def main() -> None:
    """Measure the missing cases and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="only this one (may be repeated)")
    parser.add_argument("--steps", type=int, default=100, help="steps of each arm; a tenth of them for two backwards")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    found = {case: result(case, arguments.steps) for case in arguments.case or CASES}
    if arguments.json:
        print(json.dumps(found))
        return
    for case, figures in found.items():
        print(f"{case}: {figures['model']}, {figures['pairs_a_step']} pairs a step, {figures['steps']} steps an arm")
        for arm, seconds in figures["seconds"].items():
            overhead = figures["overhead"].get(arm)
            shown = "" if overhead is None else f"  {overhead:+.1%}"
            print(f"  {arm:32} mean {seconds['mean']:.3f} s  median {seconds['median']:.3f} s{shown}")
        print(f"  largest difference of a cosine from whole gradients: {figures['largest_difference']:.1e}")


def result(case: str, steps: int) -> dict[str, Any]:
    """Return a case's figures, from its file where there is one."""
    file = RESULTS / f"{case}.json"
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8"))["steps"] != steps:
        found = measure(lora=CASES[case], steps=steps)
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def measure(*, lora: bool, steps: int) -> dict[str, Any]:
    """Train in turns and return the figures of every arm."""
    trainer = trainer_of(lora=lora)
    batches = list(trainer.get_train_dataloader())
    arms = {name: live_of(trainer, settings) for name, settings in ARMS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*arms, TWO_BACKWARDS)}
    differences: list[float] = []
    trainer.create_optimizer_and_scheduler(len(batches))
    for warm in range(2):
        step(trainer, batches[warm], None, 0)
    for number in trange(steps, desc="lora" if lora else "full", file=sys.stderr):
        batch = batches[number % len(batches)]
        exact = None
        if number % TWO_EVERY == 0:
            took, exact = timed(lambda batch=batch: two_backwards(trainer, batch))
            seconds[TWO_BACKWARDS].append(took + timed(lambda batch=batch: step(trainer, batch, None, 0))[0])
        for name, live in arms.items():
            trainer.meter.__init__()  # type: ignore[misc]
            took, _ = timed(lambda live=live, batch=batch, number=number: step(trainer, batch, live, number))
            seconds[name].append(took)
            if exact is not None and live is not None and name != "every 20":
                read = trainer.meter.read(lambda numbers: numbers)["entanglement/cosine"]
                differences.append(abs(read - float(exact.mean())))
    means = {name: statistics.mean(values) for name, values in seconds.items()}
    return {
        "command": "python scripts/benchmarks/entanglement_overhead.py",
        "model": "SmolLM2-135M-Instruct" + (", LoRA r 16 on all linear layers" if lora else ", all weights"),
        "pairs_a_step": trainer.args.train_batch_size,
        "steps": steps,
        "seconds": {
            name: {"mean": means[name], "median": statistics.median(values), "steps": len(values)}
            for name, values in seconds.items()
        },
        "overhead": {name: mean / means["unmonitored"] - 1 for name, mean in means.items() if name != "unmonitored"},
        "largest_difference": max(differences),
        "versions": {name: importlib.metadata.version(name) for name in ("align", "torch", "transformers", "peft")},
    }


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, and what it returned."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def step(trainer: PairTrainer, batch: dict[str, Tensor], live: LiveEntanglement | None, number: int) -> None:
    """Train on a batch and step the optimiser, with a monitor or without."""
    trainer.live = live
    trainer.state.global_step = number
    trainer.model.train()
    weight = trainer._get_num_items_in_batch([batch], trainer.args.device)
    trainer.training_step(trainer.model, dict(batch), weight)
    assert trainer.optimizer is not None
    trainer.optimizer.step()
    if live is not None:
        live.on_optimizer_step(trainer.args, trainer.state, trainer.control)
    trainer.optimizer.zero_grad()


def two_backwards(trainer: PairTrainer, batch: dict[str, Tensor]) -> Tensor:
    """Return the cosine of every pair of a batch from whole gradients."""
    model = trainer.model
    assert model is not None
    pairs = range(len(batch["input_ids"]) // 2)
    return brute_force(model, output_head(model), rows_of_pairs(batch, list(pairs))).cosine


def live_of(trainer: PairTrainer, settings: EntanglementSettings | None) -> LiveEntanglement | None:
    """Return a monitor beside the trainer."""
    return None if settings is None else LiveEntanglement(trainer, DiagnosticsSettings(entanglement=settings))


def trainer_of(*, lora: bool) -> PairTrainer:
    """Return a trainer of the quickstart's model on its pairs."""
    recipe = load_recipe(RECIPE)
    source = Source(path=recipe.model.path)
    model, tokenizer = load_model(source), load_tokenizer(source)
    synth = recipe.data.train[0].synth
    assert synth is not None
    pairs, _ = synthesise(model.eval(), tokenizer, synth)
    assert recipe.model.lora is not None
    arguments = {key: value for key, value in recipe.trainer.items() if key in ("per_device_train_batch_size", "seed")}
    return PairTrainer(
        model,
        TrainingArguments(
            tempfile.mkdtemp(), **arguments, learning_rate=0.0, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        objective=DPO(beta=0.1),
        train_dataset=datasets.Dataset.from_list([asdict(pair) for pair in pairs]),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.model.lora) if lora else None,
        speed=OFF,
    )


if __name__ == "__main__":
    main()
