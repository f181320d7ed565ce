"""The page that facts make: every section, aligned, in words."""

import pytest

from align.report import validation_page
from align.report.validation_page import page

SPREAD = {"min": 1, "mean": 20.4, "median": 18.0, "p95": 40.0, "max": 1200}
LENGTHS = dict.fromkeys(("prompt", "chosen", "rejected", "whole"), SPREAD)


@pytest.fixture
def facts():
    return {
        "recipe": "mine",
        "model": {
            **{"path": "a/b", "kind": "LlamaForCausalLM", "parameters": 134_515_008, "trainable": 134_515_008},
            **{"weight_bytes": 2**30, "lora": None, "precision": "float32: why", "positions": 8192},
            **{"vocabulary": 49152, "objective": "dpo", "notes": ["a note"]},
        },
        "reference": {"kind": "base", "says": "a frozen copy", "copy_bytes": 2**30},
        "output": {
            **{"folder": "runs/x", "state": "new", "checkpoints": 4, "kept": 3, "checkpoint_bytes": 2**20},
            **{"disk_needed": 2**22, "disk_free": 2**34},
        },
        "data": {
            "rows": {
                "train": {
                    **{"rows": 1156, "pairs": 1150, "truncated_share": 0.272, "truncation": "keep_end"},
                    **{"max_length": 256, "dropped": 6, "silent": 4},
                }
            },
            **{"noun": "pair", "sizes": {"train": 1089, "held_out": 61}, "desirable": {}},
            **{"held_out_by": "data.eval_fraction", "upper_bound": False},
        },
        "lengths": {"train": {**LENGTHS, "chosen_longer": 0.433, "same_length": 0.017}},
        "batches": {"padding": 0.366},
        "duplicates": {
            "train": {"prompts": 2, "rows": 1, "contradicted": 0, "places": ["x.jsonl:3"]},
            "across": {"prompts": 3, "share": 0.05, "rows": 0, "places": []},
        },
        "steps": {
            **{"steps": 273, "batch": 4, "warmup": 4, "epochs": 1.0, "rows": 1089, "batches": 273},
            **{"tokens": 29_268, "positions": 1_046_168, "evaluations": 2, "eval_batches": 9, "processes": 2},
            **{"upper_bound": False, "sides": ["chosen", "rejected"], "mismatched": False},
        },
        "memory": {
            **{"kind": "memory", "stages": {"training": {"weights": 2**30, "activations": 2**31, "reference copy": 0}}},
            **{"peak_stage": "training", "peak_bytes": 3 * 2**30, "processes": 2, "total_bytes": 6 * 2**30},
            **{"available_bytes": 8 * 2**30, "available_by": "MemAvailable", "verdict": "fits", "advice": []},
        },
        "time": {
            **{"making_pairs": 0.0, "drawing": 12.0, "training": 200.0, "evaluation": 30.0, "generation": 0.0},
            **{"says": "3-5 min"},
            **{"threads": 2, "speed_flops": 1.93e11, "speed_traffic": 2e10, "dtype": "float32", "step_flops": 1.7e12},
            **{"device": "cpu", "load": 1.64, "cores": 2},
        },
        "warnings": [],
    }


def line(text, label):
    return next(line for line in text.splitlines() if line.strip().startswith(label))


def test_every_section_is_there_in_order(facts):
    text = page(facts)
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    expected = ["model", "reference", "data", "lengths (tokens)", "duplicates", "steps", "memory", "time", "output"]
    assert titles == [*expected, "mine: the recipe is valid"]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("parameters", "134.5 M; trained: 134.5 M (100.0 %, every weight)"),
        ("base", "a frozen copy; 1.00 GiB"),
        ("training rows", "1,156 read, 1,150 pairs; 27.2 % truncated (keep_end, 256 tokens); 6 dropped"),
        ("4 with", "4 with a completion that says nothing"),
        ("pairs", "1,089 to train on, 61 held out by data.eval_fraction"),
        ("chosen is longer", "chosen is longer in 43.3 % of pairs, as long in 1.7 %"),
        ("padding", "36.6 % of positions"),
        ("across", "3 held-out pairs (5.0 %) have a prompt that is trained on"),
        ("steps  ", "273 of 4 pairs; 4 of them warm-up"),
        ("passed", "29,268 tokens, 1.0 M positions with padding"),
        ("evaluations", "2, each of 9 batches"),
        ("worst", "2 processes x 3.00 GiB = 6.00 GiB, in training; 8.00 GiB of memory available"),
        ("verdict", "fits: 75 % of it"),
        ("drawing samples", "12 s"),
        ("measured", "193 GFLOP/s in float32, 20 GB/s, 2 threads; a step is 1.7 TFLOP"),
        ("while", "while the load average was 1.6 on 2 cores"),
        ("in all", "about 3-5 min at this speed, pairs divided among processes"),
        ("checkpoints", "4 checkpoints of 1.0 MiB, 3 of them there at once"),
    ],
)
def test_what_a_line_says(facts, label, said):
    assert said in " ".join(page(facts).split()) or said in line(page(facts), label)
    assert said.split(",")[0].split(";")[0] in line(page(facts), label)


