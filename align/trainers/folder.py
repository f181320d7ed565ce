"""The folder of a run: which one, what is in it, and from where it continues."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from align.data.cache import written_whole
from align.recipe.load import load_recipe
from align.recipe.paths import input_files
from align.recipe.resolve import digest, resolved_yaml
from align.recipe.schema import Recipe
from align.report.console import is_main
from align.report.run_record import RECIPE_FILE, SUMMARY_FILE
from align.trainers.engine import rows_of_step

MODEL_FOLDER = "model"
INPUTS_FILE = "inputs.json"
LOCK_FILE = ".lock"
ACCUMULATION = "gradient_accumulation_steps"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder that holds this recipe's run, or nothing yet."""

    path: Path

    @classmethod
    def claim(cls, recipe: Recipe, name: str) -> "RunFolder":
        """Find the recipe's folder without writing to it.

        Args:
            recipe: the resolved recipe.
            name: what a folder made from a digest begins with.

        Raises:
            ValueError: if the folder holds a run of another recipe, or files that no run put there.
        """
        path = Path(recipe.output.dir or f"runs/{name}-{digest(recipe)}").expanduser().resolve()
        if not is_main():  # the first process checks for all, before it writes
            return cls(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"output.dir {path} is a file; choose another folder")
        begun = path.is_dir() and any(file.name not in (LOCK_FILE, RECIPE_FILE, INPUTS_FILE) for file in path.iterdir())
        if begun and (path / RECIPE_FILE).is_file():
            cls(path)._refuse_other_recipe(recipe)
            refuse_other_inputs(path, digests_of(input_files(recipe)))
        elif begun:
            raise ValueError(f"output.dir {path} holds files that are no run; choose another folder")
        return cls(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other command out of the folder until the block ends, or this process does.

        Raises:
            ValueError: if another command is at work in it.
        """
        if not is_main():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            message = f"another command is training in {self.path}; wait for it, or name another output.dir"
            raise ValueError(message) from None
        try:
            yield
        finally:
            lock.release()

    def write_recipe(self, recipe: Recipe) -> None:
        """Put the resolved recipe and digests of the files it names into the folder, made where it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path / RECIPE_FILE) as partial:
            partial.write_text(resolved_yaml(recipe), encoding="utf-8")
        self.write_inputs(digests_of(input_files(recipe)))

    def write_inputs(self, digests: Mapping[str, str]) -> None:
        """Note the digests of what a run reads, by path."""
        with written_whole(self.path / INPUTS_FILE) as partial:
            partial.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a finished run, or None."""
        file = self.path / SUMMARY_FILE
        return json.loads(file.read_text()) if file.is_file() else None

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished."""
        with written_whole(self.path / SUMMARY_FILE) as partial:
            partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def last_checkpoint(self) -> Path | None:
        """Return the last checkpoint that was written whole; a killed run may leave a torn one behind."""
        numbered = [(int(p.name.removeprefix("checkpoint-")), p) for p in self.path.glob("checkpoint-[0-9]*")]
        return next((p for _, p in sorted(numbered, reverse=True) if _whole(p)), None)

    def _refuse_other_recipe(self, recipe: Recipe) -> None:
        """Refuse a folder of another recipe; one whose steps see the same rows, cut differently, is the same."""
        earlier = load_recipe(self.path / RECIPE_FILE)
        if digest(earlier) == digest(recipe) or self._differs_in_split_alone(earlier, recipe):
            return
        before, now = (set(resolved_yaml(r).splitlines()) for r in (earlier, recipe))
        changed = sorted(line.strip() for line in now - before)
        raise ValueError(
            f"output.dir {self.path} holds a run of another recipe (here: {'; '.join(changed[:4]) or 'fewer settings'}"
            "); choose another output.dir, or leave it out to get a folder a recipe"
        )

    def _differs_in_split_alone(self, earlier: Recipe, recipe: Recipe) -> bool:
        checkpoint = self.last_checkpoint()
        if checkpoint is None or digest(earlier, split=False) != digest(recipe, split=False):
            return False
        trainer, processes = recipe.trainer, int(os.environ.get("WORLD_SIZE", "1"))
        rows = processes * int(trainer["per_device_train_batch_size"]) * int(trainer.get(ACCUMULATION, 1))
        return rows == rows_of_step(checkpoint)


def _whole(checkpoint: Path) -> bool:
    # transformers writes this file last.
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return True


def digests_of(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file's content, by its path."""
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def refuse_other_inputs(path: Path, digests: Mapping[str, str]) -> None:
    """Refuse a folder whose run read something else at one of these paths.

    Raises:
        ValueError: naming the path.
    """
    file = path / INPUTS_FILE
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    changed = [name for name, digest in digests.items() if before.get(name, digest) != digest]
    if changed:
        raise ValueError(
            f"{changed[0]} has changed since the run in {path} began; name another output.dir for a run with it as it "
            "is now"
        )


@contextmanager
def set_aside(recipe: Recipe, name: str) -> Iterator[RunFolder]:
    """Give a run folder for something of which nothing is kept: it is there only inside.

    Args:
        recipe: whose ``output.dir`` is a folder of the cache; what an earlier, killed command left there goes.
        name: as :meth:`RunFolder.claim`.
    """
    if is_main() and recipe.output.dir is not None:
        shutil.rmtree(recipe.output.dir, ignore_errors=True)
    folder = RunFolder.claim(recipe, name)
    try:
        with folder.held():
            yield folder
    finally:
        if is_main():
            shutil.rmtree(folder.path, ignore_errors=True)
