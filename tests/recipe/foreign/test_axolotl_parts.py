import pytest

from align.recipe.errors import Origin
from align.recipe.foreign.axolotl_parts import axolotl_parts
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.yaml_tree import Node, read_yaml


def parts(text, rl="dpo"):
    draft = Draft()
    root = read_yaml(f"base_model: m\nrl: {rl}\n" + text, lambda line: Origin("f", line))
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


def objective(text, rl="dpo"):
    settings, decisions = parts(text, rl)
    return {k.removeprefix("objective."): v for k, v in settings.items() if k.startswith("objective.")}, decisions


@pytest.mark.parametrize(
    ("rl", "text", "expected"),
    [
        ("dpo", "dpo_loss_type: [hinge]", {"name": "hinge", "beta": 0.1}),
        ("dpo", "dpo_label_smoothing: 0.1", {"name": "dpo", "beta": 0.1}),
        ("dpo", "dpo_use_weighting: true", {"name": "wpo", "beta": 0.1, "bounded": False}),
        ("dpo", "dpo_norm_loss: true", {"name": "sigmoid_norm", "beta": 0.1}),
        ("ipo", "rl_beta: 0.3\ndpo_loss_type: [hinge]", {"name": "ipo", "tau": 0.3}),
        ("orpo", "orpo_alpha: 0.2", {"name": "orpo", "lam": 0.2, "nll": "batch_mean_with_prompt"}),
        ("orpo", "orpo_alpha: 0.2\nrl_beta: 0.3", {"name": "orpo", "lam": 0.3, "nll": "batch_mean_with_prompt"}),
        ("simpo", "simpo_gamma: 0.7\ncpo_alpha: 0.0\nrl_beta: 2.0", {"name": "simpo", "beta": 2.0, "gamma": 0.7}),
        (
            "kto",
            "kto_desirable_weight: 0.2",
            {"name": "kto", "beta": 0.1, "desirable_weight": 0.2, "undesirable_weight": 1.0},
        ),
    ],
)
def test_the_loss_of_each_method(rl, text, expected):
    assert objective(text, rl) == (expected, [])


def test_lists_of_losses():
    settings, _ = objective("dpo_loss_type: [sigmoid, sft]\ndpo_loss_weights: [1.0, 0.2]\nrpo_alpha: 0.5")
    assert {k: v for k, v in settings.items() if k.endswith(("name", "weight"))} == {
        **{"0.name": "dpo", "0.weight": 1.0, "1.name": "sft", "1.weight": 0.2, "2.name": "sft", "2.weight": 0.5}
    }
    settings, _ = objective("simpo_gamma: 0.7", "simpo")
    assert (settings["1.name"], settings["1.weight"]) == ("sft", 1.0)  # TRL's cpo_alpha


def test_kto_trains_on_single_completions():
    assert parts("", "kto")[0]["data.unpaired"] is True
    assert "data.unpaired" not in parts("")[0]


def test_columns_of_single_completions():
    text = "datasets: [{path: a, type: {field_prompt: q, field_completion: answer, field_label: good}}]"
    columns = {"prompt": "q", "completion": "answer", "label": "good"}
    assert parts(text, "kto")[0]["data.train"] == [{"path": "a", "columns": columns}]


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
