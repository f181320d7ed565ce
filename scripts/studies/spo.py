"""Does learning preference degrees help? SPO beside the same objective alone and beside rows that are not degraded.

``python scripts/studies/spo.py rates`` (or ``main``, ``common``, ``ablations``; all where none is named) runs what is
missing, one result file a run in ``docs/results/spo/``, draws ``docs/images/spo.png`` and ``.svg`` and writes the
tables of ``docs/results/spo.md``; what stands around its marks on that page stays. Li et al., Findings of EMNLP 2024,
arXiv:2409.17791.

- ``rates``: the learning rate of every task, objective and arm, chosen on a seed of its own; and the head's, by how
  many degrees it tells.
- ``main``: DPO, SimPO and IPO: alone on as much computing as SPO, alone on the same pairs, with SPO, and with as many
  rows of whole responses.
- ``common``: the same on sentiment with one learning rate for all arms, at which none breaks.
- ``ablations``: SPO beside DPO with another extractor, number of degrees, weight, and a head that trains itself alone.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from align.data.sources import read_rows
from align.recipe.load import load_recipe
from align.recipe.schema import SourceSettings
from align.report.look import BLUE, GREEN, SKY, VERMILLION, base_line, look, save
from align.report.metrics_file import read_metrics
from align.trainers.run import run_recipe
from scripts.studies.over_seeds import (
    curves,
    interval,
    line,
    matching,
    results_of,
    run_missing,
    say,
    shown,
    table_head,
    verdict,
    write_between,
)
from scripts.studies.stand_in import Settings, digest_of, stand_in

SCRIPT, RECIPE = "scripts/studies/spo.py", Path("scripts/studies/spo.yaml")
RESULTS, PAGE, IMAGES = Path("docs/results/spo"), Path("docs/results/spo.md"), Path("docs/images")
WORK = Path("runs/studies/spo")
OBJECTIVES = {
    "dpo": "{name: dpo, beta: 0.1}",
    "simpo": "{name: simpo, beta: 2.5, gamma: 1.0}",
    "ipo": "{name: ipo, tau: 0.5}",
}
STEPS, LONGER = 18, 50
"""Optimiser steps: of SPO, and of the objective alone on as much computing. A pair and its versions have 2.8 to 2.9
times the positions of a pair by itself on both tasks, prompts computed once."""
ARMS = {
    "alone": "alone, as much computing",
    "same pairs": "alone, the same pairs",
    "spo": "with SPO",
    "nothing": "rows without removal",
}
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "yake": {"versions": {"extractor": "yake"}},
    "tfidf": {"versions": {"extractor": "tfidf"}},
    "surprisal": {"versions": {"extractor": "surprisal"}},
    "2 degrees": {"versions": {"degrees": 2}},
    "6 degrees": {"versions": {"degrees": 6}},
    "gamma 0.01": {"gamma": 0.01},
    "gamma 1": {"gamma": 1.0},
    "detached": {"head": {"detached": True}},
}
TASKS = {"sentiment": "sentiment, the quickstart's task", "hh": "HH-harmless"}
RATES, TUNING_SEED, SEEDS = (1e-3, 3e-3, 1e-2), 9, (1, 2, 3)
LEARNS_DEGREES = ("spo", "nothing")
"""Arms with a head. On HH the largest rate was not tried for them: a run takes longest there, and in five of the six
arms without a head it was the worst."""
COMMON = 3e-3
"""The rate of all arms in ``common``: the largest at which no arm had broken on the tuning seed."""
HEAD_RATES = (1e-3, 1e-2, 3e-2, 1e-1)
HELD_OUT = {"sentiment": 60, "hh": 100}
SHORT = 350
"""Most characters of a transcript of HH: the stand-in's tokens are small pieces there, and runs are to be short."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it is for, on which task, which objective, which arm, which seed."""

    study: str
    task: str
    objective: str
    arm: str
    seed: int
    asked: float | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        arm = "".join(sign if sign.isalnum() else "-" for sign in self.arm)
        asked = f"-{self.asked:g}" if self.asked else ""
        return f"{self.study}-{self.task}-{self.objective}-{arm}-{self.seed}{asked}"

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.name}.json"

    @property
    def rate(self) -> float:
        """Its learning rate."""
        if self.study in ("rates", "common") and self.asked:
            return self.asked
        arm = "same pairs" if self.study == "heads" else self.arm if self.arm in ARMS else "spo"
        return chosen_rate(self.task, self.objective, arm)

    @property
    def changes(self) -> list[str]:
        """What it changes in its recipe, but for files and folders."""
        words = [f"trainer.seed={self.seed}", f"objective={OBJECTIVES[self.objective]}"]
        steps = LONGER if self.arm == "alone" else STEPS
        if self.arm not in ("alone", "same pairs"):
            words.append(f"spo={json.dumps(self.spo)}")
        words += [
            f"trainer.max_steps={steps}",
            f"trainer.eval_steps={steps}",
            f"trainer.learning_rate={self.rate}",
        ]
        words += [f"trainer.warmup_steps={steps // 8}", f"trainer.logging_steps={steps // 5}"]
        if self.task == "sentiment":
            words += sentiment_data(self.seed, HELD_OUT[self.task])
            sampled = "{prompts: sentiment, split: heldout, limit: 100, max_new_tokens: 24, scorer: vader, seed: %d}"
            words.append(
                f"evaluation={{generation: {sampled % (1234 if self.study == 'rates' else 1000 + self.seed)}}}"
            )
        return words

    @property
    def spo(self) -> dict[str, Any]:
        """Its section ``spo``."""
        rate = self.asked if self.study == "heads" and self.asked else chosen_head_rate()
        changed = {"versions": {"removal": "nothing"}} if self.arm == "nothing" else ABLATIONS.get(self.arm, {})
        return {**changed, "head": {"learning_rate": rate, **changed.get("head", {})}}

    @property
    def digest(self) -> str:
        """Of what decides about it."""
        parts = [RECIPE.read_text(encoding="utf-8"), digest_of(Settings()), HELD_OUT[self.task], *self.changes]
        parts += [SHORT, hh_digest()] if self.task == "hh" else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def files(self) -> list[str]:
        """Return the files and the folder of its recipe, made where they are missing."""
        words = [f"model.path={stand_in()}", f"output.dir={WORK / self.name}"]
        if self.task == "hh":
            files = hh_files(HELD_OUT["hh"])
            words += [f"data.{part}={file}" for part, file in zip(("train", "eval"), files, strict=True)]
        return words