def test_parts_of_memory_are_told_largest_first_and_empty_ones_left_out(facts):
    assert (
        line(page(facts).partition("\nmemory\n")[2], "training  ")
        .strip()
        .endswith("3.00 GiB  activations 2.00 GiB, weights 1.00 GiB")
    )


def test_columns_of_lengths_are_aligned(facts):
    lines = page(facts).splitlines()
    start = lines.index("lengths (tokens)")
    assert {len(row) for row in lines[start + 1 : start + 6]} == {len(lines[start + 1])}
    assert lines[start + 1].split() == ["min", "mean", "median", "p95", "max"]
    assert lines[start + 2].split()[-5:] == ["1", "20", "18", "40", "1,200"]


def test_warnings_are_counted_and_wrapped(facts):
    text = page({**facts, "warnings": ["one", "word " * 60]})
    assert "warnings (2)\n  - one\n" in text
    assert text.endswith("mine: the recipe is valid, with 2 warnings")
    assert max(map(len, text.splitlines())) <= 120


def test_pairs_that_are_yet_to_be_made(facts):
    facts["data"]["upper_bound"], facts["duplicates"] = True, {}
    text = page(facts)
    assert "the model has yet to make its pairs" in text
    assert "not known before the pairs are made" in text
    assert "chosen is longer" not in text


@pytest.fixture
def unpaired(facts):
    kept = {"pairs": 0, "desirable": 700, "undesirable": 450}
    facts["data"]["rows"]["train"] |= kept
    facts["data"] |= {"noun": "completion", "desirable": {"train": 660, "held_out": 40}}
    facts["lengths"] = {"train": {"rows": 1089, **dict.fromkeys(("prompt", "desirable", "whole"), SPREAD)}}
    facts["lengths"]["train"]["undesirable"] = None
    facts["steps"] |= {"sides": ["completion"], "mismatched": True}
    return facts


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("training rows", "1,156 read, 1,150 completions (700 desirable, 450 undesirable); 27.2 % truncated"),
        ("completions", "1,089 (660 of them desirable) to train on, 61 (40 of them desirable) held out by"),
        ("across", "3 held-out completions (5.0 %) have a prompt that is trained on"),
        ("training  ", "2 completions repeat a prompt, 1 repeat a whole row, 0 are there with the other label too"),
        ("steps  ", "273 of 4 completions; 4 of them warm-up"),
        ("and as many", "and as many rows again without gradient: each prompt with another row's completion"),
        ("in all", "completions divided among processes"),
    ],
)
def test_single_completions_are_not_called_pairs(unpaired, label, said):
    assert said in " ".join(page(unpaired).split())
    assert any(row.strip().startswith(label.strip()) for row in page(unpaired).splitlines())
    assert "pair" not in page(unpaired)


def test_lengths_of_a_label_that_is_not_there_are_left_out(unpaired):
    assert "training desirable" in page(unpaired)
    assert "training undesirable" not in page(unpaired)


def test_columns_stay_aligned_beside_long_labels(unpaired):
    unpaired["lengths"]["train"]["undesirable"] = SPREAD
    rows = [row for row in page(unpaired).splitlines() if row.strip().startswith("training ") and "1,200" in row]
    assert len(rows) == 4
    assert len({len(row) for row in rows}) == 1


def test_an_objective_that_reads_one_side(facts):
    facts["steps"]["sides"] = ["rejected"]
    said = "the objective reads the rejected alone, evaluations compute both sides"
    assert said in " ".join(page(facts).split())


def test_gpus_elsewhere_take_the_place_of_memory_and_time(facts, monkeypatch):
    del facts["memory"], facts["time"]
    facts["gpus"], facts["output"]["disk_free"] = {}, None
    monkeypatch.setattr(validation_page, "title_of", lambda gpus: "on 8 GPUs")
    monkeypatch.setattr(validation_page, "on_gpus", lambda facts: iter([("zero2", " 1.0   fits")]))
    text = page(facts)
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert titles[-4:-1] == ["steps", "on 8 GPUs", "output"]
    assert "  zero2                1.0   fits\n" in text
    assert line(text, "disk").endswith("needed")  # how much is free here does not matter there
