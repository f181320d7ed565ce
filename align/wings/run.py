"""A method's recipe from start to end: data, the method on its workbench, figures, pictures, summary."""

import importlib.metadata
import json
import random
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.data.cache import written_whole
from align.report.console import is_main, say
from align.report.run_record import RECIPE_FILE
from align.trainers.folder import INPUTS_FILE, LOCK_FILE, MODEL_FOLDER, RunFolder, digests_of, refuse_other_inputs
from align.wings.recipe import MethodRecipe, digest, load_method_recipe, resolved_yaml
from align.wings.registry import load
from align.wings.sources import load_data
from align.wings.workbench import Workbench


class MethodFolder(RunFolder):
    """The folder of a method's run."""

    __slots__ = ()

    @classmethod
    def of(cls, recipe: MethodRecipe, name: str) -> "MethodFolder":
        """Find the recipe's folder without writing to it.

        Raises:
            ValueError: the folder holds a run of another recipe or of other pictures, or files that no run put there.
        """
        path = Path(recipe.output.dir or f"runs/{name}-{digest(recipe)}").expanduser().resolve()
        if not is_main() or not path.exists():
            return cls(path)
        if not path.is_dir():
            raise ValueError(f"output.dir {path} is a file; choose another folder")
        begun = any(file.name not in (LOCK_FILE, RECIPE_FILE, INPUTS_FILE) for file in path.iterdir())
        if begun and not (path / RECIPE_FILE).is_file():
            raise ValueError(f"output.dir {path} holds files that are no run; choose another folder")
        if begun and digest(load_method_recipe(path / RECIPE_FILE)) != digest(recipe):
            raise ValueError(
                f"output.dir {path} holds a run of another recipe; choose another output.dir, or leave it out to get "
                "a folder a recipe"
            )
        if begun:
            refuse_other_inputs(path, own_pictures(recipe))
        return cls(path)

    def write_method_recipe(self, recipe: MethodRecipe) -> None:
        """Put the resolved recipe into the folder, made where it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path / RECIPE_FILE) as partial:
            partial.write_text(resolved_yaml(recipe), encoding="utf-8")
        self.write_inputs(own_pictures(recipe))


def own_pictures(recipe: MethodRecipe) -> dict[str, str]:
    """Return the path of a user's own folder of pictures with a digest of all that is in it; nothing for other data."""
    path = getattr(recipe.data_settings, "path", None)
    folder = Path(path or "").expanduser().resolve()
    if path is None or not folder.is_dir():
        return {}
    files = digests_of(sorted(file for file in folder.rglob("*") if file.is_file()))
    return {str(folder): sha256(json.dumps(files).encode()).hexdigest()}


def run_method(recipe: MethodRecipe, *, name: str | None = None) -> dict[str, Any]:
    """Run what a method's recipe says and return the run's summary, which is also in ``summary.json``.

    The same recipe called again continues a run that was cut off, and returns the summary of a finished one.

    Args:
        recipe: a loaded recipe (:func:`align.wings.recipe.load_method_recipe`).
        name: what the run folder is called where the recipe names none; the method's name where absent.

    Raises:
        ValueError: something in the recipe or the data cannot work, or a package is missing.
    """
    folder = MethodFolder.of(recipe, name or recipe.method)
    if (finished := folder.summary()) is not None:
        say(f"{folder.path} holds this recipe's finished run; nothing to do")
        return finished
    with folder.held():
        if is_main():
            folder.write_method_recipe(recipe)
        say(f"run folder: {folder.path}")
        started = time.perf_counter()
        work = Workbench(recipe, load_data(recipe.data, recipe.data_settings), folder.path)
        say(f"data: {len(work.data.train)} rows to train on, {len(work.data.test)} held out")
        figures = on(work)
        summary = {
            "folder": str(folder.path),
            "recipe_digest": digest(recipe),
            "method": recipe.method,
            "paper": load(recipe.method).about.paper,
            "figures": figures,
            "steps": _last_step(folder.path),
            "seconds": round(time.perf_counter() - started, 1),
            "versions": {p: importlib.metadata.version(p) for p in ("align", "torch", "transformers")},
        }
        if is_main():
            _save_model(work)
            folder.write_summary(summary)
    return summary


def on(work: Workbench) -> dict[str, float]:
    """Run the workbench's method on it, everything seeded, and return its figures.

    Raises:
        ValueError: as the method does; a figure that is no finite number.
    """
    random.seed(work.seed)
    np.random.seed(work.seed)
    torch.manual_seed(work.seed)
    cls = load(work.recipe.method)
    if len(work.data.train.classes) < cls.least_classes:
        raise ValueError(
            f"data: {work.recipe.method} needs at least {cls.least_classes} classes, and there are "
            f"{len(work.data.train.classes)}; a folder of pictures has a subfolder a class, or name data.label"
        )
    figures = {key: float(value) for key, value in cls(work.recipe.settings).run(work).items()}
    broken = [key for key, value in figures.items() if not np.isfinite(value)]
    if broken:
        raise ValueError(f"{work.recipe.method}: {', '.join(broken)} came out as no finite number")
    return figures


def _save_model(work: Workbench) -> None:
    model: Any = work.model
    if model is None:
        return
    target = work.folder / MODEL_FOLDER
    if work.tokenizer is not None:
        work.tokenizer.save_pretrained(target)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(target)
        return
    from safetensors.torch import save_model

    target.mkdir(parents=True, exist_ok=True)
    save_model(model, str(target / "model.safetensors"))


def _last_step(folder: Path) -> int:
    from align.report.metrics_file import logged_rows

    return max((int(row["step"]) for row in logged_rows(folder)), default=0)
