from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from align.objectives.dpo import DPO
from align.recipe.errors import Origin, RecipeError
from align.recipe.schema import DataSettings, ModelSettings, Recipe, SourceSettings
from align.recipe.trainer_arguments import build_trainer, training_arguments
from align.recipe.trainer_fields import DEFAULTS
from align.recipe.yaml_tree import Node, read_yaml


def section(text: str) -> Node:
    node = read_yaml(text, lambda line: Origin("r.yaml", line))
    assert node is not None
    return node


def recipe(**trainer: object) -> Recipe:
    data = DataSettings(train=[SourceSettings(path="a.jsonl")])
    return Recipe(model=ModelSettings(path="m"), data=data, objective=DPO(), trainer=trainer)


def refusal(text: str, *, holds_out: bool = True) -> str:
    with pytest.raises(RecipeError) as error:
        build_trainer(section(text), holds_out=holds_out)
    return str(error.value)


def test_settings_stand_over_the_defaults() -> None:
    assert build_trainer(section("{}"), holds_out=False) == DEFAULTS
    built = build_trainer(section("save_steps: 7\nmax_steps: 3\nlearning_rate: 1e-4"), holds_out=False)
    assert built == DEFAULTS | {"save_steps": 7.0, "max_steps": 3, "learning_rate": 1e-4}
    assert list(built) == [name for name in plain_order() if name in built]


def plain_order() -> list[str]:
    return list(TrainingArguments.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_steps: 1\neval_strategy: steps",
            "r.yaml:2: trainer.eval_strategy: 'steps' needs held-out pairs: give data.",
        ),
        (
            "eval_on_start: true",
            "r.yaml:1: trainer.eval_on_start: needs held-out pairs: give data.eval or data.eval_frac",
        ),
        ("max_steps: 1\nlearning_rate: -1", "r.yaml:2: trainer.learning_rate: must be at least 0, got -1.0"),
        ("learning_rate: .nan", "r.yaml:1: trainer.learning_rate: must be at least 0, got nan"),
        ("per_device_train_batch_size: 0", "r.yaml:1: trainer.per_device_train_batch_size: must be at least 1, got 0"),
        ("report_to: wandbb", "r.yaml:1: trainer.report_to: 'wandbb' is none of the choices; did you mean 'wandb'?"),
        (
            "report_to:\n- wandb\n- tensorbord",
            "r.yaml:1: trainer.report_to: 'tensorbord' is none of the choices; did you",
        ),
        ("max_steps: 1\nlogging_steps: 2.5", "r.yaml:2: trainer.logging_steps: --logging_steps must be an integer if"),
        ("seed: 1\nbf16: true\nfp16: true", "r.yaml:3: trainer.fp16: At most one of fp16 and bf16 can be True"),
        ("seed: 1\nload_best_model_at_end: true", "r.yaml:2: trainer.load_best_model_at_end: --load_best_model_at_end"),
        (
            "seed: 1\nlr_scheduler_type: greedy",
            "r.yaml:2: trainer.lr_scheduler_type: lr_scheduler_type greedy requires an",
        ),
        ("seed: 1\naccelerator_config: {a: 1}", "r.yaml:2: trainer.accelerator_config: "),
        ("- max_steps: 1", "r.yaml:1: trainer: expected a mapping, found a list"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert refusal(text, holds_out=False).startswith(message)


def test_an_evaluation_that_has_pairs_is_accepted() -> None:
    built = build_trainer(section("{eval_strategy: steps, eval_steps: 5, eval_on_start: true}"), holds_out=True)
    assert built["eval_strategy"] == "steps"


def test_what_depends_on_the_machine_is_judged_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: False)
    asked = build_trainer(section("{bf16: true, torch_compile: true, tf32: true}"), holds_out=False)
    assert asked["bf16"] is True
    with pytest.raises(RecipeError, match=r"^trainer: Your setup doesn't support bf16"):
        training_arguments(recipe(bf16=True, use_cpu=False), tmp_path)


def test_without_an_accelerator_the_cpu_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert training_arguments(recipe(), tmp_path).use_cpu
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert not training_arguments(recipe(), tmp_path).use_cpu


def test_building_touches_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*args: object, **kwargs: object) -> None:
        raise AssertionError("a device was set up")

    monkeypatch.setattr("transformers.training_args.PartialState", touched)
    monkeypatch.setattr("transformers.training_args.AcceleratorState", touched)
    build_trainer(section("max_steps: 3"), holds_out=False)


def test_the_arguments_of_a_run(tmp_path: Path) -> None:
    given = dict(build_trainer(section("{max_steps: 3, use_cpu: true}"), holds_out=False))
    arguments = training_arguments(recipe(**given), tmp_path / "run", seed=7)
    assert isinstance(arguments, TrainingArguments)
    assert arguments.device == torch.device("cpu")
    assert (arguments.output_dir, arguments.max_steps, arguments.seed) == (str(tmp_path / "run"), 3, 7)
    assert (arguments.save_steps, arguments.save_total_limit, arguments.learning_rate) == (50, 2, 1e-5)
    assert arguments.remove_unused_columns is False
    assert arguments.logging_nan_inf_filter is False
    assert arguments.report_to == []
    assert not (tmp_path / "run").exists()


def test_a_recipe_made_in_python_gets_the_same_defaults(tmp_path: Path) -> None:
    arguments = training_arguments(recipe(use_cpu=True), tmp_path)
    assert (arguments.logging_steps, arguments.num_train_epochs) == (5, 1.0)


def test_a_deepspeed_launch_without_deepspeed(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("align.recipe.trainer_arguments.find_spec", lambda name: None)
    assert "the package is missing: pip install 'align[deepspeed]'" in refusal("max_steps: 4")
