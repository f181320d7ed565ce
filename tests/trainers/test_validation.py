"""The facts of a recipe: numbers that follow from its files, and warnings where they deserve one."""

import json

import pytest

from align.recipe.load import load_recipe
from align.trainers.validation import validate
from tests.conftest import pair_rows


@pytest.fixture
def validated(tmp_path, model_dir, pairs_file):
    """A function from overrides to the facts of a small recipe."""
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, max_length: 64}}\nobjective: dpo\n"
        "trainer: {use_cpu: true, per_device_train_batch_size: 4}\n"
    )
    return lambda *overrides: validate(load_recipe(path, ["output.dir=" + str(tmp_path / "run"), *overrides]), "r")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_facts_are_plain_data_and_nothing_is_written_to_the_run_folder(validated, tmp_path):
    facts = validated("data.eval_fraction=0.3")
    assert json.loads(json.dumps(facts)) == facts
    assert not (tmp_path / "run").exists()
    sections = {"recipe", "model", "reference", "output", "data", "lengths", "batches", "duplicates", "steps", "speed"}
    assert set(facts) == sections | {"memory", "time", "warnings"}
    assert facts["data"]["sizes"]["train"] + facts["data"]["sizes"]["held_out"] == 24
    assert facts["steps"]["steps"] == -(-facts["data"]["sizes"]["train"] // 4)
    assert facts["warnings"] == []


def test_tokens_of_a_whole_epoch_are_those_of_the_pairs(validated, tokenizer, pairs_file):
    from align.data.prepare import prepare_pairs
    from align.recipe.schema import SourceSettings

    pairs = prepare_pairs(SourceSettings(path=str(pairs_file)), tokenizer, max_length=64).dataset
    real = sum(2 * len(p["prompt_ids"]) + len(p["chosen_ids"]) + len(p["rejected_ids"]) for p in pairs)
    assert validated()["steps"]["tokens"] == real


def test_a_prompt_on_both_sides_is_found_and_named(validated, tmp_path):
    held_out = write(tmp_path / "held_out.jsonl", [*pair_rows(3), {"prompt": "new", "chosen": "a", "rejected": "b"}])
    facts = validated(f"data.eval={held_out}")
    across = facts["duplicates"]["across"]
    assert (across["prompts"], across["share"], across["rows"]) == (3, 0.75, 3)
    assert across["places"][0] == "held_out.jsonl:1"
    assert any("3 held-out pairs (75.0 %)" in warning for warning in facts["warnings"])


def test_rows_that_contradict_are_found(validated, pairs_file):
    rows = pair_rows(6)
    swapped = {**rows[2], "chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]}
    write(pairs_file, [*rows, rows[0], swapped])
    facts = validated()
    assert facts["duplicates"]["train"] == {
        "prompts": 2,
        "rows": 1,
        "contradicted": 2,
        "places": ["pairs.jsonl:3", "pairs.jsonl:7", "pairs.jsonl:8"],
    }
    assert any("2 train pairs are also there with chosen and rejected swapped" in w for w in facts["warnings"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.max_length=1000"], "data.max_length=1000 is beyond the model's 256 positions"),
        (["trainer.warmup_steps=50"], "trainer.warmup_steps comes to 50 of 6 steps"),
        (["trainer.eval_strategy=steps", "trainer.eval_steps=90", "data.eval_fraction=0.3"], "trainer.eval_steps=90"),
    ],
)
def test_warnings(validated, overrides, said):
    assert any(said in warning for warning in validated(*overrides)["warnings"])


def test_a_finished_run_and_one_that_goes_on(validated, tmp_path):
    from align.trainers.run import run_recipe

    recipe = load_recipe(tmp_path / "r.yaml", [f"output.dir={tmp_path / 'run'}", "trainer.max_steps=2"])
    run_recipe(recipe)
    facts = validated("trainer.max_steps=2")
    assert facts["output"]["state"] == "finished"
    assert any("would do nothing" in warning for warning in facts["warnings"])
    (tmp_path / "run" / "summary.json").unlink()
    assert validated("trainer.max_steps=2")["output"]["state"] == "continues from checkpoint-2"
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        validated("trainer.max_steps=3")


def test_no_permission_is_refused(validated, tmp_path, monkeypatch):
    monkeypatch.setattr("align.trainers.validation.os.access", lambda *_: False)
    with pytest.raises(ValueError, match=r"cannot be written: no permission in .*; name another output.dir"):
        validated()


def test_too_little_disk(validated, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(1, 1, 0)
    monkeypatch.setattr("align.trainers.validation.shutil.disk_usage", lambda path: usage)
    assert any("of disk" in warning for warning in validated()["warnings"])


def test_a_split_that_would_be_empty(validated):
    with pytest.raises(ValueError, match="leaves no pair held out"):
        validated("data.eval_fraction=0.000001")


def singles(path, desirable, undesirable):
    """A file of single completions, so many of each label, every one of another prompt."""
    rows = pair_rows(desirable + undesirable)
    labelled = [
        {"prompt": row["prompt"], "completion": row["chosen" if i < desirable else "rejected"], "label": i < desirable}
        for i, row in enumerate(rows)
    ]
    return write(path, labelled)


def test_single_completions_are_counted_by_label(validated, tmp_path, tokenizer):
    from align.data.prepare import prepare_unpaired
    from align.recipe.schema import SourceSettings

    file = singles(tmp_path / "singles.jsonl", 14, 11)
    facts = validated("objective=kto", f"data.train={file}", "data.eval_fraction=0.3")
    assert json.loads(json.dumps(facts)) == facts
    sizes, desirable = facts["data"]["sizes"], facts["data"]["desirable"]
    assert facts["data"]["noun"] == "completion"
    assert (sum(sizes.values()), sum(desirable.values())) == (25, 14)
    assert facts["data"]["rows"]["train"]["desirable"] == 14
    assert facts["lengths"]["train"].keys() == {"rows", "prompt", "desirable", "undesirable", "whole"}
    assert facts["steps"]["steps"] == -(-sizes["train"] // 4)
    assert facts["steps"]["mismatched"]
    whole = validated("objective=kto", f"data.train={file}")
    prepared = prepare_unpaired(SourceSettings(path=str(file)), tokenizer, max_length=64).dataset
    assert whole["steps"]["tokens"] == sum(len(r["prompt_ids"]) + len(r["completion_ids"]) for r in prepared)


def test_pairs_are_taken_apart_where_the_recipe_says_so(validated):
    facts = validated("objective=bco_pair", "data.unpaired=true")
    assert facts["data"]["sizes"] == {"train": 48}
    assert not facts["steps"]["mismatched"]
    assert facts["duplicates"]["train"]["prompts"] == 24
    assert facts["warnings"] == []
    assert validated("objective=bco_pair")["data"]["sizes"] == {"train": 24}


def test_labels_that_contradict_and_prompts_on_both_sides(validated, tmp_path):
    file = singles(tmp_path / "singles.jsonl", 4, 4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write(file, [*rows, {**rows[2], "label": False}])
    held_out = write(tmp_path / "held_out.jsonl", [rows[0], {"prompt": "new", "completion": "a", "label": True}])
    facts = validated("objective=kto", f"data.train={file}", f"data.eval={held_out}")
    assert facts["duplicates"]["train"]["contradicted"] == 2
    told = " ".join(facts["warnings"])
    assert "2 train completions are also there with the other label (singles.jsonl:3, singles.jsonl:9)" in told
    assert "1 held-out completions (50.0 %) have a prompt that is trained on" in told
    assert "held-out AUC would flatter" in told


def test_weights_of_kto_that_do_not_fit_the_labels(validated, tmp_path):
    file = singles(tmp_path / "singles.jsonl", 16, 8)
    (warning,) = validated("objective=kto", f"data.train={file}")["warnings"]
    assert "= 1 * 16 / (1 * 8) = 2:" in warning
    assert "undesirable_weight from 1.5 to 2" in warning
    assert validated("objective={name: kto, undesirable_weight: 1.8}", f"data.train={file}")["warnings"] == []


def test_a_last_step_of_one_row(validated, tmp_path):
    file = singles(tmp_path / "singles.jsonl", 7, 6)
    (warning,) = validated("objective=kto", f"data.train={file}")["warnings"]
    assert "the last step of an epoch holds one row" in warning
    assert validated("objective=kto", f"data.train={file}", "trainer.dataloader_drop_last=true")["warnings"] == []


def test_scores_that_are_not_there(validated, pairs_file):
    with pytest.raises(ValueError, match=r"pairs.jsonl:1: the objective needs a score of both completions"):
        validated("objective=odpo")
    write(pairs_file, [{**row, "chosen_score": 2.0, "rejected_score": 1.0} for row in pair_rows(8)])
    assert validated("objective=odpo")["data"]["sizes"] == {"train": 8}


def test_a_reference_that_follows_is_a_copy_with_adapters_too(validated):
    moves = "model.reference_sync={alpha: 0.5, every: 2}"
    fixed, moving = validated("model.lora={r: 2}"), validated("model.lora={r: 2}", moves)
    assert fixed["reference"]["copy_bytes"] == 0
    assert moving["reference"]["copy_bytes"] >= moving["model"]["weight_bytes"]
    assert moving["memory"]["stages"]["training"]["reference copy"] == moving["reference"]["copy_bytes"]
    assert moving["reference"]["says"].endswith("every 2 steps it becomes 0.5 policy + 0.5 reference")
    grown = moving["output"]["checkpoint_bytes"] - fixed["output"]["checkpoint_bytes"]
    assert grown == moving["reference"]["copy_bytes"]  # a checkpoint keeps it
    never = validated("model.reference_sync={alpha: 0.5, every: 500}")["warnings"]
    assert any("model.reference_sync.every=500 is more than the run's 6 steps" in warning for warning in never)
