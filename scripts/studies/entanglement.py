"""The experiments of the gradient entanglement paper at our scale, and its remedies, with the stand-in model.

``python scripts/studies/entanglement.py suffix`` (or ``objectives``, ``remedies``, ``task``; all where none is named)
runs what is missing, one result file a run in ``docs/results/entanglement/``, draws ``docs/images/entanglement_*.png``
and writes the tables of ``docs/results/entanglement.md``; what stands around its marks on that page stays. Yuan et al.,
ICLR 2025, arXiv:2410.13828, section 4.3 and figure 2.

- ``suffix``: sentiment pairs that differ in one token, in one token before a short, and before a long identical suffix.
- ``objectives``: one run an objective on six transcripts of HH (the file that ALIGN_HH_FILE names), all in every step.
- ``remedies``: every remedy and two baselines beside plain DPO, on the pairs with the long suffix.
- ``task``: the same arms on the quickstart's task, with rewards of samples.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from align.data.sources import read_rows
from align.diagnostics.conditions import cases
from align.models.load import Source, load_model, load_tokenizer
from align.recipe.load import load_recipe
from align.recipe.schema import SourceSettings, SynthSettings
from align.report.look import BLUE, VERMILLION, base_line, look, save
from align.report.metrics_file import read_metrics
from align.report.pair_figures import CASE_LOOK
from align.sampling.synth import synthesise
from align.trainers.run import run_recipe
from scripts.studies.over_seeds import (
    curves,
    line,
    matching,
    results_of,
    run_missing,
    say,
    shown,
    table_head,
    verdict,
    with_mean,
    write_between,
)
from scripts.studies.stand_in import Settings, digest_of, stand_in

RESULTS = Path("docs/results/entanglement")
PAGE = Path("docs/results/entanglement.md")
IMAGES = Path("docs/images")
WORK = Path("runs/studies/entanglement")
RECIPE, TASK_RECIPE = "scripts/studies/entanglement.yaml", "scripts/studies/logic_training.yaml"
SCRIPT = "scripts/studies/entanglement.py"
SUFFIXES = {
    "one token": "",
    "short suffix": " in its mood",
    "long suffix": " in its mood, as all who read it with care can tell at once from the words that it is made of",
}
TUNED = ("trainer.learning_rate=5e-5", "trainer.max_steps=12")
"""Before DPO, on the right answers: enough for the form of an answer, not enough to know the suffix by heart."""
ARMS: Mapping[str, Sequence[str]] = {
    "dpo": (),
    "normalise": ("disentangle=normalise",),
    "calibrate": ("disentangle=calibrate",),
    "sparse, contrast": ("disentangle={name: sparse, mask: contrast}",),
    "sparse, learned": ("disentangle={name: sparse, mask: learned}",),
    "dpop": ("objective={name: dpop, lam: 5.0}",),
    "dpo + sft": ("objective=[{name: dpo}, {name: sft, weight: 0.2}]",),
}
OBJECTIVES = ("dpo", "ipo", "simpo", "cpo", "slic_hf", "rrhf", "r_dpo", "dpop", "sppo_hard", "orpo", "apo_zero")
HH_PAIRS = 6
"""All in every step, so that what is predicted step by step adds up to what becomes of them."""
SEEDS = (1, 2, 3)
COLUMNS = ("cosine", "norm_ratio", *(f"{p}{c}" for p in ("share_", "step_share_") for c in CASE_LOOK))


@dataclass(frozen=True, slots=True)
class Run:
    """One run: which study, which arm of it, which seed."""

    study: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        plain = "".join(sign if sign.isalnum() else "-" for sign in self.arm).replace("--", "-")
        return f"{self.study}-{plain}-{self.seed}"

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.name}.json"

    @property
    def changes(self) -> list[str]:
        """What it changes in its recipe, but for files and folders."""
        seeds = [f"trainer.seed={self.seed}"]
        if self.study == "suffix":
            return seeds
        if self.study == "remedies":
            return [*seeds, *ARMS[self.arm]]
        if self.study == "task":
            sampled = [f"data.train.synth.seed={self.seed}", "diagnostics={entanglement: {every: 4}}"]
            return [*seeds, *sampled, "objective=dpo", *ARMS[self.arm]]
        few = ["data.max_length=128", "data.truncation=keep_end", "trainer.max_steps=11", "trainer.eval_steps=11"]
        few += [f"trainer.per_device_train_batch_size={HH_PAIRS}", "trainer.learning_rate=2e-5"]
        few += ["diagnostics={entanglement: {every: 1, pairs: null}}"]
        return [*seeds, *few, f"objective={self.arm}"]

    @property
    def digest(self) -> str:
        """Of what decides about it."""
        recipe = Path(TASK_RECIPE if self.study == "task" else RECIPE).read_text(encoding="utf-8")
        parts = [recipe, digest_of(Settings()), SUFFIXES, TUNED, *self.changes]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def files(self) -> list[str]:
        """Return the files and the folder of its recipe, made where they are missing."""
        out = f"output.dir={WORK / self.name}"
        if self.study == "task":
            return [f"model.path={stand_in()}", out]
        if self.study == "objectives":
            train, held_out = hh_files()
            return [f"model.path={stand_in()}", f"data={{train: {train}, eval: {held_out}}}", out]
        kind = self.arm if self.study == "suffix" else "long suffix"
        train, held_out = suffix_files(kind)
        return [f"model.path={tuned(kind, self.seed)}", f"data.train={train}", f"data.eval={held_out}", out]


def planned(studies: Sequence[str]) -> list[Run]:
    """Return every run of the studies."""
    arms = {"suffix": SUFFIXES, "remedies": ARMS, "task": ARMS, "objectives": OBJECTIVES}
    seeds = {"objectives": SEEDS[:1]}
    return [Run(study, arm, seed) for study in studies for seed in seeds.get(study, SEEDS) for arm in arms[study]]


def main() -> int:
    """Run what is missing, draw and write; return 1 where a run failed."""
    studies = ("suffix", "objectives", "remedies", "task")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", nargs="*", choices=[*studies, []], help="which; all where none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    asked = arguments.study or studies
    if "objectives" in asked and not os.environ.get("ALIGN_HH_FILE"):
        say("objectives: set ALIGN_HH_FILE to harmless-base/test.jsonl.gz of Anthropic/hh-rlhf; left out")
        asked = [study for study in asked if study != "objectives"]
    failures = run_missing(planned(asked), result, told)
    found = results_of(planned(studies))
    draw(found)
    write_between(PAGE, SCRIPT, "Gradient entanglement, at our scale", tables(found))
    print(json.dumps({"runs": found, "failures": failures}) if arguments.json else tables(found))
    return 1 if failures else 0


def result(run: Run) -> dict[str, Any]:
    """Run, and return what is kept of it."""
    recipe = load_recipe(TASK_RECIPE if run.study == "task" else RECIPE, [*run.files(), *run.changes])
    with contextlib.redirect_stdout(sys.stderr):
        summary = run_recipe(recipe)
    rows = read_metrics(Path(summary["folder"]))
    return {
        "study": run.study,
        "arm": run.arm,
        "seed": run.seed,
        "held_out": curves(rows, [f"eval_logps/{side}" for side in ("chosen", "rejected")]),
        "training": curves(rows, [f"logps/{side}" for side in ("chosen", "rejected")]),
        "entanglement": curves(rows, [f"entanglement/{name}" for name in (*COLUMNS, "step_chosen", "step_rejected")]),
        "accuracy": summary["held_out"].get("eval_accuracy"),
        "reward": summary["generation"].get("reward", {}),
        "seconds": summary["seconds"],
        "command": f"python scripts/studies/entanglement.py {run.study}",
        "versions": {name: importlib.metadata.version(name) for name in ("align", "torch", "transformers", "peft")},
        "digest": run.digest,
    }


def told(found: Mapping[str, Any]) -> str:
    """Return a few words on a result."""
    return f"chosen {drift(found, 'chosen'):+.2f}, rejected {drift(found, 'rejected'):+.2f} nats"


# ---- pairs that differ in one token ----------------------------------------------------------------------------


def suffix_files(kind: str) -> tuple[Path, Path]:
    """Return files of pairs to train on and held out: texts, and what is said of their mood, right and wrong."""
    paths = [WORK / "data" / f"{kind.replace(' ', '-')}-{part}.jsonl" for part in ("train", "heldout")]
    if not all(path.is_file() for path in paths):
        source = Source(path=str(stand_in()))
        model, tokenizer = load_model(source).eval(), load_tokenizer(source)
        for word in (" positive", " negative"):
            if len(tokenizer(word, add_special_tokens=False).input_ids) != 1:
                raise ValueError(f"{word!r} is more than one token of the stand-in")
        for path, part in zip(paths, ("train", "heldout"), strict=True):
            limit = None if part == "train" else 24
            settings = SynthSettings(prompts="sentiment", split=part, limit=limit, samples=4, min_gap=0.4)
            texts, _ = synthesise(model, tokenizer, settings)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for pair in texts for row in _labelled(pair, kind)))
    return paths[0], paths[1]


def hh_files() -> tuple[Path, Path]:
    """Return files of the first pairs of HH to train on, and of the 24 behind them, held out."""
    lines = [row for _, row in read_rows(SourceSettings(path=os.environ["ALIGN_HH_FILE"]))][: HH_PAIRS + 24]
    paths = [WORK / "data" / f"hh-{part}.jsonl" for part in ("train", "heldout")]
    for path, rows in zip(paths, (lines[:HH_PAIRS], lines[HH_PAIRS:]), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths[0], paths[1]


def _labelled(pair: Any, kind: str) -> list[dict[str, str]]:
    words = (" positive", " negative")
    rows = []
    for text, (right, wrong) in ((pair.chosen, words), (pair.rejected, words[::-1])):
        said = text[0]["content"].strip()
        ends = [f"{word}{SUFFIXES[kind]}" for word in (right, wrong)]
        rows.append({"prompt": f'The text "{said}" is', "chosen": ends[0], "rejected": ends[1]})
    return rows


def tuned(kind: str, seed: int) -> Path:
    """Return the stand-in after a few steps on the right answers, as the paper tunes before it begins."""
    folder = WORK / f"sft-{kind.replace(' ', '-')}-{seed}"
    if not (folder / "summary.json").is_file():
        train, _ = suffix_files(kind)
        changes = [f"model.path={stand_in()}", f"data.train={train}", "data.eval=[]", "trainer.eval_strategy=no"]
        changes += ["objective=sft", *TUNED, "diagnostics=null"]
        changes += ["trainer.eval_on_start=false", f"trainer.seed={seed}", f"output.dir={folder}"]
        with contextlib.redirect_stdout(sys.stderr):
            run_recipe(load_recipe(RECIPE, changes))
    return folder / "model"


# ---- what came of it -------------------------------------------------------------------------------------------


def drift(found: Mapping[str, Any], side: str) -> float:
    """Return how far a held-out log-probability moved, in nats."""
    points = found["held_out"][side]
    return float(points[-1][1] - points[0][1])


def level(found: Mapping[str, Any], name: str, part: slice) -> float:
    """Return the mean of a measured figure over a part of a run; NaN where it was not measured."""
    values = [value for _, value in found["entanglement"].get(name, [])][part]
    return float(np.mean(values)) if values else float("nan")


FIRST, LAST = slice(0, 2), slice(-4, None)


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """Return all tables as Markdown."""
    parts = [_suffix_table(found), _arms_table(found, "remedies"), _arms_table(found, "task"), _objectives_table(found)]
    return "\n\n".join(part for part in parts if part)


def _suffix_table(found: Sequence[Mapping[str, Any]]) -> str:
    if not all(matching(found, study="suffix", arm=kind) for kind in SUFFIXES):
        return ""
    head = (
        "pairs",
        "cosine, first steps",
        "cosine, last steps",
        "chosen, nats",
        "rejected, nats",
        "both down, % of pairs",
    )
    rows = table_head("One token, and what follows it", head)
    for kind in SUFFIXES:
        runs = matching(found, study="suffix", arm=kind)
        drifts = [shown([drift(one, side) for one in runs]) for side in ("chosen", "rejected")]
        cosines = [shown([level(one, "cosine", part) for one in runs]) for part in (FIRST, LAST)]
        down = f"{100 * np.mean([level(one, 'step_share_both_down', slice(None)) for one in runs]):.0f}"
        rows.append(line([kind, *cosines, *drifts, down]))
    one, short, long = (matching(found, study="suffix", arm=kind) for kind in SUFFIXES)
    cosine = {
        name: [level(r, "cosine", slice(None)) for r in runs] for name, runs in (("1", one), ("s", short), ("l", long))
    }
    falls = {name: [drift(r, "chosen") for r in runs] for name, runs in (("1", one), ("l", long))}
    checks: list[tuple[str, list[float], str]] = [
        ("the cosine is negative without a suffix", cosine["1"], "below"),
        ("it is positive with the long one", cosine["l"], "above"),
        ("it grows from none to short", list(np.subtract(cosine["s"], cosine["1"])), "above"),
        ("and from short to long", list(np.subtract(cosine["l"], cosine["s"])), "above"),
        ("the chosen rises without a suffix", falls["1"], "above"),
        ("it falls with the long one", falls["l"], "below"),
    ]
    said = [(what, with_mean(verdict(values, **{side: 0.0}), values)) for what, values, side in checks]
    return "\n".join([*rows, "", *(f"- {what}: **{word}**" for what, word in said)])


def _arms_table(found: Sequence[Mapping[str, Any]], study: str) -> str:
    if not all(matching(found, study=study, arm=arm) for arm in ARMS):
        return ""
    title = {"remedies": "Remedies on the long suffix", "task": "Remedies on the quickstart's task"}[study]
    head = [
        "arm",
        "chosen, nats",
        "rejected, nats",
        "margin, nats",
        "held-out accuracy",
        "both down, %",
        "chosen no longer falls",
    ]
    head += ["reward gained", "reward beside DPO's"] if study == "task" else []
    rows = table_head(title, head)
    plain = {one["seed"]: one for one in matching(found, study=study, arm="dpo")}
    for arm in ARMS:
        runs = matching(found, study=study, arm=arm)
        chosen, rejected = ([drift(one, side) for one in runs] for side in ("chosen", "rejected"))
        down = f"{100 * np.mean([level(one, 'step_share_both_down', slice(None)) for one in runs]):.0f}"
        accuracy = f"{np.mean([one['accuracy'] for one in runs]):.2f}"
        margin = shown(list(np.subtract(chosen, rejected)))
        row = [arm, shown(chosen), shown(rejected), margin, accuracy, down, with_mean(verdict(chosen, above=0), chosen)]
        if study == "task":
            gained = [one["reward"]["difference"]["value"] for one in runs]
            beside = [
                one["reward"]["difference"]["value"] - plain[one["seed"]]["reward"]["difference"]["value"]
                for one in runs
            ]
            row += [f"{np.mean(gained):+.3f}", shown(beside, "+.3f")]
        rows.append(line(row))
    return "\n".join(rows)


def _objectives_table(found: Sequence[Mapping[str, Any]]) -> str:
    if not any(one["study"] == "objectives" for one in found):
        return ""
    head = ("objective", "chosen, nats", "summed", "rejected, nats", "summed")
    head += ("conditions, pair alone: ideal / both down / both up, %", "the optimiser's step: the same")
    head += ("case that the conditions name, and what became", "held-out chosen", "held-out rejected")
    rows = table_head("Objectives on HH", head)
    right, told, named = 0, 0, []
    for name in OBJECTIVES:
        for one in matching(found, study="objectives", arm=name):
            cells = [name]
            for side in ("chosen", "rejected"):
                moved, predicted = trained(one, side)
                right, told = right + (np.sign(moved) == np.sign(predicted)), told + 1
                cells += [f"{moved:+.2f}", f"{predicted:+.2f}"]
            for kind in ("share", "step_share"):
                shares = [100 * level(one, f"{kind}_{case}", slice(None)) for case in ("ideal", "both_down", "both_up")]
                cells.append(" / ".join(f"{share:.0f}" for share in shares))
            case, became = by_conditions(one), what_became(one)
            named.append(case == became)
            cells.append(CASE_LOOK[case][0] if case == became else f"{CASE_LOOK[case][0]}; {CASE_LOOK[became][0]}")
            rows.append(line([*cells, *(f"{drift(one, side):+.2f}" for side in ("chosen", "rejected"))]))
    checks = [
        f"- case of the mean pair, as the conditions of plain descent on each pair alone name it: **{sum(named)} of "
        f"{len(named)}**",
        f"- changes along the optimiser's own steps, first order, summed, have the direction of what became: **{right} "
        f"of {told}**",
    ]
    return "\n".join([*rows, "", *checks])


def by_conditions(found: Mapping[str, Any]) -> str:
    """Return the case that the conditions name for most pairs, over all steps: before anything has moved."""
    return max(CASE_LOOK, key=lambda case: np.nan_to_num(level(found, f"share_{case}", slice(None))))


def what_became(found: Mapping[str, Any]) -> str:
    """Return the case of the mean pair that was trained on, from start to end."""
    moved = [trained(found, side)[0] for side in ("chosen", "rejected")]
    one = {name: bool(pairs) for name, pairs in cases(*map(torch.tensor, moved)).items()}
    return next(name for name, is_so in one.items() if is_so)


def trained(found: Mapping[str, Any], side: str) -> tuple[float, float]:
    """Return how far the pairs that are trained on moved, all in every step, and the sum of the predictions."""
    points = found["training"][side]
    steps = dict(found["entanglement"][f"step_{side}"])
    return points[-1][1] - points[0][1], sum(steps[step] for step, _ in points[:-1])


def draw(found: Sequence[Mapping[str, Any]]) -> None:
    """Draw the picture of every study that has results."""
    for study, arms in (("suffix", SUFFIXES), ("remedies", ARMS), ("task", ARMS), ("objectives", OBJECTIVES)):
        shown = [arm for arm in arms if matching(found, study=study, arm=arm)]
        if shown:
            _draw(found, study, shown)


def _draw(found: Sequence[Mapping[str, Any]], study: str, arms: Sequence[str]) -> None:
    columns = min(4, len(arms))
    blocks = -(-len(arms) // columns)
    with look(9):
        figure = Figure(figsize=(3.0 * columns, 4.4 * blocks), dpi=100, layout="constrained")
        axes = figure.subplots(2 * blocks, columns, squeeze=False, height_ratios=[3, 2] * blocks)
        for ax in axes.flat:
            ax.set_visible(False)
        for place, arm in enumerate(arms):
            block, column = divmod(place, columns)
            upper, lower = axes[2 * block][column], axes[2 * block + 1][column]
            _draw_arm(upper, lower, matching(found, study=study, arm=arm))
            upper.set_title(arm, loc="left", fontsize=10)
            if column == 0:
                upper.set_ylabel("log-prob, change (nats)")
                lower.set_ylabel("cosine; shares")
        (lines, sides), (bars, cases) = (ax.get_legend_handles_labels() for ax in (axes[0][0], axes[1][0]))
        figure.legend([*lines, *bars], [*sides, *cases], loc="outside lower center", ncols=min(7, 2 * columns))
        save(figure, [IMAGES / f"entanglement_{study}.{ending}" for ending in ("png", "svg")])


def _draw_arm(upper: Any, lower: Any, runs: Sequence[Mapping[str, Any]]) -> None:
    for ax in (upper, lower):
        ax.set_visible(True)
        base_line(ax)
    for side, colour in (("chosen", BLUE), ("rejected", VERMILLION)):
        for number, one in enumerate(runs):
            points = np.array(one["training" if one["study"] == "objectives" else "held_out"][side])
            upper.plot(
                points[:, 0], points[:, 1] - points[0, 1], color=colour, alpha=0.8, label=None if number else side
            )
            if one["study"] == "objectives":
                summed = np.cumsum([0.0, *(change for _, change in one["entanglement"][f"step_{side}"][:-1])])
                told = "predicted" if side == "rejected" and not number else None
                upper.plot(points[:, 0], summed, color="#222222", linestyle=":", label=told)
    bottom: Any = 0.0
    for case, (label, colour) in CASE_LOOK.items():
        lines = [np.array(one["entanglement"][f"step_share_{case}"]) for one in runs]
        shortest = min(map(len, lines))
        if not shortest:
            continue
        share = np.mean([values[:shortest, 1] for values in lines], axis=0)
        steps = lines[0][:shortest, 0]
        width = 0.9 * float(np.diff(steps).min()) if shortest > 1 else 0.9
        lower.bar(steps, share, width, bottom=bottom, color=colour, alpha=0.35, label=label)
        bottom = bottom + share
    for number, one in enumerate(runs):
        points = np.array(one["entanglement"]["cosine"])
        if len(points):
            lower.plot(points[:, 0], points[:, 1], color="#222222", linewidth=1, label=None if number else "cosine")
    lower.set_ylim(-1.02, 1.02)
    lower.set_xlabel("optimiser step")


if __name__ == "__main__":
    sys.exit(main())
