"""Every recipe that is brought over loads, trains the same thing where it can, and says where it cannot."""

import re
from pathlib import Path

import pytest
import yaml

from align.objectives.registry import OBJECTIVES
from align.recipe.errors import RecipeError
from align.recipe.foreign.bring_over import bring_over
from align.recipe.foreign.dialects import DIALECTS
from align.recipe.load import load_recipe
from tests.recipe.foreign.conftest import FILES, unfolded


def brought(file, project=None):
    """Bring a file over; return what came of it, and our recipe, loaded from disk."""
    made = bring_over(file, project)
    Path("ours.yaml").write_text(made.text)
    return made, load_recipe("ours.yaml")


def decided(made):
    return {decision.key: decision.text for decision in made.decisions}


@pytest.mark.parametrize("project", FILES)
def test_every_key_is_accounted_for(foreign, project):
    made, _ = brought(foreign(project))
    assert made.dialect is DIALECTS[project]
    for key in yaml.safe_load(FILES[project]):
        settings = [line for line in made.text.splitlines() if not line.startswith("#")]
        there = any(re.search(rf"(^ +{key}:|# .*\b{key}\b)", line) for line in settings)
        assert there or re.search(rf"^#.*\b{key}\b", made.text, flags=re.MULTILINE), key


def test_trl(foreign):
    made, recipe = brought(foreign("trl"))
    assert recipe.model.path == "org/tiny"
    assert recipe.model.dtype == "float32"
    lora = recipe.model.lora
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (16, 32.0, 0.05, ["q_proj", "v_proj"])
    assert [(s.path, s.split) for s in (*recipe.data.train, *recipe.data.eval)] == [
        ("org/pairs", "train_prefs"),
        ("org/pairs", "test_prefs"),
    ]
    assert (recipe.data.max_length, recipe.data.truncation) == (256, "keep_start")
    assert recipe.objective.beta == 0.05
    trained = {
        key: recipe.trainer[key] for key in ("learning_rate", "num_train_epochs", "bf16", "gradient_checkpointing")
    }
    assert trained == {"learning_rate": 5e-7, "num_train_epochs": 3.0, "bf16": True, "gradient_checkpointing": True}
    assert (recipe.trainer["eval_strategy"], recipe.trainer["eval_steps"]) == ("steps", 10)
    assert recipe.output.dir == "out/trl"
    assert not made.decisions
    assert "bf16: true  # TRL's default" in made.text


def test_handbook(foreign):
    made, recipe = brought(foreign("alignment-handbook"))
    assert [(s.path, s.config, s.split, s.weight) for s in recipe.data.train] == [
        ("org/one", "plain", "train_prefs", 0.5),
        ("org/two", None, "test_prefs", 1.0),
    ]
    assert recipe.data.eval_fraction == 0.05
    assert recipe.trainer["bf16"] is True  # 'yes', by YAML 1.1
    assert recipe.trainer["warmup_steps"] == 0.1
    assert recipe.model.dtype == "auto"
    said = decided(made)
    assert said.keys() == {"dataset_mixture: test_split_size", "max_prompt_length"}
    assert said["max_prompt_length"].startswith("128: it cut the prompt alone")
    assert made.text.count("# DECIDE:") == 2


def test_axolotl(foreign):
    made, recipe = brought(foreign("axolotl"))
    (source,) = recipe.data.train
    assert dict(source.columns) == {"prompt": "conversation", "chosen": "better"}
    assert (recipe.data.eval_fraction, recipe.data.max_length, recipe.data.truncation) == (0.05, 2048, "drop")
    assert (recipe.model.lora.r, recipe.model.lora.target_modules) == (8, "all-linear")
    assert recipe.model.attn_implementation == "flash_attention_2"
    assert recipe.objective.beta == 0.2
    trainer = recipe.trainer
    assert (trainer["per_device_train_batch_size"], trainer["gradient_accumulation_steps"]) == (2, 4)
    assert (trainer["eval_steps"], trainer["save_steps"]) == (0.0625, 0.25)  # 4 epochs, 4 and 1 times in each
    assert (trainer["optim"], trainer["eval_on_start"], trainer["warmup_steps"]) == ("adamw_torch", True, 10)
    assert decided(made).keys() == {"load_in_4bit", "chat_template"}


