"""Reward against distance for several objectives and strengths: the quickstart's task with the stand-in model.

``python scripts/studies/reward_kl.py`` runs what is missing, one result file a run in ``docs/results/reward_kl/``,
draws ``docs/images/reward_kl.png`` and ``.svg``, and writes the table of ``docs/results/reward_kl.md``; what stands
around the table's marks on that page stays. A run's settings are those of ``reward_kl.yaml`` beside this file and of
``OBJECTIVES`` below.
"""

import argparse
import contextlib
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align.recipe.load import load_recipe
from align.recipe.resolve import deciding, dump
from align.recipe.schema import Recipe
from align.report.frontier import Outcome, draw_frontier
from align.report.metrics_file import read_metrics
from align.report.rewards import in_words
from align.report.series import series
from align.trainers.run import run_recipe
from scripts.studies.stand_in import Settings, digest_of, folder_of, stand_in

STRENGTHS = ("weak", "medium", "strong")
LIKELIHOOD = {"nll_weight": 1.0, "nll": "mean"}
OBJECTIVES: dict[str, tuple[dict[str, Any], ...]] = {
    "dpo": ({"beta": 0.5}, {"beta": 0.1}, {"beta": 0.03}),
    "ipo": ({"tau": 2.0}, {"tau": 0.5}, {"tau": 0.1}),
    "simpo": ({"beta": 10.0, "gamma": 1.0}, {"beta": 2.5, "gamma": 1.0}, {"beta": 0.75, "gamma": 0.75}),
    "cpo": ({"beta": 0.5, **LIKELIHOOD}, {"beta": 0.1, **LIKELIHOOD}, {"beta": 0.03, **LIKELIHOOD}),
    "orpo": ({"lam": 0.2}, {"lam": 1.0}, {"lam": 5.0}),
    "kto": ({"beta": 0.5}, {"beta": 0.1}, {"beta": 0.03}),
}
"""Settings of every objective, from weak to strong: what the loss lets the margin grow to before it has had enough.

Answers have some 24 tokens: a margin of 24 nats to DPO, CPO and KTO is one of 1 to IPO, SimPO and ORPO, which average.
"""
LEARNING_RATES: dict[str, float] = {}
"""Of objectives that need another than the recipe's."""
ROWS_A_STEP = {"kto": 12}
"""Of objectives that train on single completions: as many completions as the others' pairs hold."""
SEEDS = (1, 2)
"""Of sampling, adapters and order. The learning rate was set on DPO, beta 0.1, with seed 9: 0.0005 gained 0.09 at a KL
of 0.3 nats, 0.001 gained 0.20 at 1.2."""

RECIPE = Path("scripts/studies/reward_kl.yaml")
RESULTS = Path("docs/results/reward_kl")
PAGE = Path("docs/results/reward_kl.md")
IMAGES = [Path("docs/images/reward_kl.png"), Path("docs/images/reward_kl.svg")]
START, END = "<!-- made by scripts/studies/reward_kl.py -->", "<!-- to here -->"
KEPT = ("reward", "win_rate", "kl", "length_tokens", "ended", "distinct_1", "distinct_2", "repetition")
"""What is kept of the comparison of samples."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the study."""

    objective: str
    strength: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.objective}-{self.strength}-{self.seed}"

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.name}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """Of its objective."""
        return OBJECTIVES[self.objective][STRENGTHS.index(self.strength)]

    def recipe(self) -> Recipe:
        """Return its recipe."""
        parts = ", ".join(f"{key}: {value}" for key, value in {"name": self.objective, **self.settings}.items())
        changes = [
            f"model.path={folder_of(Settings())}",
            f"objective={{{parts}}}",
            f"trainer.seed={self.seed}",
            f"data.train.synth.seed={self.seed}",
            f"output.dir=runs/studies/reward_kl/{self.name}",
        ]
        if self.objective in ROWS_A_STEP:
            changes.append(f"trainer.per_device_train_batch_size={ROWS_A_STEP[self.objective]}")
        if self.objective in LEARNING_RATES:
            changes.append(f"trainer.learning_rate={LEARNING_RATES[self.objective]}")
        return load_recipe(RECIPE, changes)


