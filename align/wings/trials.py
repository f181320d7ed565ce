"""Runs of a claim: every arm tuned, then run over seeds; a result file a run, so that only what is missing is run."""

import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from align.data.cache import written_whole
from align.recipe.tree import RecipeTree
from align.wings.claim import Claim
from align.wings.gallery import Splits
from align.wings.provenance import code_digest
from align.wings.recipe import MethodRecipe, build_method_recipe, digest, with_overrides
from align.wings.run import on, own_pictures
from align.wings.sources import load_data
from align.wings.workbench import Workbench

PACKAGES = (
    "align",
    "torch",
    "transformers",
    "kornia",
    "scikit-learn",
    "scikit-image",
    "pytorch-metric-learning",
    "mlxtend",
)
"""Whose versions stand in a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run that is asked for.

    Attributes:
        arm: whose.
        seed: of everything random.
        changes: settings that differ from the recipe's, by dotted keys, the seed aside.
        recipe: with all of that.
        ran_on: what decides the run beside its recipe (:func:`ran_on`).
    """

    arm: str
    seed: int
    changes: Mapping[str, Any]
    recipe: MethodRecipe
    ran_on: str

    @property
    def name(self) -> str:
        """Of its file: arm, seed, and digests of recipe, code and pictures of one's own."""
        return f"{self.arm}-{self.seed}-{digest(self.recipe)}-{self.ran_on}"


def ran_on(recipe: MethodRecipe) -> str:
    """Return a digest of what decides a run beside its recipe: the code, and the pictures in a folder of one's own."""
    pictures = "".join(own_pictures(recipe).values())[:8]
    return code_digest(recipe.method, recipe.data) + (f"-{pictures}" if pictures else "")


@dataclass(slots=True)
class Store:
    """Where results of runs are: those of an earlier whole result, and one file each of those since."""

    folder: Path
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, trial: Trial) -> Mapping[str, Any] | None:
        """Return a run's result, or None."""
        file = self.folder / f"{trial.name}.json"
        if file.is_file():
            found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return found
        return self.earlier.get(trial.name)

    def put(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Keep a run's result."""
        with written_whole(self.folder / f"{trial.name}.json") as partial:
            partial.write_text(json.dumps(result) + "\n", encoding="utf-8")

    def clear(self) -> None:
        """Remove the files: their content is in the whole result now."""
        for file in self.folder.glob("*.json"):
            file.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class Trials:
    """All runs of a claim.

    Args:
        tree: of the recipe.
        claim: its claim.
        store: where results are kept.
        tell: called with a line for people after each run.
    """

    def __init__(self, tree: RecipeTree, claim: Claim, store: Store, tell: Callable[[str], None]) -> None:
        self.tree, self.claim, self.store, self.tell = tree, claim, store, tell
        self.done: dict[str, Mapping[str, Any]] = {}
        self._data: dict[str, Splits] = {}
        self._ran_on: dict[str, str] = {}
        self._spent = 0.0
        self._ran = 0

    def tune(self) -> dict[str, list[tuple[Mapping[str, Any], float]]]:
        """Run every arm's trials and return what each setting came to, on the mean over the tuning seeds."""
        tuning = self.claim.tuning
        if tuning is None:
            return {}
        found: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
        for arm in self.claim.arms:
            for changes in self.claim.trials_of(arm):
                values = [self._figure(self.trial(arm, seed, changes), tuning.figure) for seed in tuning.seeds]
                found.setdefault(arm, []).append((changes, sum(values) / len(values)))
        return found

    def compare(self, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
        """Run every arm over the claim's seeds with the settings chosen for it; return arm, figure, values."""
        values: dict[str, dict[str, list[float]]] = {}
        for seed in self.claim.seeds:  # by seed first: a claim that is cut off has whole pairs
            for arm in self.claim.arms:
                figures = self.run(self.trial(arm, seed, chosen.get(arm, {})))["figures"]
                for name, value in figures.items():
                    values.setdefault(arm, {}).setdefault(name, []).append(value)
        return values

    def best(self, tried: Mapping[str, Sequence[tuple[Mapping[str, Any], float]]]) -> dict[str, Mapping[str, Any]]:
        """Return the best settings of each arm; of equals, the first."""
        sign = -1 if self.claim.tuning and self.claim.tuning.smallest else 1
        return {arm: max(trials, key=lambda trial: sign * trial[1])[0] for arm, trials in tried.items()}

    def trial(self, arm: str, seed: int, changes: Mapping[str, Any]) -> Trial:
        """Return the run of an arm with a seed and some changes."""
        whole = {**self.claim.arms[arm], **changes}
        recipe = build_method_recipe(with_overrides(self.tree, {**whole, "trainer.seed": seed}))
        key = f"{recipe.data} {recipe.data_settings}"
        if key not in self._ran_on:
            self._ran_on[key] = ran_on(recipe)
        return Trial(arm=arm, seed=seed, changes=whole, recipe=recipe, ran_on=self._ran_on[key])

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Return a run's result, run now where there is none."""
        found = self.store.get(trial)
        if found is None:
            found = self._run_now(trial)
            self.store.put(trial, found)
        self.done[trial.name] = found
        return found

    def _figure(self, trial: Trial, name: str) -> float:
        figures = self.run(trial)["figures"]
        if name not in figures:
            raise ValueError(f"claim.tuning: runs have no figure {name!r}; they have {', '.join(sorted(figures))}")
        return float(figures[name])

    def _run_now(self, trial: Trial) -> Mapping[str, Any]:
        started, busy = time.perf_counter(), time.process_time()
        with _aside() as folder:
            figures = on(Workbench(trial.recipe, self._loaded(trial.recipe), folder, keeps=False))
        seconds = time.perf_counter() - started
        self._spent, self._ran = self._spent + seconds, self._ran + 1
        left = (self.total - len(self.done) - 1) * self._spent / self._ran
        changes = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.changes.items())
        self.tell(
            f"[{len(self.done) + 1}/{self.total}] {trial.arm}, seed {trial.seed}{': ' + changes if changes else ''}: "
            f"{seconds:.1f} s; about {left / 60:.1f} min left"
        )
        return {
            "arm": trial.arm,
            "seed": trial.seed,
            "changes": dict(trial.changes),
            "figures": figures,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(time.process_time() - busy, 2),
            "versions": versions(),
        }

    @property
    def total(self) -> int:
        """How many runs there are, tuning included."""
        tuned = len(self.claim.tuning.seeds) if self.claim.tuning else 0
        return sum(len(self.claim.trials_of(arm)) * tuned + len(self.claim.seeds) for arm in self.claim.arms)

    def _loaded(self, recipe: MethodRecipe) -> Splits:
        key = f"{recipe.data} {recipe.data_settings}"
        if key not in self._data:
            self._data = {key: load_data(recipe.data, recipe.data_settings)}
        return self._data[key]


@cache
def versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    there = {one.metadata["Name"].lower() for one in importlib.metadata.distributions()}
    found = {name: importlib.metadata.version(name) for name in PACKAGES if name in there}
    return {"python": platform.python_version(), **found}


@contextmanager
def _aside() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="align-claim-") as name:
        yield Path(name)
