"""A recipe for a few steps: how fast it is, where the time goes, and what ``speed`` saves of it."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from align.data.cache import cache_root
from align.models.logprobs import output_head
from align.models.machine import measure_speed
from align.recipe.resolve import digest
from align.recipe.schema import EvaluationSettings, OutputSettings, Recipe
from align.recipe.speed import OFF
from align.recipe.trainer_arguments import training_arguments
from align.report.console import say
from align.trainers.check import check
from align.trainers.folder import set_aside
from align.trainers.meter import Meter
from align.trainers.preference import PreferenceTrainer
from align.trainers.run import Run

WARM = 2
"""Steps before those that count."""
PARTS = ("batches", "reference", "forward", "backward", "optimiser")
"""What a step's time is told apart into; the rest is metrics, logging and whatever else a loop does."""


def bench_recipe(recipe: Recipe, *, steps: int, compare: bool) -> dict[str, Any]:
    """Train a recipe for a few steps, keep nothing of it, and return what it took.

    Args:
        recipe: a loaded recipe.
        steps: that count.
        compare: whether to do the same once more with everything in ``speed`` off.

    Raises:
        ValueError: if something in the recipe, the data or the model cannot work.
    """
    check(recipe)
    arms = {"as the recipe says": recipe} | ({"speed: off": replace(recipe, speed=OFF)} if compare else {})
    found = {name: _measured(arm, steps) for name, arm in arms.items()}
    first, last = next(iter(found.values())), list(found.values())[-1]
    return {
        "steps": steps,
        "arms": found,
        "times_as_fast": round(last["seconds_a_step"] / first["seconds_a_step"], 2) if compare else None,
    }


def _measured(recipe: Recipe, steps: int) -> dict[str, Any]:
    trainer = dict(recipe.trainer) | {"max_steps": steps + WARM, "save_strategy": "no", "eval_strategy": "no"}
    trainer |= {"load_best_model_at_end": False, "eval_on_start": False, "logging_steps": 1, "report_to": []}
    aside = cache_root() / "bench" / f"{digest(recipe)}-{'off' if recipe.speed == OFF else 'on'}"
    short = replace(
        recipe,
        trainer=trainer,
        evaluation=EvaluationSettings(),
        output=OutputSettings(dir=str(aside)),
        diagnostics=recipe.diagnostics,
    )
    with set_aside(short, "bench") as folder:
        whole = training_arguments(recipe, folder.path)  # before others are made, which set up devices
        made = Run(short, folder).prepared()
        made.sees_all = made.sees_all_rows(whole)
        once = _reference_once(made, steps + WARM)
        stopwatch = Stopwatch(made)
        made.add_callback(stopwatch)
        with stopwatch.watching():
            made.train()
    return {**_figures(made, stopwatch), "reference_once": once}


def _reference_once(trainer: PreferenceTrainer, steps: int) -> dict[str, Any] | None:
    """Keep the reference as the whole run would, of as many rows as some steps see, and return what all rows cost.

    The trainer has no other rows afterwards: a few steps are not to wait for all of them.

    Returns:
        rows of the run, held-out ones among them, and seconds for those that are not on disk; None where nothing is
        kept.
    """
    every: Any = trainer.train_dataset
    total = sum(map(len, trainer.row_sets().values()))
    count = min(len(every), steps * trainer.rows_of_step)
    drawn = np.random.default_rng(trainer.args.seed).permutation(len(every))[:count]
    trainer.train_dataset, trainer.eval_dataset = every.select(np.sort(drawn)), None
    start = time.perf_counter()
    keeper = trainer.keep_reference()
    seconds = time.perf_counter() - start
    if keeper is None:
        return None
    return {"rows": total, "seconds": round(seconds * total / count, 1) if keeper.computed else 0.0}


