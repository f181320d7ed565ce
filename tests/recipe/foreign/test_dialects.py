import pytest

from align.objectives.registry import OBJECTIVES
from align.recipe.errors import RecipeError
from align.recipe.foreign.dialects import DIALECTS, detect, renamed_hint
from align.recipe.load import load_recipe
from align.recipe.schema import (
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    OutputSettings,
    ReferenceSyncSettings,
)
from align.recipe.trainer_fields import known_fields
from align.recipe.tree import read_file
from tests.recipe.foreign.conftest import FILES

OURS = {
    "model": ModelSettings,
    "model.lora": LoraSettings,
    "model.reference_sync": ReferenceSyncSettings,
    "data": DataSettings,
    "evaluation": EvaluationSettings,
    "output": OutputSettings,
}


@pytest.mark.parametrize("project", FILES)
def test_each_project_is_told_by_its_keys(foreign, project):
    assert detect(read_file(foreign(project))) is DIALECTS[project]


def test_ours_is_nobodys(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("model: {path: m}\nbeta: 0.1\nmodel_name_or_path: m\n")
    assert detect(read_file(file)) is None


@pytest.mark.parametrize("name", DIALECTS)
def test_every_answer_leads_to_a_key_that_exists(name):
    of_objectives = {setting for cls in OBJECTIVES for setting in OBJECTIVES[cls].__dataclass_fields__} | {"name"}
    for key, answer in DIALECTS[name].table.items():
        section, _, setting = answer.to.rpartition(".")
        if section == "trainer":
            assert setting in known_fields(), key
        elif section in OURS:
            assert setting in OURS[section].__dataclass_fields__, key
        elif section == "objective":
            assert setting in of_objectives, key
        else:
            assert answer.to in ("", "model", "objective") or (
                answer.to.startswith(("data.train.0.", "data.eval.0."))
            ), key


@pytest.mark.parametrize("name", DIALECTS)
def test_every_key_without_counterpart_has_a_reason(name):
    assert not [key for key, answer in DIALECTS[name].table.items() if not answer.to and len(answer.says) < 10]


@pytest.mark.parametrize("project", FILES)
def test_one_error_names_project_keys_and_command(foreign, project):
    file = foreign(project)
    with pytest.raises(RecipeError) as raised:
        load_recipe(file, ["trainer.max_steps=1"])
    first, second, third, *lines = str(raised.value).splitlines()
    assert first == f"{file}: this is a recipe of {DIALECTS[project].title}, not of align. To bring it over:"
    assert second == f"  align recipes convert {file} --to RECIPE.yaml"
    assert third == "What its keys are called here:"
    keys = [line for line in FILES[project].splitlines() if line[0] not in " #"]
    assert len(lines) == len(keys)
    for line, key in zip(lines, keys, strict=True):
        assert line.split()[2] == key.split(":")[0]


def test_what_a_foreign_key_is_called_here(foreign):
    with pytest.raises(RecipeError, match=r"line 6   max_length +data\.max_length"):
        load_recipe(foreign("trl"))
    with pytest.raises(RecipeError, match=r"frobnicate +not a key of TRL that is known here"):
        load_recipe(foreign("trl", "frobnicate: 1\n"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "data: {train: a, max_prompt_length: 8}",
            "data.max_prompt_length: 'data' has no setting 'max_prompt_length'; TRL's "
            "'max_prompt_length' has no counterpart here: it cut the prompt alone; data.max_length bounds",
        ),
        ("data: {train: a, sequence_len: 8}", "; Axolotl's 'sequence_len' is here: data.max_length"),
        ("data: {train: {path: a, fraction: 1}}", "; here: weight, a share of this source's rows"),
        (
            "objective: {name: dpo, label_smoothing_factor: 0.1}",
            "; transformers' 'label_smoothing_factor' is not set in a "
            "recipe: set objective.label_smoothing, which goes with any objective",
        ),
        ("objective: {name: dpo, learning_rate: 0.1}", "; here: trainer.learning_rate"),
        ("trainer: {max_length: 8}", "; TRL's 'max_length' is here: data.max_length"),
        ("trainer: {beta: 1}", "; TRL's 'beta' is here: objective.beta"),
        ("trainer: {warmup_ratio: 0.1}", "; TRL's 'warmup_ratio' is here: trainer.warmup_steps"),
        ("model: {path: m, model_name_or_path: x}", "; TRL's 'model_name_or_path' is here: model.path"),
        ("model: {path: m, lora: {lora_r: 8}}", "; TRL's 'lora_r' is here: model.lora.r"),
        (
            "objective: {name: simpo, simpo_gamma: 1}",
            "; TRL's 'simpo_gamma' is here: objective.gamma (of simpo: the margin itself, there too)",
        ),
        ("objective: {name: dpo, ld_alpha: 0.5}", "; TRL's 'ld_alpha' is here: objective.alpha (of objective ld_dpo)"),
        ("objective: {name: orpo, orpo_alpha: 0.5}", "; Axolotl's 'orpo_alpha' is here: objective.lam"),
        ("objective: {name: dpo, rpo_alpha: 1}", "; TRL's 'rpo_alpha' is here: objective (a list with {name: sft"),
        ("model: {path: m, sync_ref_model: true}", "; TRL's 'sync_ref_model' is here: model.reference_sync"),
        ("beta: 0.1", "a recipe has no section 'beta'; TRL's 'beta' is here: objective.beta"),
    ],
)
def test_a_foreign_key_in_our_recipe_is_named_with_its_line(tmp_path, line, message):
    ours = {"model": "model: {path: m}", "data": "data: {train: a}", "objective": "objective: dpo"}
    ours[line.split(":")[0]] = line
    file = tmp_path / "r.yaml"
    file.write_text("\n".join(ours.values()) + "\n")
    with pytest.raises(RecipeError) as raised:
        load_recipe(file)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{file}:{1 + list(ours.values()).index(line)}: ")


def test_no_hint_where_ours_has_the_same_name_or_nobody_has_it():
    assert renamed_hint("beta", "objective.beta") == ""
    assert renamed_hint("frobnicate", "data.frobnicate") == ""
    assert renamed_hint("alpha", "model.lora.alpha") == ""
