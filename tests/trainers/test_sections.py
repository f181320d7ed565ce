"""What sections of a recipe ask of a model, told before anything is sampled."""

import pytest

from align.models.load import Source, load_tokenizer
from align.models.skeleton import load_config
from align.recipe.load import load_recipe
from align.trainers.sections import check_room_for_samples, check_sections, copies_of_d2o, draws_samples


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


def test_prompts_without_room_for_a_sample(recipe_of, parts):
    recipe = recipe_of("objective=d2o", "d2o={samples: 2, max_new_tokens: 100}")
    with_instruction = check_room_for_samples(recipe, *parts, [7] * 5)
    assert 5 < with_instruction < 156
    with pytest.raises(ValueError, match="beyond the model's 256 positions"):
        check_room_for_samples(recipe, *parts, [7] * 152)


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
