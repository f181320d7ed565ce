import json

import pytest

from align.diagnostics.checkpoints import checkpoints, read_rows, write_rows


@pytest.fixture
def run(tmp_path):
    for step in (16, 4, 8):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    return tmp_path / "run"


def test_a_run_stands_for_its_checkpoints_in_order(run):
    assert [one.name for one in checkpoints([str(run)])] == ["checkpoint-4", "checkpoint-8", "checkpoint-16"]


def test_several_models_are_told_apart(run, tmp_path):
    names = [
        one.name for one in checkpoints([str(run), str(run / "checkpoint-4"), str(run / "checkpoint-4"), "org/name"])
    ]
    assert names == [
        "run-checkpoint-4",
        "run-checkpoint-8",
        "run-checkpoint-16",
        "checkpoint-4",
        "checkpoint-4-2",
        "org-name",
    ]


def test_a_run_without_checkpoints_is_its_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert [one.name for one in checkpoints([str(tmp_path / "run")])] == ["model"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a model"):
        checkpoints([str(tmp_path)])


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_tables_read_back(tmp_path, name):
    rows = [
        {"row": 1, "cosine": 0.5, "case": "ideal", "ratio": None},
        {"row": 2, "cosine": -1.0, "case": "x", "ratio": 2.0},
    ]
    write_rows(rows, tmp_path / name)
    assert read_rows(tmp_path / name) == rows
    if name.endswith("jsonl"):
        assert json.loads((tmp_path / name).read_text().splitlines()[0]) == rows[0]