def test_the_effective_batch_is_kept(foreign):
    _, trl = brought(foreign("trl", "per_device_train_batch_size: 2\ngradient_accumulation_steps: 8\n"))
    assert (trl.trainer["per_device_train_batch_size"], trl.trainer["gradient_accumulation_steps"]) == (2, 8)
    _, silent = brought(foreign("axolotl", without="micro_batch_size"))
    assert silent.trainer["per_device_train_batch_size"] == 1


def test_a_typo_is_reported_by_its_line(foreign):
    made, _ = brought(foreign("trl", "max_lenght: 3\n"))
    (decision,) = made.decisions
    assert str(decision) == ("max_lenght (line 13): not a key of TRL that is known here; did you mean 'max_length'?")


@pytest.mark.parametrize(
    ("project", "more", "without", "message"),
    [
        (
            "trl",
            "loss_type: nothing_like_it\n",
            "",
            "13: loss_type: loss 'nothing_like_it' has no counterpart here; losses of TRL's DPOTrainer: sigmoid, hinge",
        ),
        ("trl", "loss_type: [sigmoid, hinge]\nloss_weights: [1]\n", "", "14: loss_weights: 1 weights for 2 losses"),
        ("trl", "loss_weights: [-1]\n", "", "13: loss_weights: weights must be at least 0"),
        ("trl", "desirable_weight: 1\nloss_type: sigmoid\n", "", "14: loss_type: loss 'sigmoid' has no counterpart"),
        ("trl", "reward_funcs: [accuracy]\n", "", "13: reward_funcs: belongs to online training"),
        ("axolotl", "rl: grpo\n", "rl:", "rl: 'grpo' has no counterpart here; these have: dpo, ipo, kto, orpo, simpo"),
        ("axolotl", "", "rl:", "1: base_model: no 'rl' in this file"),
    ],
)
def test_what_cannot_be_brought_over_stops(foreign, project, more, without, message):
    with pytest.raises(RecipeError) as raised:
        bring_over(foreign(project, more, without))
    assert message in str(raised.value)


def test_why_label_smoothing_is_left_out(foreign):
    made, recipe = brought(foreign("trl", "label_smoothing: 0.1\n"))
    assert isinstance(recipe.objective, OBJECTIVES["dpo"])
    assert "TRL 1.16 ignores it for sigmoid" in made.text


@pytest.mark.parametrize(
    ("more", "method", "name", "head"),
    [
        ("", None, "dpo", "Nothing in it says which trainer it is for; it was read as a recipe for DPO."),
        ("loss_type: hinge\n", None, "hinge", None),
        ("desirable_weight: 1.5\n", None, "kto", "Read as a recipe for KTO, by desirable_weight."),
        ("loss_type: apo_zero_unpaired\n", None, "apo_zero", "Read as a recipe for KTO, by loss_type."),
        ("cpo_alpha: 0.5\n", None, "cpo", "Read as a recipe for CPO, by cpo_alpha."),
        ("loss_type: simpo\ncpo_alpha: 0\n", None, "simpo", "Read as a recipe for CPO, by cpo_alpha."),
        ("gamma_beta_ratio: 0.5\n", None, "simpo", "Read as a recipe for SimPO, by gamma_beta_ratio."),
        ("", "orpo", "orpo", "Read as a recipe for ORPO, by --method orpo."),
        ("", "kto", "kto", "Read as a recipe for KTO, by --method kto."),
    ],
)
def test_which_trainer_a_file_is_for(foreign, more, method, name, head):
    made = bring_over(foreign("trl", more), method=method)
    Path("ours.yaml").write_text(made.text)
    recipe = load_recipe("ours.yaml")
    assert isinstance(recipe.objective, OBJECTIVES[name])
    assert recipe.data.unpaired is (True if name in ("kto", "apo_zero") else None)
    assert made.unsaid == (name == "dpo")
    third = made.text.splitlines()[2]
    assert third == (f"# {head}" if head else "")


def test_axolotl_says_the_method_itself(foreign):
    with pytest.raises(RecipeError, match="leave --method out"):
        bring_over(foreign("axolotl"), method="kto")


def test_rows_of_kto_come_in_the_order_that_trl_takes_them_in(foreign):
    _, recipe = brought(foreign("trl", "desirable_weight: 1.0\n"))
    assert recipe.trainer["train_sampling_strategy"] == "sequential"


