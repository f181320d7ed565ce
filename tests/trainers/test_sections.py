"""What sections of a recipe ask of a model, told before anything is sampled."""

import pytest

from align.models.load import Source, load_tokenizer
from align.models.skeleton import Counts, load_config
from align.recipe.load import load_recipe
from align.trainers.sections import (
    check_sections,
    copies_of_d2o,
    draws_samples,
    finer_bytes,
    moving_bytes,
    other_models,
)


@pytest.fixture
def recipe_of(tmp_path, model_dir, pairs_file):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    return lambda *overrides: load_recipe(path, list(overrides))


@pytest.fixture
def parts(model_dir):
    source = Source(path=str(model_dir))
    return load_config(source), load_tokenizer(source)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spo={head: {layer: 99}}"], r"spo.head.layer 99: the model has \d+ layers"),
        (["spo={versions: {removal: mask, mask_token: this is long}}"], r"mask_token 'this is long' is \d+ tokens"),
    ],
)
def test_what_a_model_cannot_have(recipe_of, parts, words, message):
    with pytest.raises(ValueError, match=message):
        check_sections(recipe_of(*words), *parts)
    check_sections(recipe_of("spo={head: {layer: -2}}"), *parts)


def test_instructions_that_a_template_refuses(recipe_of, parts):
    config, tokenizer = parts
    tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(ValueError, match=r"d2o.instructions: the chat template takes no system turn"):
        check_sections(recipe_of("objective=d2o", "d2o={}"), config, tokenizer)
    check_sections(recipe_of("objective=npo", "d2o={}"), config, tokenizer)  # draws none
    check_sections(recipe_of("objective=d2o", "d2o={instructions: null}"), config, tokenizer)


def test_copies(recipe_of):
    sync = "{samples_reference_sync: {alpha: 0.1, every: 2}, online: {warmup: 1, every: 1}}"
    for words, expected in (
        (["d2o={}"], (0, 0)),
        (["d2o={samples_reference: base}"], (0, 1)),
        ([f"d2o={sync}"], (2, 0)),
    ):
        recipe = recipe_of("objective=d2o", *words)
        assert draws_samples(recipe)
        assert copies_of_d2o(recipe) == expected
    assert copies_of_d2o(recipe_of("objective=npo", "d2o={}")) == copies_of_d2o(recipe_of()) == (0, 0)


def test_bytes_of_copies_that_move(recipe_of):
    """Where weights have two bytes and copies move by shares, float32 weights stand beside."""
    whole = Counts(parameters=10, trainable=10, weight_bytes=40, trainable_bytes=40)
    halves = Counts(parameters=10, trainable=10, weight_bytes=20, trainable_bytes=20)
    by_shares, at_once = "model.reference_sync={alpha: 0.5}", "model.reference_sync={alpha: 1.0}"
    of_samples = ["objective=d2o", "d2o={samples_reference_sync: {alpha: 0.1}, online: {}}"]
    assert moving_bytes(recipe_of(), halves) == 0
    assert [moving_bytes(recipe_of(by_shares), counts) for counts in (whole, halves)] == [40, 20 + 40]
    assert finer_bytes(recipe_of(at_once), halves) == 0
    assert moving_bytes(recipe_of(*of_samples, by_shares), halves) == 3 * 20 + 2 * 40


def test_models_that_are_compared_with(recipe_of, tmp_path):
    assert other_models(recipe_of()) == {}
    named = recipe_of("model.reference=a/b", "objective=d2o", "d2o={samples_reference: c/d}")
    assert other_models(named) == {"model.reference": "a/b", "d2o.samples_reference": "c/d"}
    assert other_models(recipe_of("model.reference=a/b", "objective=cpo")) == {}
