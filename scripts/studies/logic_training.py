"""From logic to training: losses of the landscape, and three of nobody's, trained on the quickstart's task.

``python scripts/studies/logic_training.py`` runs what is missing with the stand-in model, one result file a run in
``docs/results/logic_training/``, draws ``docs/images/logic_training.png`` and ``.svg``, and writes the tables of
``docs/results/logic_training.md``; what stands around its marks on that page stays. Every loss is trained on the
probabilities of whole responses and on those of tokens. What the truth table foretells (``align.logic.predict``) is put
down before as a test on the result: see :data:`TESTS`.
"""

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from align.logic.known import find
from align.logic.predict import OUTLOOKS, column_class, start
from align.logic.printing import infix
from align.logic.structure import Structure
from align.recipe.load import load_recipe
from align.recipe.schema import Recipe
from align.report.look import COLOURS, RUN_COLOURS, look, save
from align.report.metrics_file import read_metrics
from align.trainers.run import run_recipe
from scripts.studies.reward_kl import digest_of_run, line, say
from scripts.studies.stand_in import Settings, folder_of, stand_in

NODES = ("CPO", "cCPO", "ORPO", "CE", "sCE", "fUnl", "unCPO", "cfUnl", "qfUnl", "l5")
"""Losses of the landscape, from each column of its table."""
OWN: Mapping[str, dict[str, str]] = {
    "kept winner": {"formula": "M(w) & (M(l) -> Ref(l))"},
    "no loss, no gain": {"formula": "(Ref(w) -> M(w)) & (M(l) -> Ref(l))"},
    "asked of the reference": {"formula": "M(l) & Ref(w) -> M(w)", "condition": "M(w) | M(l)"},
}
"""Formulas that are nobody's loss yet: in no landscape, in no list of ours."""
SEEDS = (1, 2)

RECIPE = Path("scripts/studies/logic_training.yaml")
RESULTS = Path("docs/results/logic_training")
PAGE = Path("docs/results/logic_training.md")
IMAGES = [Path("docs/images/logic_training.png"), Path("docs/images/logic_training.svg")]
START, END = "<!-- made by scripts/studies/logic_training.py -->", "<!-- to here -->"


def structure_of(name: str) -> Structure:
    """Return the structure that a loss of the study has."""
    return find(name).needed() if name in NODES else find(**_formulas(OWN[name])).needed()


def _formulas(given: Mapping[str, str]) -> dict[str, str]:
    return {"text": given["formula"], **{key: value for key, value in given.items() if key != "formula"}}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the study."""

    loss: str
    tokens: bool
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.loss.replace(' ', '-').replace(',', '')}-{'tokens' if self.tokens else 'responses'}-{self.seed}"

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.name}.json"

    @property
    def objective(self) -> dict[str, Any]:
        """Its section of the recipe."""
        structure = structure_of(self.loss)
        formulas = OWN.get(self.loss) or {
            "formula": infix(structure.weakest_core().formula),
            "condition": infix(structure.condition()),
            "additive": infix(structure.additive()),
        }
        return {**formulas, "length_normalised": self.tokens}

    def recipe(self) -> Recipe:
        """Return its recipe."""
        changes = [
            f"model.path={folder_of(Settings())}",
            f"objective={json.dumps(self.objective)}",
            f"trainer.seed={self.seed}",
            f"data.train.synth.seed={self.seed}",
            f"output.dir=runs/studies/logic_training/{self.name}",
        ]
        return load_recipe(RECIPE, changes)


def planned() -> list[Run]:
    """Return every run of the study."""
    return [Run(loss, tokens, seed) for seed in SEEDS for tokens in (False, True) for loss in (*NODES, *OWN)]


def main() -> int:
    """Run what is missing, draw and write; return 1 where a run failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS, help="only this one (may be repeated)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    failures = run_missing([run for run in planned() if run.seed in (arguments.seed or SEEDS)])
    results = [read(run) for run in planned() if run.file.is_file()]
    if results:
        draw(results)
        write_page(results)
    print(json.dumps({"runs": results, "failures": failures}) if arguments.json else tables(results))
    return 1 if failures else 0


