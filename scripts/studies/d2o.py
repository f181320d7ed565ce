"""Negatives only: D2O beside gradient ascent, NPO, SimNPO and two kinds of DPO, with the stand-in model.

``python scripts/studies/d2o.py rates`` (or ``main``, ``within``; all where none is named) runs what is missing, one
result file a run in ``docs/results/d2o/``, draws ``docs/images/d2o.png`` and ``d2o-within.png`` (and ``.svg``) and
writes the tables of ``docs/results/d2o.md``; what stands around its marks on that page stays. Duan et al., Findings of
EMNLP 2024, arXiv:2403.03419.

- ``rates``: every arm at five learning rates on sentiment, on a seed of its own. The one of highest reward whose
  samples stay fluent is used in ``main``.
- ``main``: every arm over seeds, on sentiment (the worst of four answers is the negative) and HH (the rejected).
- ``within``: D2O and gradient ascent once more, sampled from after every fifth step.

Harm is measured by ``alt-profanity-check`` (a linear model of words, trained on comments marked as toxic or
offensive), and beside it by words of twenty categories of Empath's lexicon (Fast et al., 2016, arXiv:1602.06979):
``pip install alt-profanity-check empath``. Neither is part of any reward here.
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
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from align.models.load import Source, load_model
from align.recipe.load import load_recipe
from align.report.look import COLOURS, RUN_COLOURS, base_line, look, save
from align.report.metrics_file import read_metrics
from align.trainers.run import run_recipe
from scripts.studies.d2o_measures import (
    DECODING,
    HELD_OUT_HH,
    MEASURES,
    PROMPTS,
    RESULTS,
    TASKS,
    agreements,
    measured,
    of_the_base,
)
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
from scripts.studies.spo import hh_digest, hh_files, sentiment_data
from scripts.studies.stand_in import Settings, digest_of, stand_in

SCRIPT, RECIPE = "scripts/studies/d2o.py", Path("scripts/studies/d2o.yaml")
PAGE, IMAGES = Path("docs/results/d2o.md"), Path("docs/images")
WORK = Path("runs/studies/d2o")
SAMPLED = "{samples: %d, max_new_tokens: 24, temperature: 1.0, top_p: 1.0, instructions: null%s}"
ROWS, SAMPLES = 6, 4
ARMS: Mapping[str, Sequence[str]] = {
    "d2o": ("objective=d2o", f"d2o={SAMPLED % (SAMPLES, '')}"),
    "gradient ascent": ("objective=gradient_ascent", "d2o={}"),
    "npo": ("objective=npo", "d2o={}"),
    "simnpo": ("objective=simnpo", "d2o={}"),
    "dpo on samples": (
        "objective={name: dpo, beta: 0.1}",
        f"d2o={SAMPLED % (SAMPLES, ', level: instance')}",
        f"trainer.per_device_train_batch_size={ROWS * (SAMPLES + 1) // 2}",
    ),
    "dpo on pairs": ("objective={name: dpo, beta: 0.1}",),
}
"""The fifth holds each sample by itself against the negative, in as many sequences a step as the first. The last alone
reads responses that people, or the scorer, preferred."""
ELEVEN = {"d2o, 11 samples": ("objective=d2o", f"d2o={SAMPLED % (11, '')}")}
"""The paper's number of samples, once."""
SAME_RATE = {f"{arm}, d2o's rate": ARMS[arm] for arm in ("gradient ascent", "npo", "simnpo")}
"""What becomes of the others that read negatives alone where they are trained as hard."""
MORE = {**SAME_RATE, **ELEVEN}
WITHIN = ("d2o", "gradient ascent", "gradient ascent, d2o's rate")
EVERY = 5
"""Optimiser steps between two looks at samples within a run."""
RATES, TUNING_SEED, SEEDS = (3e-4, 5e-4, 1e-3, 2e-3, 3e-3), 9, (1, 2, 3)
PANELS = {
    "perplexity": "perplexity, times the base's",
    "distinct_2": "distinct-2, beside the base",
    "reward": "reward, beside the base",
    "harm": "harm, beside the base",
}
FLUENT = 1.5
"""Samples count as fluent where perplexity under the base is within this factor of the base's own, either way (low ones
are of texts that repeat), and distinct-2 not lower by more than it. A rate may be chosen where they are."""
LEAST_DISTINCT = 1e-3
"""Share of distinct 2-grams below which nothing is left to tell apart: about one of those of 50 to 100 samples."""
HELD_OUT = 40


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it is for, on which task, which arm, at which rate, which seed."""

    study: str
    task: str
    arm: str
    seed: int
    asked: float | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        arm = "".join(sign if sign.isalnum() else "-" for sign in self.arm).replace("--", "-")
        return f"{self.study}-{self.task}-{arm}-{self.seed}" + (f"-{self.asked:g}" if self.asked else "")

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.name}.json"

    @property
    def rate(self) -> float:
        """Its learning rate."""
        return self.asked or chosen_rate("d2o" if self.arm in MORE else self.arm)

    @property
    def draws(self) -> bool:
        """Whether it draws samples to hold negatives against."""
        return self.arm in ELEVEN or self.arm in ("d2o", "dpo on samples")

    @property
    def changes(self) -> list[str]:
        """What it changes in its recipe, but for files and folders."""
        words = [f"trainer.seed={self.seed}", f"trainer.learning_rate={self.rate}", *{**ARMS, **MORE}[self.arm]]
        words += [f"d2o.seed={self.seed}"] if self.draws else []
        if self.study == "within":
            words += ["trainer.save_strategy=steps", f"trainer.save_steps={EVERY}", "trainer.save_total_limit=100"]
        if self.task == "sentiment":
            words += sentiment_data(self.seed, HELD_OUT)
        return words

    @property
    def digest(self) -> str:
        """Of what decides about it."""
        parts = [RECIPE.read_text(encoding="utf-8"), digest_of(Settings()), HELD_OUT, PROMPTS, *self.changes]
        parts += [str(DECODING), *([hh_digest()] if self.task == "hh" else [])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def files(self) -> list[str]:
        """Return the files and the folder of its recipe, made where they are missing."""
        words = [f"model.path={stand_in()}", f"output.dir={WORK / self.name}"]
        if self.task == "hh":
            words += [
                f"data.{part}={file}" for part, file in zip(("train", "eval"), hh_files(HELD_OUT_HH), strict=True)
            ]
        return words


def chosen_rate(arm: str) -> float:
    """Return the rate of an arm: the highest reward on the tuning seed among those whose samples stay fluent.

    Raises:
        ValueError: if a rate was not tried yet.
    """
    fluent, least = dict[float, float](), min(RATES)
    for rate in RATES:
        run = Run("rates", "sentiment", arm, TUNING_SEED, rate)
        if not run.file.is_file():
            raise ValueError(f"{run.name} is missing: python {SCRIPT} rates")
        found = json.loads(run.file.read_text(encoding="utf-8"))
        if strangeness(found) <= FLUENT:
            fluent[rate] = found["samples"]["reward"]
    return max(fluent, key=lambda rate: (fluent[rate], -rate)) if fluent else least


def planned(studies: Sequence[str]) -> list[Run]:
    """Return every run of the studies."""
    runs = []
    if "rates" in studies:
        runs += [Run("rates", "sentiment", arm, TUNING_SEED, rate) for arm in ARMS for rate in RATES]
    if "main" in studies:
        runs += [Run("main", task, arm, seed) for seed in SEEDS for task in TASKS for arm in ARMS]
        runs += [Run("main", task, arm, seed) for seed in SEEDS for task in TASKS for arm in SAME_RATE]
        runs += [Run("main", task, arm, SEEDS[0]) for task in TASKS for arm in ELEVEN]
    if "within" in studies:
        runs += [Run("within", task, arm, seed) for seed in SEEDS for task in TASKS for arm in WITHIN]
    return runs


def main() -> int:
    """Run what is missing, draw and write; return 1 where a run failed."""
    studies = ("rates", "main", "within")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", nargs="*", choices=[*studies, []], help="which; all where none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    runs = planned(arguments.study or studies)
    if not os.environ.get("ALIGN_HH_FILE"):
        say("hh: set ALIGN_HH_FILE to harmless-base/test.jsonl.gz of Anthropic/hh-rlhf; left out")
        runs = [run for run in runs if run.task != "hh"]
    agreement = agreements(sorted({run.task for run in runs}))
    failures = run_missing(runs, result, told)
    there = bool(os.environ.get("ALIGN_HH_FILE"))
    found = results_of(planned(studies), lambda run: run.task != "hh" or there)
    if found:
        draw(found)
    if matching(found, study="within"):
        draw_within(found)
    text = tables(found, agreement)
    write_between(PAGE, SCRIPT, "Negatives only, at our scale", text)
    print(json.dumps({"agreement": agreement, "runs": found, "failures": failures}) if arguments.json else text)
    return 1 if failures else 0


def result(run: Run) -> dict[str, Any]:
    """Run, and return what is kept of it."""
    with contextlib.redirect_stdout(sys.stderr):
        summary = run_recipe(load_recipe(RECIPE, [*run.files(), *run.changes]))
    folder = Path(summary["folder"])
    trained = load_model(Source(path=str(folder / "model"))).eval()
    within = {"within": sampled_within(run, folder)} if run.study == "within" else {}
    return {
        **within,
        **{name: getattr(run, name) for name in ("study", "task", "arm", "seed", "rate")},
        "negatives": curves(read_metrics(folder), ["eval_logps/rejected"])["rejected"],
        "samples": measured(trained, run.task, run.seed),
        "base": of_the_base(run.task, run.seed),
        "seconds": summary["seconds"],
        "command": f"python {SCRIPT} {run.study}",
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("align", "torch", "transformers", "peft", "alt-profanity-check")
        },
        "digest": run.digest,
    }


def sampled_within(run: Run, folder: Path) -> list[list[Any]]:
    """Return ``[step, figures]`` of the samples of every checkpoint of a run."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    steps = [(int(path.name.split("-")[1]), path) for path in checkpoints]
    of_steps = [[step, measured(load_model(Source(path=str(path))).eval(), run.task, run.seed)] for step, path in steps]
    if [step for step, _ in of_steps] != list(range(EVERY, of_steps[-1][0] + 1, EVERY)):
        raise ValueError(f"{run.name}: checkpoints are missing in {folder}; remove it, and run it again")
    return [[0, of_the_base(run.task, run.seed)], *of_steps]


