"""`align entangle`: tables, pictures, figures for programs; measured once, never over something else."""

import json
import shutil

import pytest

from align.cli.main import main
from align.diagnostics.checkpoints import read_rows
from align.report.look import MADE_BY


def entangle(capsys, *words, code=0):
    assert main(["entangle", *map(str, words)]) == code
    return capsys.readouterr()


def test_one_model_for_programs(model_dir, pairs_file, tmp_path, capsys):
    said = entangle(capsys, model_dir, pairs_file, "--pairs", 6, "--verify", "--json", "--out", tmp_path / "out")
    found = json.loads(said.out)
    names = ["pairs", "cosine_mean", "share_ideal", "share_both_down", "share_both_up", "coverage", "max_rel_error"]
    assert list(found)[:7] == names
    assert found["pairs"] == 6
    assert found["coverage"] == 1
    assert found["max_rel_error"] < 1e-5
    assert -1 <= found["cosine_mean"] <= 1
    rows = read_rows(next((tmp_path / "out").glob("*.parquet")))
    assert sum(row["case"] == "ideal" for row in rows) / 6 == pytest.approx(found["share_ideal"])


def test_checkpoints_are_drawn_and_measured_once(model_dir, pairs_file, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (2, 4):
        shutil.copytree(model_dir, run / f"checkpoint-{step}")
    words = [run, pairs_file, "--pairs", 4, "--out", out, "--table", "jsonl", "--tokens", 2]
    said = entangle(capsys, *words)
    for name in ("checkpoint-2.jsonl", "checkpoint-4.png", "checkpoints.svg", "checkpoint-4-tokens-2.png"):
        assert (out / name).is_file()
        assert name in said.out
    assert MADE_BY in (out / "checkpoints.svg").read_text()
    times = {file: file.stat().st_mtime_ns for file in out.glob("*.jsonl") if "tokens" not in file.name}
    entangle(capsys, *words)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    again = entangle(capsys, run, pairs_file, "--pairs", 5, "--out", out, "--table", "jsonl", code=2)
    assert "is the result of something else (another data); choose another --out" in again.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--objective", "dppo"], "unknown objective 'dppo'; did you mean 'dpo'?"),
        (["--objective", "{name: simpo, betta: 2}"], "did you mean 'beta'"),
        (["--objective", "simpo", "--reference", "x"], "--reference would not be used"),
        (["--tokens", "99"], "has rows 1 to 24"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--pairs", "-1"], "--pairs must be at least 1, or 0 for all"),
    ],
)
def test_mistakes(model_dir, pairs_file, tmp_path, capsys, words, says):
    assert says in entangle(capsys, model_dir, pairs_file, "--out", tmp_path / "out", *words, code=2).err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(pairs_file, tmp_path, capsys):
    said = entangle(capsys, tmp_path / "nothing", pairs_file, "--out", tmp_path / "out", code=2)
    assert str(tmp_path / "nothing") in said.err
