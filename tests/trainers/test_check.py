"""What a recipe names is looked for before anything heavy is loaded."""

import pytest

from align.recipe.load import load_recipe
from align.trainers.check import check, reference_kind, refuse_shards
from align.trainers.engine import Engine


@pytest.fixture
def recipe_file(tmp_path, pairs_file, model_dir):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    return path


def test_a_line_for_each_part(recipe_file):
    lines = check(load_recipe(recipe_file, ["model.lora={r: 4}"]))
    assert [line.split(":")[0] for line in lines] == ["model", "objective", "reference", "data.train"]
    assert lines[2] == "reference: adapter_off"


def test_the_first_row_of_every_source_is_read(recipe_file, pairs_file):
    with pytest.raises(ValueError, match="no column 'good'"):
        check(load_recipe(recipe_file, [f"data.train={{path: {pairs_file}, columns: {{chosen: good}}}}"]))
    pairs_file.write_text('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(ValueError, match=r"pairs.jsonl:1: there is no column 'rejected'"):
        check(load_recipe(recipe_file))


def test_a_folder_without_a_model(recipe_file, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        check(load_recipe(recipe_file, [f"model.path={tmp_path}"]))


def test_everything_that_is_wrong_is_told_at_once(recipe_file, pairs_file):
    pairs_file.write_text('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(ValueError, match=r"^2 things cannot work:\n  - .*\n  - ") as told:
        check(load_recipe(recipe_file, ["model.reference=none"]))
    assert "no column 'rejected'" in str(told.value)
    assert "model.reference 'none' cannot work" in str(told.value)


def test_one_mistake_keeps_its_kind(recipe_file):
    from align.data.rows import DataError

    with pytest.raises(DataError):
        check(load_recipe(recipe_file, ["data.train=absent.jsonl"]))


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [([], "base"), (["model.lora={r: 2}"], "adapter_off"), (["model.lora={r: 2}", "model.reference=base"], "base")],
)
def test_the_reference_that_will_be_used(recipe_file, overrides, kind):
    assert reference_kind(load_recipe(recipe_file, overrides)) == kind


def test_versions_of_responses_are_told(recipe_file):
    found = check(load_recipe(recipe_file, ["spo={versions: {extractor: tfidf, degrees: 3}}"]))
    assert "spo: 3 versions of both responses (tfidf), lacking 0 %, 50 %, 100 %" in found
    with pytest.raises(ValueError, match=r"nothing\.py"):
        check(load_recipe(recipe_file, ["spo={versions: {extractor: 'nothing.py:key'}}"]))


def test_negatives_alone_are_told(recipe_file):
    found = check(load_recipe(recipe_file, ["objective=d2o", "d2o={samples: 3}"]))
    assert {"rows: negatives alone", "d2o: 3 samples a negative, under 11 instructions in turn"} <= set(found)
    assert any("no samples" in line for line in check(load_recipe(recipe_file, ["objective=npo", "d2o={}"])))
    for overrides, message in (
        (["objective=simpo", "d2o={}"], "reads lengths, and a mean of samples has none"),
        (["objective=dpo", "d2o={}", "spo={}"], "spo makes versions of responses, and d2o draws samples"),
        (["objective=dpo", "d2o={instructions: mortal}"], "no list and no file 'mortal'"),
        (["objective=d2o"], "objective 'd2o' without the section d2o .* add 'd2o: {}'"),
    ):
        with pytest.raises(ValueError, match=message):
            check(load_recipe(recipe_file, overrides))


def test_it_stays_cheap(recipe_file, monkeypatch):
    """No tokenizer, no structure of a model: every run begins with it."""
    import transformers

    def refuse(*_, **__):
        raise AssertionError("something heavy was loaded")

    for name in ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", refuse)
    check(load_recipe(recipe_file))


@pytest.mark.parametrize("asked", [{"quantised": True, "moves": False}, {"quantised": False, "moves": True}])
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(asked):
    for name in ("zero3", "fsdp2"):
        with pytest.raises(ValueError, match=f"cannot work under {name} with 2 processes"):
            refuse_shards(Engine(name=name, processes=2), **asked)
    refuse_shards(Engine(name="zero2", processes=2), **asked)