def told(found: Mapping[str, Any]) -> str:
    """Return a few words on a result."""
    said = (
        f"negatives {fall(found):+.1f} nats, harm {of_base(found, 'harm'):+.3f}, reward {of_base(found, 'reward'):+.2f}"
    )
    return f"{said}, perplexity x {of_base(found, 'perplexity'):.2f}, {found['seconds']:.0f} s"


# ---- what came of it -------------------------------------------------------------------------------------------


def fall(found: Mapping[str, Any]) -> float:
    """Return how far the log-probability of held-out negatives moved, in nats."""
    points = found["negatives"]
    return float(points[-1][1] - points[0][1])


def of_base(found: Mapping[str, Any], name: str) -> float:
    """Return a figure of samples beside the base's: a ratio for perplexity, a difference for others."""
    mine, other = found["samples"][name], found["base"][name]
    return float(mine / other if name == "perplexity" else mine - other)


def strangeness(found: Mapping[str, Any]) -> float:
    """Return by what factor samples differ from the base's: in perplexity, either way, or in lost distinct 2-grams."""
    perplexity = of_base(found, "perplexity")
    lost = found["base"]["distinct_2"] / max(found["samples"]["distinct_2"], LEAST_DISTINCT)
    return max(perplexity, 1 / perplexity, lost)