def run_missing(runs: Sequence[Run]) -> dict[str, str]:
    """Run those without a result, saying how long the rest takes; return what failed, and why."""
    missing, failures = [run for run in runs if not run.file.is_file()], {}
    say(f"{len(runs) - len(missing)} of {len(runs)} results are there")
    started = time.perf_counter()
    for done, run in enumerate(missing, 1):
        try:
            found = result(run)
            drift = moved(found)
            said = f"chosen {drift['chosen']:+.2f}, rejected {drift['rejected']:+.2f} nats a token"
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
    rows = [row for row in read_metrics(Path(summary["folder"])) if "eval_loss" in row]
    keys = (
        "eval_loss",
        "eval_logps/chosen",
        "eval_logps/rejected",
        "eval_mean_logps/chosen",
        "eval_mean_logps/rejected",
    )
    found = {
        "loss": run.loss,
        "tokens": run.tokens,
        "seed": run.seed,
        "objective": run.objective,
        "curves": {key.removeprefix("eval_"): [row[key] for row in rows] for key in ("step", *keys)},
        "reward": summary["generation"]["reward"],
        "kl": summary["generation"]["kl"],
        "accuracy": {key: value for key, value in summary["held_out"].items() if "accuracy" in key},
        "seconds": summary["seconds"],
        "versions": summary["versions"],
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


def moved(found: Mapping[str, Any]) -> dict[str, float]:
    """Return how far the held-out log-probabilities a token moved from first to last evaluation, in nats."""
    return {
        side: found["curves"][f"mean_logps/{side}"][-1] - found["curves"][f"mean_logps/{side}"][0] for side in SIDES
    }


SIDES = ("chosen", "rejected")
STILL = 0.01
"""Nats a token below which a log-probability did not move."""

Test = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]


