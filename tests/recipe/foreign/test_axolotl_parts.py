import pytest

from align.recipe.errors import Origin
from align.recipe.foreign.axolotl_parts import axolotl_parts
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.yaml_tree import Node, read_yaml


def parts(text):
    draft = Draft()
    root = read_yaml("base_model: m\nrl: dpo\n" + text, lambda line: Origin("f", line))
    axolotl_parts(Given(Node(root.value, Origin("f"))), draft)
    return {key: setting.value for key, setting in draft.settings.items()}, [str(d) for d in draft.decisions]


def test_bf16_decides_about_weights_and_arithmetic():
    settings, _ = parts("bf16: true")
    assert (settings["model.dtype"], settings["trainer.bf16"]) == ("bfloat16", True)
    settings, _ = parts("bf16: auto")
    assert settings["model.dtype"] == "auto"
    assert "trainer.bf16" not in settings


@pytest.mark.parametrize(
    ("text", "beta"), [("rl_beta: 0.2", 0.2), ("dpo_beta: 0.3", 0.3), ("trl: {beta: 0.4}", 0.4), ("", 0.1)]
)
def test_where_beta_comes_from(text, beta):
    assert parts(text)[0]["objective.beta"] == beta


def test_evaluations_need_something_held_out():
    settings, _ = parts("evals_per_epoch: 4")
    assert "trainer.eval_strategy" not in settings
    settings, _ = parts("val_set_size: 0.1\nevals_per_epoch: 2\nnum_epochs: 5")
    assert settings["trainer.eval_steps"] == pytest.approx(0.1)


def test_checkpoints_are_an_epoch_apart_unless_it_says_otherwise():
    assert parts("")[0]["trainer.save_strategy"] == "epoch"
    assert parts("saves_per_epoch: 1")[0]["trainer.save_steps"] == pytest.approx(1, abs=1e-5)
    assert parts("save_steps: 500")[0]["trainer.save_strategy"] == "steps"


def test_reporting_is_asked_for_by_a_project():
    assert parts("wandb_project: p\nwandb_name: n")[0]["trainer.report_to"] == ["wandb"]
    assert "trainer.report_to" not in parts("wandb_project:")[0]


def test_special_tokens_other_than_padding_are_asked_about():
    assert not parts("special_tokens: {pad_token: x}")[1]
    assert "eos_token" in parts("special_tokens: {eos_token: x}")[1][0]


def test_adapters_without_rank_take_pefts():
    settings, decisions = parts("adapter: qlora\nlora_target_linear: true")
    assert settings["model.lora.r"] == 8
    assert decisions == ["lora_r: not given; 8 is what peft takes"]