def tables(found: Sequence[Mapping[str, Any]], agreement: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all tables as Markdown."""
    rows = table_head(
        "The harm measures first",
        ["task", "measure", "pairs", "rejected held for more harmful, %", "tied, %", "chosen", "rejected"],
    )
    for task, measure in itertools.product(agreement, MEASURES):
        one = agreement[task][measure]
        share = f"{100 * one['agreement']:.1f} ± {100 * 1.96 * one['standard_error']:.1f}"
        means = [f"{100 * one['tied']:.0f}", f"{one['chosen']:.3f}", f"{one['rejected']:.3f}"]
        rows.append(line([task, measure.replace("_", " "), f"{one['pairs']:.0f}", share, *means]))
    parts = ["\n".join(rows), *(_main_table(found, task) for task in TASKS), _within_table(found), _rates_table(found)]
    return "\n\n".join(part for part in parts if part)


def _main_table(found: Sequence[Mapping[str, Any]], task: str) -> str:
    runs = matching(found, study="main", task=task)
    if not runs:
        return ""
    columns = ["arm", "seeds", "rate", "negatives, nats", "harm, beside the base", "reward, beside the base"]
    rows = table_head(TASKS[task], [*columns, "perplexity, times the base's", "repetition", "distinct-2", "tokens"])
    names = ("harm", "reward", "perplexity", "repetition", "distinct_2", "length")
    before = {name: float(np.mean([one["base"][name] for one in runs])) for name in names}
    plain = [f"{before[name]:.3f}" for name in ("harm", "reward")] + [f"({before['perplexity']:.0f})"]
    plain += [f"{before['repetition']:.3f}", f"{before['distinct_2']:.3f}", f"{before['length']:.1f}"]
    rows.append(line(["base, itself", "", "", "", *plain]))
    for arm in (*ARMS, *MORE):
        ones = matching(runs, arm=arm)
        if ones:
            cells = [shown([fall(one) for one in ones], "+.1f")]
            cells += [shown([of_base(one, name) for one in ones], "+.3f") for name in ("harm", "reward")]
            cells.append(shown([of_base(one, "perplexity") for one in ones], ".2f"))
            cells += [f"{np.mean([one['samples'][n] for one in ones]):.3f}" for n in ("repetition", "distinct_2")]
            cells.append(f"{np.mean([one['samples']['length'] for one in ones]):.1f}")
            rows.append(line([arm, str(len(ones)), f"{ones[0]['rate']:g}", *cells]))
    return "\n".join([*rows, "", *_checks(runs), "", *_beside(runs)])


def _beside(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how D2O differs from each other arm, seed by seed."""
    columns = ["D2O less ...", "seeds", "negatives, nats", "reward", "harm", "perplexity, times the other's"]
    rows = [line(columns), line(["---"] * len(columns))]
    ours = {one["seed"]: one for one in matching(runs, arm="d2o")}
    for arm in (*ARMS, *SAME_RATE):
        theirs = {one["seed"]: one for one in matching(runs, arm=arm)}
        seeds = sorted(ours.keys() & theirs.keys())
        if arm == "d2o" or not seeds:
            continue
        apart = [shown([fall(ours[seed]) - fall(theirs[seed]) for seed in seeds], "+.1f")]
        for name in ("reward", "harm"):
            apart.append(shown([of_base(ours[s], name) - of_base(theirs[s], name) for s in seeds], "+.3f"))
        logs = [np.log(of_base(ours[s], "perplexity") / of_base(theirs[s], "perplexity")) for s in seeds]
        mean, low, high = np.exp(interval([float(value) for value in logs]))
        rows.append(line([arm, str(len(seeds)), *apart, f"{mean:.2f} [{low:.2f}, {high:.2f}]"]))
    return rows


def _checks(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    for arm in ("d2o", "gradient ascent", "gradient ascent, d2o's rate"):
        ones = matching(runs, arm=arm)
        if ones:
            fluent = verdict([float(np.log(strangeness(one) / FLUENT)) for one in ones], below=0.0)
            past = sum(strangeness(one) > FLUENT for one in ones)
            low = [verdict([each(one) for one in ones], below=0) for each in (fall, lambda one: of_base(one, "harm"))]
            said.append(
                f"- {arm}: negatives fall: **{low[0]}**; harm falls: **{low[1]}**; samples stay fluent: **{fluent}** "
                f"({past} of {len(ones)} seeds past the bound)"
            )
    return said


def _within_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what samples of D2O and of gradient ascent are like every few steps of a run, means over seeds."""
    if not matching(found, study="within"):
        return ""
    columns = ["task", "arm", "step", "negatives, nats", "perplexity, times the base's", "distinct-2", "repetition"]
    rows = table_head("Within a run, three seeds", [*columns, "harm", "harmful words", "ended by themselves"])
    for task, arm in itertools.product(TASKS, WITHIN):
        ones = matching(found, study="within", task=task, arm=arm)
        for place, (step, _) in enumerate(ones[0]["within"] if ones else ()):
            looks = [one["within"][place][1] for one in ones]
            falls = [dict(map(tuple, one["negatives"]))[step] - one["negatives"][0][1] for one in ones]
            ratios = [
                look["perplexity"] / one["within"][0][1]["perplexity"] for look, one in zip(looks, ones, strict=True)
            ]
            names = ("distinct_2", "repetition", "harm", "harmful_words", "ended")
            means = [f"{np.mean([look[name] for look in looks]):.3f}" for name in names]
            rows.append(line([task, arm, str(step), shown(falls, "+.1f"), shown(ratios, ".2f"), *means]))
    return "\n".join(rows)


def _rates_table(found: Sequence[Mapping[str, Any]]) -> str:
    runs = matching(found, study="rates")
    if not runs:
        return ""
    rows = table_head(f"Learning rates, sentiment, seed {TUNING_SEED}", ["arm", *(f"{rate:g}" for rate in RATES)])
    for arm in ARMS:
        cells = []
        for rate in RATES:
            for one in matching(runs, arm=arm, rate=rate):
                text = f"{fall(one):+.1f} nats, reward {of_base(one, 'reward'):+.2f}, perplexity × "
                text += f"{of_base(one, 'perplexity'):.2f}, distinct-2 {one['samples']['distinct_2']:.2f}"
                cells.append(f"**{text}**" if rate == chosen_rate(arm) else text)
        rows.append(line([arm, *cells]))
    return "\n".join(rows)


def draw(found: Sequence[Mapping[str, Any]]) -> None:
    """Draw how negatives fall over seeds, and what samples are like for how far they fell, at every rate."""
    colours = {arm: COLOURS[name] for arm, name in zip(ARMS, RUN_COLOURS, strict=False)}
    with look(9):
        several = bool(matching(found, study="main"))
        figure = Figure(figsize=(11 if several else 8, 6.4), dpi=100, layout="constrained")
        axes = figure.subplots(2, 3 if several else 2)
        for ax, task in zip(axes[:, 0], TASKS, strict=True) if several else ():
            for arm, colour in colours.items():
                ones = matching(found, study="main", task=task, arm=arm)
                if ones:
                    values = np.array([[value for _, value in one["negatives"]] for one in ones])
                    steps = [step for step, _ in ones[0]["negatives"]]
                    ax.plot(steps, (values - values[:, :1]).mean(0), color=colour)
            ax.set_title(f"{task}: held-out negatives, each arm's rate", loc="left", fontsize=10)
            ax.set_ylabel("log-prob, change (nats)")
            ax.set_xlabel("optimiser step")
        for ax, (name, title) in zip(axes[:, -2:].flat, PANELS.items(), strict=True):
            for arm, colour in colours.items():
                ones = sorted(matching(found, study="rates", arm=arm), key=lambda one: float(one["rate"]))
                falls, values = [max(-fall(one), 0.0) for one in ones], [of_base(one, name) for one in ones]
                ax.plot(falls, values, "o-", color=colour, markersize=4, label=arm)
            ax.set_title(title, loc="left", fontsize=10)
            ax.set_xlabel("fall of held-out negatives (nats), five rates")
            ax.set_xscale("symlog", linthresh=1.0)
            ax.xaxis.set_major_locator(FixedLocator([0, 1, 10, 100, 1000]))
            ax.xaxis.set_major_formatter("{x:g}")
            base_line(ax, 1.0 if name == "perplexity" else 0.0)
            if name == "perplexity":
                ax.set_yscale("log")
                ax.yaxis.set_major_locator(FixedLocator([0.5, 1, 1.5, 5, 10, 40]))
                ax.yaxis.set_major_formatter("{x:g}")
                ax.yaxis.set_minor_locator(FixedLocator([]))
        handles, labels = axes[0][-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6 if several else 3)
        save(figure, [IMAGES / f"d2o.{ending}" for ending in ("png", "svg")])


def draw_within(found: Sequence[Mapping[str, Any]]) -> None:
    """Draw, over the steps of a run, how negatives fall and what becomes of samples; a thin line a seed."""
    panels = {"negatives": "negatives, change (nats)", "perplexity": "perplexity / base's"}
    panels |= {"distinct_2": "distinct-2", "repetition": "repetition"}
    colours = dict(zip(WITHIN, ("blue", "orange", "vermillion"), strict=True))
    with look(9):
        figure = Figure(figsize=(12, 5.4), dpi=100, layout="constrained")
        axes = figure.subplots(len(TASKS), len(panels))
        for row, task in zip(axes, TASKS, strict=True):
            for ax, (name, title) in zip(row, panels.items(), strict=True):
                for arm, colour in colours.items():
                    ones = matching(found, study="within", task=task, arm=arm)
                    lines = [_over_steps(one, name) for one in ones]
                    for steps, values in lines:
                        ax.plot(steps, values, color=COLOURS[colour], alpha=0.35, linewidth=0.9)
                    if lines:
                        mean = np.mean([values for _, values in lines], axis=0)
                        ax.plot(lines[0][0], mean, "o-", color=COLOURS[colour], markersize=4, label=arm)
                ax.set_title(f"{task}: {title}", loc="left", fontsize=9)
                ax.set_xlabel("optimiser step")
                if name == "negatives":
                    ax.set_yscale("symlog", linthresh=10.0)
                    ax.yaxis.set_major_locator(FixedLocator([0, -10, -100, -1000]))
                    ax.yaxis.set_major_formatter("{x:g}")
                if name == "perplexity":
                    ax.set_yscale("log")
                    ax.yaxis.set_major_locator(FixedLocator([1, 10, 100, 1000]))
                    ax.yaxis.set_major_formatter("{x:g}")
                    base_line(ax, 1.0)
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        save(figure, [IMAGES / f"d2o-within.{ending}" for ending in ("png", "svg")])


def _over_steps(one: Mapping[str, Any], name: str) -> tuple[list[float], list[float]]:
    """Return steps, and a figure of samples at each, or how far negatives have fallen."""
    if name == "negatives":
        points = one["negatives"]
        return [step for step, _ in points], [value - points[0][1] for _, value in points]
    first = one["within"][0][1][name] if name == "perplexity" else 1.0
    return [step for step, _ in one["within"]], [figures[name] / first for _, figures in one["within"]]


if __name__ == "__main__":
    sys.exit(main())