def _alike(found: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether a run moved as the first of its class did: within 5 % of the larger drift."""
    mine, theirs = moved(found), moved(first)
    scale = max(abs(value) for value in theirs.values())
    return all(abs(mine[side] - theirs[side]) <= 0.05 * scale for side in SIDES)


def _stays(found: Mapping[str, Any]) -> bool:
    return all(abs(value) < STILL for value in moved(found).values())


TESTS: Mapping[str, Mapping[bool, tuple[str, Test]]] = {
    "neither": {
        False: ("moves as CPO does", _alike),
        True: ("margin grows", lambda found, _: moved(found)["chosen"] > moved(found)["rejected"] + STILL),
    },
    "lose": {
        False: ("moves as CE does", _alike),
        True: ("chosen rises", lambda found, _: moved(found)["chosen"] > STILL),
    },
    "win": {
        False: ("loss 0, nothing moves", lambda found, _: found["curves"]["loss"][0] < 1e-3 and _stays(found)),
        True: ("both fall", lambda found, _: max(moved(found).values()) < -STILL),
    },
    "both": {
        False: (
            "loss log 2, nothing moves",
            lambda found, _: abs(found["curves"]["loss"][0] - math.log(2)) < 1e-3 and _stays(found),
        ),
        True: (
            "margin grows less than CPO's",
            lambda found, first: 0 < _margin(found) < _margin(first),
        ),
    },
}
"""For each mark of the row where nothing is deemed valid, and for probabilities of responses or of tokens: what is
foretold of a loss without a reference, and whether it came true. Losses are compared with CPO, those of column ``lose``
with CE."""


STARTED: Mapping[str, tuple[str, Test]] = {"floor": TESTS["win"][False], "far": TESTS["lose"][False]}
"""What is foretold of the formulas of nobody's on whole responses, by ``align.logic.predict.start``. That rule was
found on seed 1, where a formula whose column foretold a ratio stood still; seed 2 was run after."""


def _margin(found: Mapping[str, Any]) -> float:
    return moved(found)["chosen"] - moved(found)["rejected"]


def verdicts(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each loss and kind of probabilities what was foretold, and in how many seeds it came true."""
    rows = []
    for loss, tokens in product((*NODES, *OWN), (False, True)):
        structure = structure_of(loss)
        mark = column_class(structure)
        assert mark is not None
        if loss in NODES or not tokens:
            mine = [found for found in results if found["loss"] == loss and found["tokens"] == tokens]
            says, test = TESTS[mark][tokens] if loss in NODES else STARTED[str(start(structure))]
            compared = "CE" if "CE" in says or mark == "lose" else "CPO"
            first = {f["seed"]: f for f in results if f["loss"] == compared and f["tokens"] == tokens}
            came = [test(found, first[found["seed"]]) for found in mine if found["seed"] in first]
            rows.append({"loss": loss, "tokens": tokens, "class": OUTLOOKS[mark].title, "foretold": says, "came": came})
    return rows


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Return what came of the foretold, and a row a run."""
    heads = ("loss", "probabilities", "class", "foretold", "came true")
    kinds = {False: "responses", True: "tokens"}
    first = [line(heads), line(["---"] * len(heads))]
    for row in verdicts(results):
        came = f"{sum(row['came'])} of {len(row['came'])}"
        first.append(line([row["loss"], kinds[row["tokens"]], row["class"], row["foretold"], came]))
    heads = (
        "loss",
        "probabilities",
        "seed",
        "loss at the start",
        "at the end",
        "chosen",
        "rejected",
        "reward",
        "KL",
        "accuracy",
    )
    second = [line(heads), line(["---"] * len(heads))]
    second += [line(_cells(found, kinds[found["tokens"]])) for found in results]
    return "\n".join([*first, "", *second])


def _cells(found: Mapping[str, Any], kind: str) -> list[str]:
    losses, drift = found["curves"]["loss"], moved(found)
    difference = found["reward"]["difference"]
    return [
        found["loss"] + (" (stale)" if found["stale"] else ""),
        kind,
        str(found["seed"]),
        f"{losses[0]:.4f}",
        f"{losses[-1]:.4f}",
        *(f"{drift[side]:+.3f}" for side in SIDES),
        f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]",
        f"{found['kl']['value']:.2f}",
        f"{found['accuracy']['eval_accuracy']:.3f}",
    ]


def draw(results: Sequence[Mapping[str, Any]]) -> None:
    """Draw held-out log-probabilities a token over the steps: a column a class, a row a kind of probabilities."""
    columns = [*(outlook.title for outlook in OUTLOOKS.values()), "nobody's yet"]
    with look(size=9):
        figure, axes = plt.subplots(2, len(columns), figsize=(15, 6.4), sharex=True, sharey="row", layout="constrained")
        for row, tokens in enumerate((False, True)):
            for place, title in enumerate(columns):
                _panel(axes[row][place], [f for f in results if f["tokens"] == tokens and _column(f["loss"]) == title])
                if row == 0:
                    axes[row][place].set_title(title)
                else:
                    axes[row][place].set_xlabel("optimiser step")
            kind = "tokens" if tokens else "whole responses"
            axes[row][0].set_ylabel(f"trained on probabilities of {kind}\nheld-out log-probability, nats a token")
        save(figure, IMAGES)
        plt.close(figure)


def _column(loss: str) -> str:
    mark = None if loss in OWN else column_class(structure_of(loss))
    return "nobody's yet" if mark is None else OUTLOOKS[mark].title


def _panel(axes: Any, results: Sequence[Mapping[str, Any]]) -> None:
    losses = list(dict.fromkeys(found["loss"] for found in results))
    for found in results:
        colour = COLOURS[RUN_COLOURS[losses.index(found["loss"])]]
        curves, first = found["curves"], found["seed"] == SEEDS[0]
        for side, style in (("chosen", "-"), ("rejected", "--")):
            label = f"{found['loss']}, {side}" if first else "_"
            axes.plot(
                curves["step"],
                curves[f"mean_logps/{side}"],
                style,
                color=colour,
                label=label,
                alpha=1.0 if first else 0.5,
            )
    axes.legend(fontsize="x-small")


def write_page(results: Sequence[Mapping[str, Any]]) -> None:
    """Write the page's tables between its marks, and leave what is around them."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else f"# From logic to training\n\n{START}\n{END}\n"
    before, _, rest = page.partition(START)
    made = f"""{START}
Command: `python scripts/studies/logic_training.py` (one result file a run in [logic_training/](logic_training/), with
versions; the same command runs only what is missing). Recipe: `scripts/studies/logic_training.yaml`; model:
[the stand-in](../stand-in.md). Drifts are of held-out log-probabilities, in nats a token, from before the first step to
after the last; rewards are differences to the base model, with 95 % bootstrap intervals over prompts.

![Held-out log-probabilities of chosen and rejected](../images/logic_training.png)

{tables(results)}
"""
    PAGE.write_text(before + made + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
