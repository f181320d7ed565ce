"""No field of TRL's is without an answer, by looking at the installed TRL."""

import argparse
from dataclasses import MISSING, fields

import pytest
from transformers import TrainingArguments
from trl import DatasetMixtureConfig, DPOConfig, KTOConfig, ModelConfig, ScriptArguments, TrlParser
from trl.experimental.cpo import CPOConfig
from trl.experimental.orpo import ORPOConfig

from align.recipe.foreign import trl
from align.recipe.foreign.dialects import DIALECTS
from align.recipe.foreign.methods import METHODS
from tests.recipe.foreign.conftest import TRL

OF_TRAINING_ARGUMENTS = {field.name for field in fields(TrainingArguments)}
CONFIGS = (ScriptArguments, DatasetMixtureConfig, ModelConfig, KTOConfig, CPOConfig, ORPOConfig, DPOConfig)
THEIRS = {f.name: f for cls in CONFIGS for f in fields(cls)}


def test_every_field_of_trl_has_an_answer():
    unanswered = [name for name in THEIRS if DIALECTS["trl"].answer(name) is None]
    assert len(THEIRS) > 150
    assert not unanswered


def test_every_field_that_is_trls_own_stands_in_the_table():
    assert not [name for name in THEIRS if name not in OF_TRAINING_ARGUMENTS and name not in trl.TABLE]


def test_the_defaults_are_those_of_the_installed_trl(tmp_path):
    config = DPOConfig(output_dir=str(tmp_path), use_cpu=True)
    for key, value in trl.DEFAULTS.items():
        name = {"truncation": "truncation_mode"}.get(key.rpartition(".")[2], key.rpartition(".")[2])
        found = getattr(config, name) if hasattr(config, name) else THEIRS[name].default
        assert found == value, key


def test_whatever_trl_changes_of_training_arguments_is_written_out():
    """A default of TrainingArguments that a trainer's overrides is a setting of every recipe that is brought over."""
    own = {field.name: field.default for field in fields(TrainingArguments)}
    for method, config in (("dpo", DPOConfig), ("kto", KTOConfig), ("cpo", CPOConfig), ("orpo", ORPOConfig)):
        changed = {
            f.name for f in fields(config) if f.name in own and f.default is not MISSING and f.default != own[f.name]
        }
        assert changed
        assert {f"trainer.{name}" for name in changed} <= trl.DEFAULTS.keys() | dict(METHODS[method].defaults).keys()


def test_adapters_start_from_trls_values():
    assert (THEIRS["lora_r"].default, THEIRS["lora_alpha"].default, THEIRS["lora_dropout"].default) == (16, 32, 0.05)


@pytest.mark.parametrize(
    "key",
    [
        "max_prompt_length",
        "max_completion_length",
        "max_target_length",
        "reference_free",
        "rpo_alpha",
        "torch_dtype",
        "generate_during_eval",
        "evaluation_strategy",
        "warmup_ratio",
    ],
)
def test_former_keys_are_known_and_are_former(key):
    assert DIALECTS["trl"].answer(key) is not None
    assert key not in {field.name for field in fields(DPOConfig)}


def test_the_recipe_in_these_tests_is_one_that_trl_reads(tmp_path):
    file = tmp_path / "trl.yaml"
    file.write_text(TRL.replace("5e-7", "5.0e-7") + "use_cpu: true\n")
    parser = TrlParser((ScriptArguments, DPOConfig, ModelConfig, DatasetMixtureConfig))
    assert isinstance(parser, argparse.ArgumentParser)
    script, config, model, _ = parser.parse_args_and_config(["--config", str(file)])
    assert (script.dataset_name, config.beta, config.learning_rate) == ("org/pairs", 0.05, 5e-7)
    assert model.lora_target_modules == ["q_proj", "v_proj"]
