"""Run folders as a run leaves them, made of a few numbers."""

import json

import pytest
import yaml

COMPARED = ("rewards/margins", "rewards/accuracies")
"""What only pairs have."""


def training(step, **more):
    return {
        "step": step,
        "epoch": step / 100,
        "loss": 0.7 - step / 1000,
        "logps/chosen": -60.0 - step / 100,
        "logps/rejected": -62.0 - step / 10,
        "rewards/chosen": -step / 1000,
        "rewards/rejected": -step / 100,
        "rewards/margins": 9 * step / 1000,
        "rewards/accuracies": 0.6,
        "tokens_per_second": 2000.0,
        "padding_fraction": 0.1,
        "grad_norm": 2.0,
        "learning_rate": 1e-5,
    } | more


def evaluation(step, chosen, rejected):
    return {
        "step": step,
        "eval_loss": 0.65,
        "eval_accuracy": 0.7,
        "eval_accuracy_low": 0.62,
        "eval_accuracy_high": 0.77,
        "eval_logps/chosen": chosen,
        "eval_logps/rejected": rejected,
    }


def unpaired_training(step, **more):
    """What a step on single completions logs; a label that its batch lacks is left out."""
    logged = {key: value for key, value in training(step).items() if key not in COMPARED}
    left_out = "rejected" if step % 20 else "chosen"
    some = {key: value for key, value in logged.items() if not key.endswith(left_out)}
    return {**some, "kl": 0.1, **more}


def unpaired_evaluation(step, desirable, undesirable):
    return {
        "step": step,
        "eval_loss": 0.45,
        "eval_auc": 0.8,
        "eval_auc_low": 0.7,
        "eval_auc_high": 0.9,
        "eval_margin": 0.25,
        "eval_desirable": 16.0,
        "eval_undesirable": 8.0,
        "eval_logps/chosen": desirable,
        "eval_logps/rejected": undesirable,
        "eval_rewards/chosen": 0.2,
        "eval_rewards/rejected": -0.05,
        "eval_kl": 0.05,
    }


def unpaired_metrics():
    rows = [unpaired_training(step) for step in range(10, 301, 10)]
    return rows + [unpaired_evaluation(step, -60 - step / 100, -62 - step / 10) for step in (0, 100, 300)]


def one_sided_metrics():
    """What a run logs whose objective reads the chosen alone; evaluations compute both."""
    rows = [
        {key: value for key, value in training(step).items() if key not in COMPARED and not key.endswith("rejected")}
        for step in range(10, 301, 10)
    ]
    both = {"eval_rewards/chosen": 0.3, "eval_rewards/rejected": 0.1, "eval_rewards/margins": 0.2, "eval_margin": 0.2}
    return [*rows, evaluation(300, -55, -61) | both]


def summary(count=40):
    interval = {"value": 0.1, "low": 0.05, "high": 0.15}
    return {
        "confidence": 0.9,
        "reward": {"base": interval, "aligned": interval, "difference": interval},
        "win_rate": {**interval, "ties": 0.0},
        "kl": {**interval, "per_token": 0.01},
        "scores": {"base": [row / count for row in range(count)], "aligned": [0.5] * count},
    }


HOSTILE = """</style></script><script>alert(1)</script> "double" 'single' & $x^2$"""
"""What a model, a path or a recipe can hold, and a page must show as text."""

RECIPE = {
    "model": {"path": "some/model", "reference": "auto"},
    "data": {"train": [{"path": "pairs.jsonl"}]},
    "objective": {"name": "dpo", "beta": 0.1},
    "trainer": {"max_steps": 300, "learning_rate": 1e-05},
    "evaluation": {"confidence": 0.9},
    "output": {"dir": "runs/x"},
}


def sample(prompt, aligned="aligned text", score=0.75, **more):
    row = {"prompt": prompt, "base": "base text", "aligned": aligned, "base_score": 0.25, "aligned_score": score}
    return row | {"base_tokens": 3, "aligned_tokens": 5, "base_ended": True, "aligned_ended": True} | more


def metrics(fall=-8.0):
    rows = [training(step) for step in range(10, 301, 10)]
    return rows + [evaluation(step, -60 + fall * step / 300, -62 + 3 * fall * step / 300) for step in (0, 100, 300)]


def whole_summary(**more):
    generation = summary() | {name: {"base": 0.5, "aligned": 0.25} for name in ("distinct_2", "repetition", "ended")}
    generation["length_tokens"] = {"base": 20.0, "aligned": 31.5}
    held_out = {
        "eval_accuracy_longer_wins": 0.61,
        "eval_accuracy_length_matched": 0.7,
        "eval_accuracy_length_matched_pairs": 88.0,
        **evaluation(300, -68, -86),
    }
    return {
        "objective": "dpo",
        "reference": "base: a frozen copy",
        "steps": 300,
        "seconds": 286.6,
        "peak_memory_gib": 3.476,
        "precision": "float32",
        "versions": {"align": "0.1.0"},
        "notes": ["weights are quantised"],
        "train": {"pairs": 8000},
        "preparation": {"train": "8,000 pairs; 3.5 % truncated"},
        "held_out": held_out,
        "generation": generation,
    } | more


@pytest.fixture
def make_run(tmp_path):
    """Make a run folder; what is None is left out."""

    def make(name="run", *, rows=(), recipe=RECIPE, result=None, samples=None):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if rows is not None:
            logged = rows or metrics()
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
        if recipe is not None:
            (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        if result is not None:
            (folder / "summary.json").write_text(json.dumps(result))
        if samples is not None:
            (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
        return folder

    return make


@pytest.fixture
def unpaired(make_run):
    """A finished run on single completions."""
    train = {"train": {"completions": 36}, "held_out": unpaired_evaluation(300, -63, -92), "generation": {}}
    return make_run("kto", rows=unpaired_metrics(), result=whole_summary(objective="kto", **train))


@pytest.fixture
def one_sided(make_run):
    """A run whose objective reads the chosen alone."""
    return make_run("sft", rows=one_sided_metrics(), result=whole_summary(objective="sft"))


@pytest.fixture
def whole(make_run):
    """A finished run with everything."""
    return make_run("whole", result=whole_summary(), samples=[sample(f"prompt {i}") for i in range(9)])