def sentiment_data(seed: int, held_out: int) -> list[str]:
    """Return the words of a recipe's data: the stand-in's own pairs, and always the same ones held out."""
    synth = "{prompts: sentiment, split: %s, samples: 4, max_new_tokens: 24, min_gap: 0.4, seed: %d%s}"
    return [
        f"data.train={{synth: {synth % ('train', seed, '')}}}",
        f"data.eval={{synth: {synth % ('heldout', 1000, f', limit: {held_out}')}}}",
    ]


def tried(task: str, arm: str) -> tuple[float, ...]:
    """Return the learning rates that are tried of an arm."""
    return RATES[:-1] if task == "hh" and arm in LEARNS_DEGREES else RATES


def chosen_rate(task: str, objective: str, arm: str) -> float:
    """Return the rate at which an arm was best on the tuning seed.

    Raises:
        ValueError: if a rate was not tried yet.
    """
    found = {}
    for rate in tried(task, arm):
        run = Run("rates", task, objective, arm, TUNING_SEED, rate)
        if not run.file.is_file():
            raise ValueError(f"{run.name} is missing: python {SCRIPT} rates")
        found[rate] = score(json.loads(run.file.read_text(encoding="utf-8")))
    return max(tried(task, arm), key=lambda rate: (found[rate], -rate))


@cache
def hh_rows() -> list[dict[str, str]]:
    """Return the short pairs of HH; [] where the file is not there."""
    if not os.environ.get("ALIGN_HH_FILE"):
        return []
    rows = (row for _, row in read_rows(SourceSettings(path=os.environ["ALIGN_HH_FILE"])))
    return [row for row in rows if max(len(row["chosen"]), len(row["rejected"])) <= SHORT]


def hh_digest() -> str:
    """Return 8 hexadecimal digits of the pairs of HH."""
    return hashlib.sha256(json.dumps(hh_rows()).encode()).hexdigest()[:8]


def hh_files(held_out: int) -> tuple[Path, Path]:
    """Return files of HH to train on, and held out: its short pairs, of which the first so many are held out."""
    rows = hh_rows()
    paths = [WORK / "data" / f"hh-{hh_digest()}-{held_out}-{part}.jsonl" for part in ("train", "heldout")]
    for path, part in zip(paths, (rows[held_out:], rows[:held_out]), strict=True):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return paths[0], paths[1]