def main() -> int:
    """Run what is missing, draw and write; return 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(OBJECTIVES), help="this objective; may be repeated")
    parser.add_argument("--strength", action="append", choices=STRENGTHS, help="this strength; may be repeated")
    parser.add_argument("--seed", action="append", type=int, help=f"this seed; may be repeated; usual: {SEEDS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    runs = [
        Run(objective, strength, seed)
        for objective in arguments.only or OBJECTIVES
        for strength in arguments.strength or STRENGTHS
        for seed in arguments.seed or SEEDS
    ]
    failures = run_missing(runs)
    results = {run.name: read(run) for run in runs if run.file.is_file()}
    everything = [read(run) for run in planned() if run.file.is_file()]
    if everything:
        draw(everything)
        write_page(everything)
    print(json.dumps({"runs": results, "failures": failures}) if arguments.json else table(list(results.values())))
    return 1 if failures else 0


def planned() -> list[Run]:
    """Return every run of the study."""
    return [Run(o, strength, seed) for o in OBJECTIVES for strength in STRENGTHS for seed in SEEDS]


def run_missing(runs: Sequence[Run]) -> dict[str, str]:
    """Run those without a result, one after the other, saying how long the rest takes; return what failed, and why."""
    missing, failures = [run for run in runs if not run.file.is_file()], {}
    say(f"{len(runs) - len(missing)} of {len(runs)} results are there")
    started = time.perf_counter()
    for done, run in enumerate(missing, 1):
        try:
            found = result(run)
            said = f"reward {in_words(found['reward']['aligned'], '.3f')}, KL {in_words(found['kl'], '.2f')}"
        except ValueError as error:
            failures[run.name] = said = str(error)
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        say(f"[{done}/{len(missing)}] {run.name}: {said}; about {left / 60:.0f} min left")
    return failures


def result(run: Run) -> dict[str, Any]:
    """Run, and write the result file."""
    recipe = run.recipe()
    stand_in()
    with contextlib.redirect_stdout(sys.stderr):
        summary = run_recipe(recipe)
    found = {
        "objective": run.objective,
        "strength": run.strength,
        "settings": run.settings,
        "seed": run.seed,
        "learning_rate": recipe.trainer["learning_rate"],
        **{name: summary["generation"][name] for name in KEPT},
        "drift": drift(Path(summary["folder"])),
        "held_out": {n: v for n, v in summary["held_out"].items() if "accuracy" in n or n.startswith("eval_auc")},
        **{name: summary[name] for name in ("steps", "seconds", "versions")},
        "rows": {name: summary["train"][name] for name in ("pairs", "completions") if name in summary["train"]},
        "threads": torch.get_num_threads(),
        "digest": digest_of_run(recipe),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    run.file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def read(run: Run) -> dict[str, Any]:
    """Return a run's result; ``stale`` says whether its recipe has changed since."""
    found: dict[str, Any] = json.loads(run.file.read_text(encoding="utf-8"))
    stale = found["digest"] != digest_of_run(run.recipe())
    if stale:
        say(f"{run.file} is of another recipe; remove it to run it again")
    return {**found, "stale": stale}


def drift(folder: Path) -> dict[str, float | None]:
    """Return how far the held-out log-probabilities moved from the first to the last evaluation, in nats."""
    rows = read_metrics(folder)
    lines = {side: series(rows, f"eval_logps/{side}") for side in ("chosen", "rejected")}
    return {side: float(line.values[-1] - line.values[0]) if len(line) > 1 else None for side, line in lines.items()}


def digest_of_run(recipe: Recipe) -> str:
    """Return 8 hexadecimal digits of what decides about a run; the same for every user and folder."""
    sections = deciding(recipe)
    sections["model"]["path"] = f"stand-in {digest_of(Settings())}"
    return hashlib.sha256(dump(sections, sort_keys=True).encode()).hexdigest()[:8]


def draw(results: Sequence[Mapping[str, Any]]) -> None:
    """Draw the picture of all results."""
    outcomes = [
        Outcome(
            objective=found["objective"],
            strength=found["strength"],
            reward=found["reward"]["aligned"],
            kl=found["kl"],
            **found["drift"],
        )
        for found in results
    ]
    draw_frontier(outcomes, statistics.mean(found["reward"]["base"]["value"] for found in results), IMAGES)


def write_page(results: Sequence[Mapping[str, Any]]) -> None:
    """Write the page's table between its marks, and leave what is around them."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else f"# Reward against distance\n\n{START}\n{END}\n"
    before, _, rest = page.partition(START)
    base = in_words(results[0]["reward"]["base"], ".3f")
    made = f"""{START}
Command: `python scripts/studies/reward_kl.py` (one result file a run in [reward_kl/](reward_kl/), with versions; the
same command runs only what is missing). Recipe: `scripts/studies/reward_kl.yaml`; model:
[the stand-in](../stand-in.md). Brackets are 95 % bootstrap intervals, over prompts for samples. Drift is the change of
the mean log-probability of held-out pairs, in nats a completion. Reward of the base model: {base}.

![Reward against KL, and chosen against rejected drift](../images/reward_kl.png)

{table(results)}
"""
    PAGE.write_text(before + made + END + rest.partition(END)[2], encoding="utf-8")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table, a row a run."""
    heads = (
        *("objective", "settings", "seed", "reward", "difference to base", "win rate", "KL (nats)", "drift, chosen"),
        *("drift, rejected", "held-out accuracy", "tokens", "distinct-2", "repetition", "s"),
    )
    return "\n".join([line(heads), line(["---"] * len(heads)), *(line(cells(found)) for found in results)])


def line(parts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(parts)} |"


def cells(found: Mapping[str, Any]) -> list[str]:
    """Return the cells of a run."""
    settings = {**found["settings"], "lr": found["learning_rate"]}
    if found["objective"] not in LEARNING_RATES:
        del settings["lr"]
    accuracy = {end: found["held_out"].get(f"eval_accuracy{end}") for end in ("", "_low", "_high")}
    known = None not in accuracy.values()
    interval = dict(zip(("value", "low", "high"), accuracy.values(), strict=True))
    return [
        found["objective"] + (" (stale)" if found["stale"] else ""),
        f"{found['strength']}: " + ", ".join(f"{name} {value}" for name, value in settings.items()),
        str(found["seed"]),
        in_words(found["reward"]["aligned"], ".3f"),
        in_words(found["reward"]["difference"], "+.3f"),
        in_words(found["win_rate"], ".3f"),
        in_words(found["kl"], ".2f"),
        *("" if (nats := found["drift"][side]) is None else f"{nats:+.1f}" for side in ("chosen", "rejected")),
        in_words(interval, ".3f") if known else "",
        f"{found['length_tokens']['aligned']:.1f}",
        f"{found['distinct_2']['aligned']:.3f}",
        f"{found['repetition']['aligned']:.3f}",
        f"{found['seconds']:.0f}",
    ]


def say(text: str) -> None:
    """Print a line for people, beside what programs read."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