def test_a_key_of_another_trainer_is_a_decision(foreign):
    made = bring_over(foreign("trl", "desirable_weight: 1.5\n"), method="dpo")
    assert decided(made)["desirable_weight"] == "1.5: of objective kto"


def test_a_setting_that_a_part_refuses_leaves_the_others(foreign):
    made, recipe = brought(foreign("trl", "loss_type: [robust, sft]\nlabel_smoothing: 0.7\n"))
    assert "must lie in [0, 0.5)" in decided(made)["label_smoothing"]
    assert len(recipe.objective.parts) == 2


def test_a_loss_is_looked_up_in_the_registry(foreign):
    made, recipe = brought(foreign("trl", "loss_type: [sigmoid]\nloss_weights: [1.0]\n"))
    assert isinstance(recipe.objective, OBJECTIVES["sigmoid"])
    assert "name: dpo  # loss_type" in made.text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("load_in_4bit: true", "set model.quantization beside model.lora"),
        ("use_dora: true", "plain LoRA"),
        ("lora_modules_to_save: [lm_head]", "beside adapters"),
        ("disable_dropout: false", "dropout is off"),
        ("{loss_type: hinge, ld_alpha: 0.5}", "objective ld_dpo"),
        ("{loss_type: apo_zero, f_divergence_type: js_divergence}", "TRL 1.16 refuses it with apo_zero"),
        ("{loss_type: [sigmoid, sft], use_weighting: true}", "objective wpo"),
        ("{loss_type: robust, reference_free: true}", "robust without a reference"),
        ("loss_type: exo_pair", "1e-3"),
        ("cpo_alpha_: 1", "did you mean 'cpo_alpha'"),
        ("label_smoothing_factor: 0.1", "goes with any objective"),
        ("neftune_noise_alpha: 5", "noise"),
        ("model_init_kwargs: {rope_scaling: 2}", "no counterpart"),
    ],
)
def test_what_would_train_otherwise_needs_a_decision(foreign, line, says):
    made, _ = brought(foreign("trl", unfolded(line)))
    (text,) = decided(made).values()
    assert says in text


@pytest.mark.parametrize(
    "line",
    [
        "load_in_4bit: false",
        "use_dora: no",
        "disable_dropout: true",
        "ld_alpha: 1",
        "f_divergence_type: reverse_kl",
        "label_smoothing: 0.0",
        "label_smoothing: 0.1",
        "f_alpha_divergence_coef: 0.3",
        "use_weighting: false",
        "sync_ref_model: false",
        "ref_model_sync_steps: 8",
        "rpo_alpha: 0",
        "reference_free: false",
        "discopop_tau: 0.1",
        "padding_free: true",
        "precompute_ref_log_probs: true",
        "dataset_num_proc: 8",
        "accelerate_config: zero2",
        "env: {X: 1}",
        "fp16_opt_level: O1",
        "use_liger_kernel: true",
        "beta2: null",
    ],
)
def test_what_asks_for_nothing_or_speed_is_left_out_with_a_reason(foreign, line):
    made, _ = brought(foreign("trl", line + "\n"))
    if line == "beta2: null":  # a key of nobody is no key that asks for nothing
        assert decided(made).keys() == {"beta2"}
        return
    assert not made.decisions
    assert made.left == 1
    assert line.split(":")[0] in made.text.split("# Left out")[1]


def test_adapters_are_only_made_where_they_are_used(foreign):
    made, recipe = brought(foreign("trl", without="use_peft"))
    assert recipe.model.lora is None
    assert "use_peft is not true" in made.text
    made, recipe = brought(foreign("trl", without="lora_target_modules"))
    assert recipe.model.lora.target_modules == ["q_proj", "v_proj"]
    assert "peft then chooses" in decided(made)["lora_target_modules"]


