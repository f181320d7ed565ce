import json

import pytest
import torch

from align.report.page import write_report
from align.wings.gallery import Splits
from align.wings.recipe import load_method_recipe
from align.wings.run import MethodFolder, on, run_method

TEXT = """
method: clip
data: {name: coloured_digits, train_per_class: 12}
settings: {width: 16, layers: 1, heads: 2, embedding: 8}
trainer:
  {max_steps: 4, per_device_train_batch_size: 16, save_steps: 2, logging_steps: 1, eval_strategy: steps, eval_steps: 2}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("method")
    (folder / "r.yaml").write_text(TEXT)
    recipe = load_method_recipe(folder / "r.yaml", [f"output.dir={folder / 'run'}"])
    return recipe, run_method(recipe)


def test_a_run_leaves_what_it_promises(finished):
    recipe, summary = finished
    folder = MethodFolder.of(recipe, "x").path
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["method"] == "clip"
    assert summary["steps"] == 4
    assert set(summary["figures"]) >= {"held_out_top1", "seen_top1", "picture_to_text"}
    assert (folder / "model" / "config.json").is_file()  # a CLIPModel, as transformers saves one
    assert {path.stem for path in (folder / "pictures").iterdir()} == {"classified", "similarities"}
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged if "eval_validation_top1" in row] == [2, 4]


def test_the_same_recipe_again_is_done_and_another_is_refused(finished):
    recipe, summary = finished
    assert run_method(recipe) == summary
    folder = summary["folder"]
    other = load_method_recipe(f"{folder}/recipe.yaml", ["trainer.learning_rate=0.5", f"output.dir={folder}"])
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        run_method(other)


def test_a_folder_of_something_else_is_refused(tmp_path, finished):
    (tmp_path / "notes.txt").write_text("mine")
    recipe = load_method_recipe(f"{finished[1]['folder']}/recipe.yaml", [f"output.dir={tmp_path}"])
    with pytest.raises(ValueError, match="holds files that are no run"):
        run_method(recipe)


def test_the_report_shows_figures_curves_and_pictures(finished, tmp_path):
    (page,) = write_report([MethodFolder.of(finished[0], "x").path], tmp_path / "r.html")
    text = page.read_text()
    assert "Figures of the method" in text
    assert "held out top1" in text
    assert text.count('src="data:image/png;base64,') == 2
    assert "What evaluations said while it trained" in text
    assert "Learning Transferable Visual Models" in text
    assert "no held-out set" not in text


def test_pictures_of_ones_own_that_changed_are_noticed(tmp_path):
    import numpy as np
    from PIL import Image

    def paint(name, value):
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(pictures / f"{name}.png")

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    paint("a", 10)
    (tmp_path / "r.yaml").write_text(f"method: rankme\ndata: {{path: {pictures}}}\noutput: {{dir: {tmp_path}/run}}\n")
    recipe = load_method_recipe(tmp_path / "r.yaml")
    MethodFolder.of(recipe, "x").write_method_recipe(recipe)
    (tmp_path / "run" / "summary.json").write_text("{}")
    assert MethodFolder.of(recipe, "x").summary() == {}
    paint("a", 11)
    with pytest.raises(ValueError, match=r"pictures has changed since the run in .*name another output.dir"):
        run_method(recipe)
    paint("a", 10)
    assert run_method(recipe) == {}
    paint("b", 10)
    with pytest.raises(ValueError, match="pictures has changed since"):
        run_method(recipe)


class Odd:
    least_classes = 1

    def __init__(self, settings):
        pass

    def run(self, work):
        return {"fine": 1.0, "odd": float("nan")}


def bench(seed, recipe, classes=("a",)):
    gallery = type("Gallery", (), {"classes": classes})()
    return type("Work", (), {"seed": seed, "recipe": recipe, "data": Splits(train=gallery, test=gallery)})()


def test_data_without_classes_is_refused_where_figures_are_about_them(finished, monkeypatch):
    monkeypatch.setattr(Odd, "least_classes", 3)
    monkeypatch.setattr("align.wings.run.load", lambda name: Odd)
    with pytest.raises(ValueError, match="needs at least 3 classes, and there are 2"):
        on(bench(1, finished[0], classes=("a", "b")))


def test_figures_that_are_no_numbers_are_refused(finished, monkeypatch):
    monkeypatch.setattr("align.wings.run.load", lambda name: Odd)
    work = bench(1, finished[0])
    with pytest.raises(ValueError, match="clip: odd came out as no finite number"):
        on(work)


def test_everything_random_is_seeded(finished, monkeypatch):
    import random

    import numpy as np

    class Drawn(Odd):
        def run(self, work):
            return {"a": random.random(), "b": float(np.random.rand()), "c": float(torch.rand(()))}

    monkeypatch.setattr("align.wings.run.load", lambda name: Drawn)
    works = [bench(seed, finished[0]) for seed in (1, 1, 2)]
    first, same, other = (on(work) for work in works)
    assert first == same
    assert all(first[name] != other[name] for name in first)
