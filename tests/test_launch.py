"""``accelerate launch scripts/train.py`` with the configurations that come with align, two processes over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe
from tests.conftest import pair_rows

ROOT = Path(__file__).parents[1]


def launch(words, config, script="scripts/train.py"):
    launcher = str(Path(sys.executable).parent / "accelerate")
    runner = [launcher, "launch", "--config_file", f"accelerate_configs/{config}.yaml", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*runner, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path, held_out = tmp_path / "pairs.yaml", tmp_path / "held_out.jsonl"
    held_out.write_text("".join(pairs_file.read_text().splitlines(keepends=True)[:11]))
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32}}\ndata: {{train: {pairs_file}, eval: {held_out}}}\n"
        "objective: dpo\n"
        "trainer: {max_steps: 4, logging_steps: 1, learning_rate: 1.0e-3, disable_tqdm: true, save_steps: 2}\n"
    )
    return path


def entries(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


UNPAIRED = [
    "data.unpaired=true",
    "objective=[{name: bco_pair, label_smoothing: 0.1}, {name: sft, weight: 0.2}]",
    "model.reference_sync={alpha: 0.5, every: 2}",
]


def test_two_processes_train_as_one_with_twice_the_batch(recipe, tmp_path):
    """Same losses, gradients, log-probs and held-out figures; batches of evaluation that do not come out even."""
    cases = {"pairs": [], "unpaired": UNPAIRED, "kto": ["objective=kto"]}
    asked = [
        [str(recipe), f"output.dir={tmp_path / name}", "trainer.per_device_train_batch_size=2", *changes]
        for name, changes in cases.items()
    ]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    assert launch([str(tmp_path / "asked.json")], "ddp", "tests/launched.py").count("run folder:") == len(cases)
    for name in ("pairs", "unpaired"):
        one, two = tmp_path / f"{name}-one", tmp_path / name
        overrides = [f"output.dir={one}", "trainer.per_device_train_batch_size=4", "trainer.use_cpu=true"]
        run_recipe(load_recipe(str(recipe), [*overrides, *cases[name]]))
        for mine, other in zip(entries(one), entries(two), strict=True):
            for key in mine.keys() & other.keys():
                if not any(word in key for word in ("second", "runtime", "flos", "padding")):
                    assert mine[key] == pytest.approx(other[key], rel=2e-4, abs=1e-6), key
        assert json.loads((two / "summary.json").read_text())["steps"] == 4
    # KTO's loss is one half before the first update, and its reference point is logged
    logged = [entry for entry in entries(tmp_path / "kto") if "loss" in entry]
    assert len(logged) == 4
    assert logged[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert logged[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert logged[-1]["loss"] < logged[0]["loss"]


def test_the_reference_is_kept_by_two_processes(recipe, tmp_path):
    """Computed in shares, read by both, computed no more; not kept where one does not see what the other wrote."""
    held_out = tmp_path / "others.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in pair_rows(35)[24:]))
    words = [str(recipe), f"data.eval={held_out}", "trainer.num_train_epochs=1", "trainer.max_steps=-1"]
    words += ["trainer.per_device_train_batch_size=3"]
    shared, apart = (f"ALIGN_CACHE={tmp_path}/{name}" for name in ("shared", "apart-{rank}"))
    cases = {"off": [shared, "speed=off"], "first": [], "again": ["speed.cache=true"], "apart": [apart]}
    asked = [[*words, f"output.dir={tmp_path / name}", *more] for name, more in cases.items()]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    out = launch([str(tmp_path / "asked.json")], "ddp", "tests/launched.py")
    assert out.count("35 rows: 70 sequences computed") == 1
    assert out.count("35 rows: nothing to compute") == 1
    plain = entries(tmp_path / "off")
    for name in ("first", "again", "apart"):
        for mine, other in zip(entries(tmp_path / name), plain, strict=True):
            for key in mine.keys() & other.keys():
                if not any(word in key for word in ("second", "runtime", "flos", "padding", "shared", "accuracies")):
                    assert mine[key] == pytest.approx(other[key], rel=2e-4, abs=1e-5), (name, key)
    notes = json.loads((tmp_path / "apart" / "summary.json").read_text())["speed"]
    assert "a process does not see" in " ".join(notes)


def test_one_process_on_the_cpu(recipe, tmp_path):
    launch([str(recipe), f"output.dir={tmp_path / 'run'}", "trainer.max_steps=1"], "cpu")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_processes_that_do_not_see_one_another_are_refused(model, tokenizer, tmp_path, monkeypatch):
    import datasets
    from transformers import TrainingArguments

    from align import PairTrainer

    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="launched as 2 processes, but this one sees 1"):
        PairTrainer(model, arguments, train_dataset=datasets.Dataset.from_list(pair_rows()), processing_class=tokenizer)
