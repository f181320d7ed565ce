"""The metrics file survives being cut off, and lines for people say what matters."""

import json

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from align.trainers.callbacks import METRICS_FILE, MetricsFile, one_line


@pytest.fixture
def file(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text("".join(json.dumps({"step": s, "loss": 0.5}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "lo')
    return path


def begin(folder, step):
    arguments = TrainingArguments(str(folder), use_cpu=True)
    MetricsFile().on_train_begin(arguments, TrainerState(global_step=step), TrainerControl())


def test_steps_after_the_checkpoint_are_dropped_and_the_torn_line(file, tmp_path):
    begin(tmp_path, step=2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]


def test_a_new_run_puts_an_earlier_file_aside(file, tmp_path):
    before = file.read_text()
    begin(tmp_path, step=0)
    assert not file.exists()
    assert (tmp_path / "metrics-1.jsonl").read_text() == before


def test_lines_for_people():
    assert one_line(5, {"logps/chosen": -33.125, "epoch": 1}) == "step     5 | chosen -33.12"
    assert one_line(5, {"train_runtime": 3}) is None


def test_held_out_figures_of_pairs_and_of_single_completions():
    assert one_line(5, {"eval_loss": 0.25, "eval_accuracy": 0.5}).endswith("held-out loss 0.2500 | held-out acc 0.500")
    assert one_line(5, {"eval_loss": 0.25, "eval_auc": 0.75}).endswith("held-out loss 0.2500 | held-out AUC 0.750")