def chosen_head_rate() -> float:
    """Return the learning rate of the head at which degrees are told best on the tuning seed, beside DPO on sentiment.

    Raises:
        ValueError: if a rate was not tried yet.
    """
    found = {}
    for rate in HEAD_RATES:
        run = Run("heads", "sentiment", "dpo", "spo", TUNING_SEED, rate)
        if not run.file.is_file():
            raise ValueError(f"{run.name} is missing: python {SCRIPT} rates")
        found[rate] = told_degrees(json.loads(run.file.read_text(encoding="utf-8")))
    return max(HEAD_RATES, key=lambda rate: (found[rate], -rate))


def planned(studies: Sequence[str]) -> list[Run]:
    """Return every run of the studies."""
    both = [(task, objective) for task in TASKS for objective in OBJECTIVES]
    runs = []
    if "rates" in studies:  # the head's between: those of arms that learn degrees use it

        def rates(arms: Sequence[str]) -> list[Run]:
            every = itertools.product(both, arms)
            return [Run("rates", *which, arm, TUNING_SEED, r) for which, arm in every for r in tried(which[0], arm)]

        runs += rates([arm for arm in ARMS if arm not in LEARNS_DEGREES])
        runs += [Run("heads", "sentiment", "dpo", "spo", TUNING_SEED, rate) for rate in HEAD_RATES]
        runs += rates(LEARNS_DEGREES)
    if "main" in studies:
        runs += [Run("main", *which, arm, seed) for seed in SEEDS for which in both for arm in ARMS]
    if "common" in studies:
        every = itertools.product(SEEDS, OBJECTIVES, ARMS)
        runs += [Run("common", "sentiment", objective, arm, seed, COMMON) for seed, objective, arm in every]
    if "ablations" in studies:
        runs += [Run("ablations", "sentiment", "dpo", arm, seed) for seed in SEEDS[:2] for arm in ABLATIONS]
    return runs


def main() -> int:
    """Run what is missing, draw and write; return 1 where a run failed."""
    studies = ("rates", "main", "common", "ablations")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", nargs="*", choices=[*studies, []], help="which; all where none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    runs = planned(arguments.study or studies)
    if not os.environ.get("ALIGN_HH_FILE"):
        say("hh: set ALIGN_HH_FILE to harmless-base/test.jsonl.gz of Anthropic/hh-rlhf; left out")
        runs = [run for run in runs if run.task != "hh"]
    failures = run_missing(runs, result, told)
    found = results_of(planned(studies), lambda run: run.task != "hh" or bool(hh_rows()))
    if any(one["study"] == "main" for one in found):
        draw(found)
    write_between(PAGE, SCRIPT, "Preference degrees, at our scale", tables(found))
    print(json.dumps({"runs": found, "failures": failures}) if arguments.json else tables(found))
    return 1 if failures else 0


def result(run: Run) -> dict[str, Any]:
    """Run, and return what is kept of it."""
    with contextlib.redirect_stdout(sys.stderr):
        summary = run_recipe(load_recipe(RECIPE, [*run.files(), *run.changes]))
    rows = read_metrics(Path(summary["folder"]))
    return {
        **{name: getattr(run, name) for name in ("study", "task", "objective", "arm", "seed", "rate")},
        "curves": {side: curves(rows, [f"eval_logps/{side}"])[side] for side in ("chosen", "rejected")},
        "accuracy": curves(rows, ["eval_accuracy"])["eval_accuracy"],
        "degrees": degrees_of(rows, "chosen"),
        "degrees_of_rejected": degrees_of(rows, "rejected"),
        "head_rate": run.asked if run.study == "heads" else None,
        "reward": summary["generation"].get("reward", {}) if summary.get("generation") else {},
        "seconds": summary["seconds"],
        "command": f"python {SCRIPT} {run.study}",
        "versions": {name: importlib.metadata.version(name) for name in ("align", "torch", "transformers", "peft")},
        "digest": run.digest,
    }


def degrees_of(rows: Sequence[Mapping[str, Any]], side: str) -> dict[str, list[list[float]]]:
    """Return how degrees of a side's versions were told, and how its log-probabilities go with them, over steps."""
    names = ("accuracy", "chance", "rank_correlation")
    return {name: next(iter(curves(rows, [f"eval_spo/{name}/{side}"]).values())) for name in names}


