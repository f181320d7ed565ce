"""Runs that are killed from outside, in the middle of sampling and of training, and started again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe

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


def kill_once(words, there, cache):
    """Start ``align train`` and kill it as soon as something is there; it must not have come to its end."""
    environment = {**os.environ, "ALIGN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "align", "train", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        started = time.monotonic()
        while not there():
            assert process.poll() is None, process.stderr.read().decode()[-3000:]
            assert time.monotonic() - started < 300
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9


def finish(words):
    recipe, *overrides = words
    run_recipe(load_recipe(recipe, overrides))


def losses(run):
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


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
