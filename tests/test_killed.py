"""Runs that are killed from outside, in the middle of sampling and of training, and started again."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe

ROOT = Path(__file__).parents[1]
NEGATIVES = [
    "objective=d2o",
    "d2o={samples: 4, max_new_tokens: 24, batch_size: 4, online: {warmup: 2, every: 2}}",
]
DEGREES = ["objective=dpo", "spo={versions: {extractor: tfidf, degrees: 3}}"]


@pytest.fixture
def words(tmp_path, model_dir, pairs_file):
    path = tmp_path / "pairs.yaml"
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n"
        "trainer: {max_steps: 12, logging_steps: 1, learning_rate: 1.0e-3, disable_tqdm: true, save_steps: 3,"
        " per_device_train_batch_size: 4, use_cpu: true}\n"
    )
    return [str(path)]


TWO = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp.yaml"]


def kill_once(words, there, cache, *, two=False):
    """Start ``align train`` and kill it as soon as something is there; it must not have come to its end.

    On two processes the launcher is killed with both of them, as a machine that goes down kills all.
    """
    environment = {**os.environ, "ALIGN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    start = (
        [*TWO, "--num_processes", "2", "--cpu", "scripts/train.py"] if two else [sys.executable, "-m", "align", "train"]
    )
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [*start, *words], env=environment, cwd=ROOT, stdout=said, stderr=said, start_new_session=True
        ) as process,
    ):
        started = time.monotonic()
        while not there():
            if process.poll() is not None or time.monotonic() - started > 300:
                said.seek(0)
                raise AssertionError(said.read().decode()[-3000:])
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -9


def finish(words):
    recipe, *overrides = words
    run_recipe(load_recipe(recipe, overrides))


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return {entry["step"]: entry["loss"] for entry in metrics(run) if "loss" in entry}


def sampled(cache):
    """Return the lines of samples that are on disk."""
    return sum(file.read_bytes().count(b"\n") for file in cache.glob("samples/*.jsonl"))


def a_checkpoint(run):
    return any(run.glob("checkpoint-*/trainer_state.json"))


def test_negatives_killed_while_sampling_and_while_training(words, tmp_path, monkeypatch):
    run, whole, cache = tmp_path / "run", tmp_path / "whole", tmp_path / "cache"
    words = [*words, *NEGATIVES]
    kill_once([*words, f"output.dir={run}"], lambda: sampled(cache) > 0, cache)
    drawn = sampled(cache)
    assert 0 < drawn < 24 * 4
    files = {file: file.read_bytes() for file in cache.glob("samples/*.jsonl")}
    kill_once([*words, f"output.dir={run}"], lambda: a_checkpoint(run), cache)
    for file, before in files.items():  # what was there is used, and not drawn again
        lines = before.splitlines(keepends=True)[: drawn // 4 * 4]
        assert file.read_bytes().startswith(b"".join(lines))
    assert not (run / "summary.json").exists()
    monkeypatch.setenv("ALIGN_CACHE", str(cache))
    finish([*words, f"output.dir={run}"])
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "another"))
    finish([*words, f"output.dir={whole}"])
    assert losses(run) == pytest.approx(losses(whole), rel=1e-6)


def test_degrees_killed_while_training(words, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = [*words, *DEGREES]
    kill_once([*words, f"output.dir={run}"], lambda: a_checkpoint(run), Path(os.environ["ALIGN_CACHE"]))
    assert not (run / "summary.json").exists()
    for out in (run, whole):
        finish([*words, f"output.dir={out}"])
    assert losses(run) == pytest.approx(losses(whole), rel=1e-6)


def test_negatives_killed_on_two_processes(words, tmp_path):
    """While both draw samples; what either wrote is used, and the run comes to its end."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    words = [*words, *NEGATIVES, f"output.dir={run}", "trainer.per_device_train_batch_size=2", "trainer.max_steps=2"]
    words = [word.replace("warmup: 2", "warmup: 1") for word in words]
    kill_once(words, lambda: sampled(cache) > 0, cache, two=True)
    before = {file: file.read_bytes() for file in cache.glob("samples/*.jsonl")}
    assert 0 < sampled(cache) < 24 * 4
    environment = {**os.environ, "ALIGN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [*TWO, "--num_processes", "2", "--cpu", "scripts/train.py", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for file, lines in before.items():
        whole = lines.count(b"\n") // 4 * 4
        assert file.read_bytes().startswith(b"".join(lines.splitlines(keepends=True)[:whole]))
    assert sorted(losses(run)) == [1, 2]
    (last,) = (entry for entry in metrics(run) if "loss" in entry and entry["step"] == 2)
    assert last["d2o/sampled_tokens_per_second"] > 0