def told(found: Mapping[str, Any]) -> str:
    """Return a few words on a result."""
    degrees = f"degrees told {told_degrees(found):.2f}, " if found["degrees"]["accuracy"] else ""
    return f"{score(found):.3f} at {found['rate']:g}, {degrees}{found['seconds']:.0f} s"


# ---- what came of it -------------------------------------------------------------------------------------------


def accuracy(found: Mapping[str, Any]) -> float:
    """Return the held-out accuracy at the end."""
    return float(found["accuracy"][-1][1])


def gained(found: Mapping[str, Any]) -> float:
    """Return how much the reward of samples rose; NaN on HH, where none is measured."""
    return float(found["reward"]["difference"]["value"]) if found["reward"] else float("nan")


def score(found: Mapping[str, Any]) -> float:
    """Return what a learning rate is chosen by: reward gained, on HH held-out accuracy."""
    return gained(found) if found["task"] == "sentiment" else accuracy(found)


def told_degrees(found: Mapping[str, Any]) -> float:
    """Return the share of held-out versions of the chosen whose degree was told at the end."""
    return float(found["degrees"]["accuracy"][-1][1])


def drift(found: Mapping[str, Any], side: str) -> float:
    """Return how far a held-out log-probability moved, in nats."""
    points = found["curves"][side]
    return float(points[-1][1] - points[0][1])


DEGREE_COLUMNS = [
    "degrees told, chosen (chance)",
    "degrees told, rejected (chance)",
    "rank correlation, before and after",
]


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """Return all tables as Markdown."""
    parts = [_main_table(matching(found, study="main"), task, TASKS[task]) for task in TASKS]
    parts.append(_main_table(matching(found, study="common"), "sentiment", f"Sentiment, every arm at {COMMON:g}"))
    return "\n\n".join(part for part in (*parts, _ablation_table(found), _rates_table(found)) if part)


def _main_table(found: Sequence[Mapping[str, Any]], task: str, title: str) -> str:
    runs = matching(found, task=task)
    if not runs:
        return ""
    columns = ["objective", "arm", "seeds", "held-out accuracy", "chosen, nats", "rejected, nats"]
    columns += ["reward gained"] * (task == "sentiment") + DEGREE_COLUMNS
    rows = table_head(title[0].upper() + title[1:], columns)
    checks = []
    for objective in OBJECTIVES:
        arms = {arm: {one["seed"]: one for one in matching(runs, objective=objective, arm=arm)} for arm in ARMS}
        for arm, ones in arms.items():
            if ones:
                rows.append(line([objective, ARMS[arm], str(len(ones)), *_cells(list(ones.values()), task)]))
        for other in ("alone", "same pairs", "nothing"):
            checks += _beside(arms["spo"], arms[other], f"{objective} with SPO beside {objective} {ARMS[other]}", task)
    return "\n".join([*rows, "", *checks])