class Stopwatch(TrainerCallback):
    """Times steps of a trainer, and the parts of them."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer, self.device = trainer, trainer.accelerator.device
        self.steps: list[dict[str, float]] = []
        self.tokens: list[tuple[int, int, int]] = []
        self._now: dict[str, float] = defaultdict(float)
        self._counted = (0, 0, 0)
        self._since = self.time()
        self._optimising = 0.0

    def time(self) -> float:
        """Return the time when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time parts inside."""
        trainer: Any = self.trainer
        outer = {
            "batches": (trainer, "get_batch_samples"),
            "reference": (trainer, "under_reference"),
            "forward": (trainer, "row_losses"),
            "backward": (trainer.accelerator, "backward"),
        }
        for part, (owner, name) in outer.items():
            setattr(owner, name, self._timed(part, getattr(owner, name)))
        kept = Meter.add

        def add(meter: Meter, metrics: Any, mask: Any, partial: Any = frozenset(), *more: Any) -> None:
            laid = more[1] if len(more) > 1 else None
            got = mask if laid is None else laid
            self._count(int(mask.sum()), int(got.sum()), got.numel())
            kept(meter, metrics, mask, partial, *more)

        Meter.add = add  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Meter.add = kept  # type: ignore[method-assign]
            for owner, name in outer.values():
                delattr(owner, name)

    def _count(self, rows: int, computed: int, positions: int) -> None:
        before = self._counted
        self._counted = before[0] + rows, before[1] + computed, before[2] + positions

    def _timed(self, part: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start, inner = self.time(), self._now["reference"]
            found = whole(*args, **options)
            within = self._now["reference"] - inner if part == "forward" else 0.0
            self._now[part] += self.time() - start - within
            return found

        return call

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Begin to time the optimiser."""
        self._optimising = self.time()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """End."""
        self._now["optimiser"] += self.time() - self._optimising

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Begin with the first step."""
        self._since = self.time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Put a step's times by."""
        now = self.time()
        self.steps.append({**self._now, "whole": now - self._since})
        self.tokens.append(self._counted)
        self._now, self._counted, self._since = defaultdict(float), (0, 0, 0), now


def _figures(trainer: PreferenceTrainer, stopwatch: Stopwatch) -> dict[str, Any]:
    steps, tokens = stopwatch.steps[WARM:], stopwatch.tokens[WARM:]
    whole = statistics.median(step["whole"] for step in steps)
    total = sum(step["whole"] for step in steps)
    parts = {part: sum(step.get(part, 0.0) for step in steps) / total for part in PARTS}
    parts["everything else"] = max(0.0, 1 - sum(parts.values()))
    rows, computed, positions = (sum(each) / len(tokens) for each in zip(*tokens, strict=True))
    mean = total / len(steps)
    return {
        "seconds_a_step": round(whole, 4),
        "steps": [round(step["whole"], 4) for step in steps],
        "tokens_per_second": round(rows / mean),
        "shares": {name: round(share, 3) for name, share in parts.items()},
        "tokens_a_step": {"of rows": round(rows), "computed": round(computed), "positions": round(positions)},
        "shared": round(max(0.0, 1 - computed / rows), 3),
        "padding": round(1 - computed / positions, 3),
        **_utilisation(trainer, computed, mean),
        "notes": list(trainer.speed.notes),
    }


def _utilisation(trainer: PreferenceTrainer, computed: float, seconds: float) -> dict[str, Any]:
    """Return the share of the machine's own speed: 6 operations a weight and token, 4 where weights are frozen."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    head = output_head(model)
    outside = {id(p) for p in (*head.parameters(), *model.get_input_embeddings().parameters())}
    weights = [(p.numel(), p.requires_grad) for p in model.parameters() if id(p) not in outside]
    needed = sum((6.0 if trained else 4.0) * count for count, trained in weights) * computed
    text = model.config.get_text_config()
    shape = (
        max(16, round(computed)),
        int(text.hidden_size),
        int(getattr(text, "intermediate_size", 4 * text.hidden_size)),
    )
    kind = torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else next(model.parameters()).dtype
    peak = measure_speed(trainer.accelerator.device, kind, shape).flops
    return {
        "operations_per_second": round(needed / seconds),
        "machine_operations_per_second": round(peak),
        "mfu": round(needed / seconds / peak, 3),
    }


def say_figures(found: dict[str, Any]) -> None:
    """Print what was measured."""
    for name, arm in found["arms"].items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in arm["shares"].items() if share >= 0.005)
        tokens = arm["tokens_a_step"]
        say(f"{name}: {arm['seconds_a_step']:.3g} s a step, {arm['tokens_per_second']:,} tokens/s")
        say(f"  where the time goes: {shares}")
        if once := arm["reference_once"]:
            takes = f"about {once['seconds']:,.3g} s" if once["seconds"] else "nothing more: it is on disk"
            say(f"  before the first step, once for all runs, the reference of {once['rows']:,} rows: {takes}")
        say(
            f"  a step: {tokens['of rows']:,} tokens of rows, {tokens['computed']:,} computed in "
            f"{tokens['positions']:,} positions ({arm['shared']:.0%} shared, {arm['padding']:.0%} padding)"
        )
        say(
            f"  {arm['operations_per_second'] / 1e9:,.0f} GFLOP/s in layers, {arm['mfu']:.0%} of the "
            f"{arm['machine_operations_per_second'] / 1e9:,.0f} that a product of matrices of this shape reaches here"
        )
    if found["times_as_fast"] is not None:
        say(f"speed makes it {found['times_as_fast']:.2f} times as fast")