def test_peft_chooses_those_layers(foreign):
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOSEN

    assert all(CHOSEN[kind] == ["q_proj", "v_proj"] for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2"))


def test_rank_stabilised_adapters_scale_alike(foreign):
    _, recipe = brought(foreign("trl", "use_rslora: true\nlora_r: 64\nlora_alpha: 16\n"))
    assert recipe.model.lora.lora_alpha == 128.0


def test_trls_mixtures(foreign):
    more = "datasets:\n  - {path: org/a, name: en, fraction: 1.0}\n  - {path: json, data_files: [x.jsonl, y.jsonl]}\n"
    made, recipe = brought(foreign("trl", more + "test_split_size: 0.1\n", "eval_st"))
    assert [(s.path, s.config, s.split) for s in recipe.data.train] == [
        ("org/a", "en", "train"),
        ("x.jsonl", None, None),
        ("y.jsonl", None, None),
    ]
    assert recipe.data.eval_fraction == 0.1
    assert decided(made).keys() == {"datasets: fraction"}


def test_handbooks_mixer(foreign):
    more = "dataset_mixer:\n  org/a: 1.0\n  org/b: 0.5\ndataset_splits: [train_prefs, test_prefs]\n"
    file = foreign("alignment-handbook", more)
    text = Path(file).read_text()
    start, end = text.index("dataset_mixture:"), text.index("dataset_num_proc")
    Path(file).write_text(text[:start] + text[end:])
    _, recipe = brought(file)
    assert [(s.path, s.split, s.weight) for s in recipe.data.train] == [
        ("org/a", "train_prefs", 1.0),
        ("org/b", "train_prefs", 0.5),
    ]
    assert [(s.path, s.split, s.weight) for s in recipe.data.eval] == [
        ("org/a", "test_prefs", 1.0),
        ("org/b", "test_prefs", 1.0),
    ]


def test_anchors_and_nulls(foreign):
    more = "x: &rate 1.0e-4\n"
    made, recipe = brought(foreign("trl", f"run_name:\nweight_decay: &w 0.1\nadam_epsilon: *w\n{more}"))
    assert (recipe.trainer["weight_decay"], recipe.trainer["adam_epsilon"]) == (0.1, 0.1)
    assert "run_name: null there" in made.text
    _, unlimited = brought(foreign("trl", "max_length: null\n", "max_length"))
    assert unlimited.data.max_length is None


def test_a_value_that_ours_refuses_becomes_a_decision(foreign):
    made, recipe = brought(foreign("trl", "optim: no_such_optimiser\n"))
    assert "optim" not in recipe.trainer
    assert "no_such_optimiser" in decided(made)["optim"]
    made, recipe = brought(foreign("trl", "", "dataset_name"))
    assert recipe.data.train[0].path == "CHOOSE-A-FILE.jsonl"
    assert {"data.train", "eval_strategy"} <= decided(made).keys()


def test_secrets_are_not_repeated(foreign):
    made, _ = brought(foreign("trl", "hub_token: hf_secretsecret\nmy_api_key: sk-verysecret\n"))
    assert "secret" not in made.text.replace("for a secret", "")


@pytest.mark.parametrize(
    ("kind", "columns", "doubt"),
    [
        ("chat_template.argilla", {}, ""),
        ("chatml.intel", {"prompt": "question"}, "markup whatever the tokenizer"),
        ("{field_prompt: q, field_chosen: good}", {"prompt": "q", "chosen": "good"}, ""),
        ("{field_prompt: q, prompt_format: 'Q: {prompt}'}", {"prompt": "q"}, "write around the cells"),
        ("something.else", {}, "is not known"),
    ],
)
def test_axolotls_kinds_of_rows(foreign, kind, columns, doubt):
    file = foreign("axolotl", f"test_datasets:\n  - {{path: org/x, split: test, type: {kind}}}\n", "val_set_size")
    made, recipe = brought(file)
    assert dict(recipe.data.eval[0].columns) == columns
    said = decided(made).get("test_datasets: type", "")
    assert doubt in said
    assert bool(doubt) == bool(said)


def test_a_file_of_nobody_needs_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("learning_rate: 1.0e-6\nmax_length: 128\n")
    with pytest.raises(RecipeError, match="say which with --from"):
        bring_over("x.yaml")
    made, recipe = brought("x.yaml", "trl")
    assert recipe.data.max_length == 128
    assert decided(made).keys() == {"model.path", "data.train"}


def test_ours_is_not_brought_over(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("model: {path: m}\ndata: {train: a}\nobjective: dpo\n")
    with pytest.raises(RecipeError, match="known"):
        bring_over(file)