def _cells(runs: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    cells = [shown([accuracy(one) for one in runs], ".3f")]
    cells += [shown([drift(one, side) for one in runs], "+.1f") for side in ("chosen", "rejected")]
    if task == "sentiment":
        cells.append(shown([gained(one) for one in runs], "+.3f"))
    for side in ("degrees", "degrees_of_rejected"):
        degrees = [one[side] for one in runs if one.get(side, {}).get("accuracy")]
        chance = f" ({np.mean([d['chance'][-1][1] for d in degrees]):.2f})" if degrees else ""
        cells.append(f"{shown([d['accuracy'][-1][1] for d in degrees], '.2f')}{chance}" if degrees else "")
    real = runs[0]["arm"] != "nothing"  # versions that are all the same have no order
    ranks = [one["degrees"]["rank_correlation"] for one in runs if one["degrees"]["rank_correlation"] and real]
    both = " → ".join(f"{np.mean([r[place][1] for r in ranks]):+.2f}" for place in (0, -1)) if ranks else ""
    return [*cells, both]


def _beside(ours: Mapping[int, Any], theirs: Mapping[int, Any], what: str, task: str) -> list[str]:
    """Return what the difference of two arms is, seed by seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return []
    measures = {"accuracy": accuracy} | ({"reward": gained} if task == "sentiment" else {})
    said = []
    for name, measure in measures.items():
        differences = [measure(ours[seed]) - measure(theirs[seed]) for seed in seeds]
        said.append(f"{name} {shown(differences, '+.3f')}: **{verdict(differences, above=0)}**")
    return [f"- {what}, higher: {'; '.join(said)}"]


def _ablation_table(found: Sequence[Mapping[str, Any]]) -> str:
    runs = matching(found, study="ablations")
    if not runs:
        return ""
    seeds = sorted({one["seed"] for one in runs})
    columns = [
        "SPO beside DPO, sentiment",
        "seeds",
        "held-out accuracy",
        "chosen, nats",
        "rejected, nats",
        "reward gained",
    ]
    rows = table_head("One thing at a time", [*columns, *DEGREE_COLUMNS])
    whole = [
        one
        for one in matching(found, study="main", task="sentiment", objective="dpo", arm="spo")
        if one["seed"] in seeds
    ]
    for arm, ones in {"rake, 4 degrees, gamma 0.1": whole, **{a: matching(runs, arm=a) for a in ABLATIONS}}.items():
        if ones:
            rows.append(line([arm, str(len(ones)), *_cells(ones, "sentiment")]))
    return "\n".join(rows)


def _rates_table(found: Sequence[Mapping[str, Any]]) -> str:
    runs = matching(found, study="rates")
    if not runs:
        return ""
    rows = table_head("Learning rates", ["task", "objective", "arm", *(f"{rate:g}" for rate in RATES)])
    for task, objective, arm in itertools.product(TASKS, OBJECTIVES, ARMS):
        ones = {one["rate"]: score(one) for one in matching(runs, task=task, objective=objective, arm=arm)}
        if ones:
            best = max(ones.values())
            first = next(rate for rate in RATES if ones.get(rate) == best)  # of equals, the smallest is used
            said = {rate: f"**{value:.3f}**" if rate == first else f"{value:.3f}" for rate, value in ones.items()}
            cells = [said.get(rate, "") for rate in RATES]
            rows.append(line([task, objective, ARMS[arm], *cells]))
    said = f"Seed {TUNING_SEED}, which is in no other table: reward gained on sentiment, held-out accuracy on HH."
    heads = {f"{one['head_rate']:g}": told_degrees(one) for one in matching(found, study="heads")}
    if heads:
        shares = ", ".join(f"{share:.2f} at {rate}" for rate, share in heads.items())
        said += f" The head's own rate is the one at which it tells most degrees there, beside DPO: {shares}."
    return "\n".join([*rows, "", said])


def draw(found: Sequence[Mapping[str, Any]]) -> None:
    """Draw the arms of every task and objective beside each other, with each seed as a dot."""
    panels = [("common", "sentiment", "reward gained", gained), ("main", "sentiment", "reward gained", gained)]
    panels = [
        *panels,
        ("common", "sentiment", "held-out accuracy", accuracy),
        ("main", "hh", "held-out accuracy", accuracy),
    ]
    rates = {"common": f"all at {COMMON:g}", "main": "own rates"}
    colours = dict(zip(ARMS, (BLUE, SKY, VERMILLION, GREEN), strict=True))
    with look(9):
        figure = Figure(figsize=(10.5, 6.4), dpi=100, layout="constrained")
        for ax, (study, task, name, measure) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            for place, objective in enumerate(OBJECTIVES):
                for shift, arm in zip((-0.3, -0.1, 0.1, 0.3), ARMS, strict=True):
                    values = [
                        measure(one) for one in matching(found, study=study, task=task, objective=objective, arm=arm)
                    ]
                    if not values:
                        continue
                    mean, low, high = interval(values)
                    x, colour = place + shift, colours[arm]
                    ax.plot([x] * len(values), values, "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
                    ax.errorbar(x, mean, [[mean - low], [high - mean]], fmt="_", color=colour, markersize=12, capsize=3)
            base_line(ax, 0.5 if name.endswith("accuracy") else 0.0)
            ax.set_xticks(range(len(OBJECTIVES)), list(OBJECTIVES))
            ax.set_title(f"{task}: {name}, {rates[study]}", loc="left", fontsize=10)
        handles = [figure.axes[0].plot([], [], "o", color=colours[arm], label=ARMS[arm])[0] for arm in ARMS]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        save(figure, [IMAGES / f"spo.{ending}" for ending in ("png", "svg")])


if __name__ == "__main__":
    sys.exit(main())
