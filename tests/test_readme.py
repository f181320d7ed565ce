"""Every command and every block of code in the README, run in order, shortened by overrides."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import pair_rows

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
SHORT = [
    *("trainer.max_steps=2", "trainer.eval_steps=2", "trainer.save_steps=2", "data.train.synth.limit=12"),
    *("data.train.synth.max_new_tokens=8", "data.eval_fraction=0.4"),
    *("evaluation.generation.limit=4", "evaluation.generation.max_new_tokens=8"),
]
SMALL = ["model.path=my-model", "data.train.synth.min_gap=0", "data.train.synth.scorer=my_scorer.py:my_function"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]


def shortened(command):
    """Return the words to run: the README's own, and what makes them short."""
    words = shlex.split(command)
    if "recipes/contrastive/clip.yaml" in words:
        return [*words, "trainer.max_steps=2", "trainer.eval_strategy=no"]
    if "recipes/quickstart.yaml" not in words or "validate" in words or "--print-config" in words:
        return words
    if "trainer.max_steps=40" in words:  # the one that runs on the real model
        return [*words, *SHORT]
    return [*words, *SHORT, *SMALL]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, model_dir):
    """A folder as a user's checkout is, with the files that the README speaks of."""
    import json

    place = tmp_path_factory.mktemp("readme")
    for name in ("recipes", "scripts", "accelerate_configs"):
        (place / name).symlink_to(ROOT / name)
    (place / "my-model").symlink_to(model_dir)
    (place / "my_pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows()))
    (place / "their_recipe.yaml").write_text(
        "model_name_or_path: my-model\ndataset_name: my_pairs.jsonl\nbeta: 0.2\nlearning_rate: 5.0e-7\n"
    )
    (place / "my_prompts.txt").write_text("".join(f"the day {i}\n" for i in range(20)))
    (place / "my_scorer.py").write_text(
        "def my_function(prompts, completions):\n    return [float(len(text)) for text in completions]\n"
    )
    (loss,) = (block for block in blocks("python") if "# my_loss.py" in block)
    (place / "my_loss.py").write_text(loss)
    return place


def run(words, place):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ALIGN_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_there_are_commands_and_each_is_known():
    assert len(COMMANDS) >= 10
    assert {shlex.split(command)[0] for command in COMMANDS} == {"make", "align", "accelerate"}


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make")])
def test_commands_run(command, workplace):
    if {"plot", "report"} & set(command.split()) and not (workplace / "runs/quickstart").exists():
        first = ["align", "train", "recipes/quickstart.yaml", *SHORT, *SMALL, "output.dir=runs/quickstart"]
        run(first, workplace)
    if "data synth" in command:
        command += " --model my-model --split all --max-new-tokens 4 --min-gap 0"
        (workplace / "my_pairs.jsonl").rename(workplace / "kept.jsonl")
    run(shortened(command), workplace)
    if "data synth" in command:
        assert (workplace / "my_pairs.jsonl").stat().st_size > 0
        (workplace / "kept.jsonl").rename(workplace / "my_pairs.jsonl")


def test_the_python_example_runs(workplace):
    (example,) = (block for block in blocks("python") if "PairTrainer" in block)
    run([sys.executable, "-c", example], workplace)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_blocks_are_sections_of_recipes(block, tmp_path, monkeypatch):
    """What is shown loads, completed by the sections it leaves out."""
    from align.recipe.load import load_recipe

    whole = {"model": {"path": "my-model"}, "data": {"train": "x.jsonl"}, "objective": "dpo", **yaml.safe_load(block)}
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(whole))
    load_recipe(file)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
