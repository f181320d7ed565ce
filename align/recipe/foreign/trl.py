"""Keys of TRL, as of 1.16: of ``trl dpo --config FILE``, ``trl kto``, its scripts for CPO and ORPO, and former ones.

Keys that are fields of ``transformers.TrainingArguments`` are not listed: they keep their name under ``trainer``.
"""

from typing import Any

from align.recipe.foreign.answers import Table, attention, dropped, grouped, missed, renamed, truth

_MEMORY = "a matter of memory or speed, the same loss"
_LAUNCHER = "the launcher's: accelerate launch --config_file accelerate_configs/... scripts/train.py RECIPE"
_LORA = "only with use_peft: true"
_QUANTISED = "set model.quantization beside model.lora: nf4 or fp4 for 4 bits, int8 for 8"
_LABELS = "batches have no labels; completions are marked by position"
_RATIOS = "of the objectives that compare log-ratios; TRL 1.16 refuses it for the others"
_ENCODER = "causal language models only"
_DTYPE = "'auto' and null there mean the type the weights were saved in; here what the device does well"


def _dtype(value: Any) -> Any:
    """Return a number type by our names; null is ``auto``."""
    return "auto" if value is None else str(value).removeprefix("torch.")


def _sampling(value: Any) -> str:
    return "group_by_length" if truth(value) is True else "random"


_SCRIPT: Table = {
    "dataset_name": grouped("data.train", "a hub name or path; data.train.0.path"),
    "dataset_config": grouped("data.train.0.config"),
    "dataset_train_split": grouped("data.train.0.split"),
    "dataset_test_split": grouped("data.eval.0.split", "only read where eval_strategy asks for evaluation"),
    "dataset_streaming": dropped("rows are tokenised once, to disk, and never all in memory"),
    "ignore_bias_buffers": dropped("boolean buffers are no concern of align's processes"),
    "datasets": grouped("data.train", "a list of sources; name is config, fraction becomes weight"),
    "streaming": dropped("rows are tokenised once, to disk, and never all in memory"),
    "test_split_size": grouped(
        "data.eval_fraction", "a share of the prompts by a hash of their text, no count of rows"
    ),
}

_MODEL: Table = {
    "model_name_or_path": renamed("model.path"),
    "model_revision": renamed("model.revision"),
    "dtype": renamed("model.dtype", _DTYPE, value=_dtype, null=True),
    "torch_dtype": renamed("model.dtype", _DTYPE, value=_dtype, null=True),
    "attn_implementation": renamed("model.attn_implementation"),
    "use_flash_attention_2": renamed(
        "model.attn_implementation",
        "true is flash_attention_2",
        value=attention("flash_attention_2"),
        harmless=(False,),
    ),
    "trust_remote_code": renamed("model.trust_remote_code", value=truth),
    "model_init_kwargs": grouped("model", "revision, dtype, attn_implementation and trust_remote_code of it"),
    "use_peft": grouped("model.lora", "a mapping trains adapters; leave it out to train every weight"),
    "lora_r": grouped("model.lora.r", _LORA),
    "lora_alpha": grouped("model.lora.lora_alpha", _LORA),
    "lora_dropout": grouped("model.lora.lora_dropout", f"{_LORA}; 0.05 there where not given, 0 here"),
    "lora_target_modules": grouped("model.lora.target_modules", f"{_LORA}; not given means every linear layer here"),
    "use_rslora": grouped("model.lora.lora_alpha", "multiply lora_alpha by the square root of r"),
    "lora_task_type": dropped("always a causal language model"),
    "lora_target_parameters": missed("adapters go on layers by name, model.lora.target_modules", []),
    "lora_modules_to_save": missed("whole layers cannot be trained beside adapters", []),
    "use_dora": missed("adapters are plain LoRA", False),
    "load_in_8bit": missed(_QUANTISED, False),
    "load_in_4bit": missed(_QUANTISED, False),
    "bnb_4bit_quant_type": dropped("belongs to load_in_4bit"),
    "use_bnb_nested_quant": dropped("belongs to load_in_4bit"),
    "bnb_4bit_quant_storage": dropped("belongs to load_in_4bit"),
}

_LOSS: Table = {
    "loss_type": grouped("objective.name", "a name or a list; sigmoid is dpo, the others keep theirs"),
    "loss_weights": grouped("objective", "weight of each objective of a list", trains=True),
    "beta": grouped("objective.beta", "tau of ipo, lam of orpo"),
    "label_smoothing": grouped(
        "objective.label_smoothing",
        "TRL 1.16 reads it for robust, exo_pair, aot, aot_unpaired and cpo only; here it goes with any objective",
        harmless=(0,),
        trains=True,
    ),
    "discopop_tau": grouped("objective.tau", "of discopop", trains=True),
    "f_divergence_type": grouped("objective.f_divergence", _RATIOS, harmless=("reverse_kl",), trains=True),
    "f_alpha_divergence_coef": grouped("objective.f_alpha", "only with f_divergence: alpha_divergence"),
    "ld_alpha": grouped("objective.alpha", "of objective ld_dpo", harmless=(1,), trains=True),
    "use_weighting": grouped("objective.name", "true is wpo, with bounded: false", harmless=(False,), trains=True),
    "sync_ref_model": grouped(
        "model.reference_sync", "a mapping lets the reference follow", harmless=(False,), trains=True
    ),
    "ref_model_mixup_alpha": grouped("model.reference_sync.alpha"),
    "ref_model_sync_steps": grouped("model.reference_sync.every"),
    "desirable_weight": grouped("objective.desirable_weight", "of objective kto", trains=True),
    "undesirable_weight": grouped("objective.undesirable_weight", "of objective kto", trains=True),
    "cpo_alpha": grouped(
        "objective.nll_weight", "of cpo, with nll: batch_mean; beside simpo the weight of sft in a list", trains=True
    ),
    "simpo_gamma": grouped("objective.gamma", "of simpo: the margin itself, there too", trains=True),
    "alpha": grouped("objective.alpha", "of CPOTrainer; simpo with alpha is alphapo", harmless=(0,), trains=True),
    "rpo_alpha": grouped(
        "objective", "a list with {name: sft, weight: ..., nll: batch_mean}", harmless=(0,), trains=True
    ),
    "reference_free": grouped("objective.name", "true is cpo, with nll_weight: 0", harmless=(False,), trains=True),
}

_DPO: Table = {
    "max_length": renamed("data.max_length", "prompt and completion together, as there", null=True),
    "truncation_mode": renamed(
        "data.truncation", "keep_end cuts the prompt alike for both sides; there each side by itself"
    ),
    "router_aux_loss_coef": missed("no loss of the router is added", 0),
    "disable_dropout": missed("dropout is off in policy and reference, always", True),
    "precompute_ref_log_probs": dropped(_MEMORY),
    "precompute_ref_batch_size": dropped("belongs to precompute_ref_log_probs"),
    "dataset_num_proc": dropped("the tokenizer uses all cores by itself; what it made is kept on disk"),
    "padding_free": dropped(f"{_MEMORY}; TRL 1.16 ignores it too, with a warning"),
    "pad_to_multiple_of": dropped(_MEMORY),
    "activation_offloading": dropped(_MEMORY),
    "pad_token": dropped("padding is masked by length, so any token will do"),
}

_FORMER: Table = {
    "max_prompt_length": missed(
        "it cut the prompt alone; data.max_length bounds prompt and completion together, and "
        "data.truncation: keep_end cuts the start of prompts that are too long"
    ),
    "max_completion_length": missed(
        "it cut the completion alone; data.max_length bounds prompt and completion together"
    ),
    "max_target_length": missed("it cut the completion alone; data.max_length bounds prompt and completion together"),
    "generate_during_eval": dropped("evaluation.generation compares samples of before and after training"),
    "ref_model_init_kwargs": missed("a reference of its own is loaded as the policy is; model.reference names it", {}),
    "model_adapter_name": missed("a folder with an adapter loads with the adapter merged in; give it as model.path"),
    "ref_adapter_name": missed("give the reference's folder as model.reference"),
    "force_use_ref_model": dropped("model.reference says which reference is used"),
    "label_pad_token_id": dropped(_LABELS),
    "padding_value": dropped("padding is masked by length, so any token will do"),
    "is_encoder_decoder": missed(_ENCODER, False),
    "use_logits_to_keep": dropped("logits are computed where a completion token is predicted, always"),
    "use_num_logits_to_keep": dropped("logits are computed where a completion token is predicted, always"),
    "use_liger_loss": dropped(_MEMORY),
    "use_liger": dropped(_MEMORY),
    "base_model_attribute_name": dropped("belongs to use_liger_loss"),
    "tools": missed("a column 'tools' of the rows reaches the chat template"),
    "tokenizer_name_or_path": missed("the tokenizer is the one beside the model; save it there"),
    "chat_template": missed("the chat template is the tokenizer's own; save it with the tokenizer"),
}

_TRAINING_ARGUMENTS: Table = {
    "output_dir": renamed("output.dir"),
    "warmup_ratio": renamed("trainer.warmup_steps", "a number below 1 is a share of the steps"),
    "evaluation_strategy": renamed("trainer.eval_strategy"),
    "group_by_length": renamed("trainer.train_sampling_strategy", "true is group_by_length", value=_sampling),
    "no_cuda": renamed("trainer.use_cpu", value=truth),
    "per_gpu_train_batch_size": renamed("trainer.per_device_train_batch_size"),
    "per_gpu_eval_batch_size": renamed("trainer.per_device_eval_batch_size"),
    "push_to_hub_model_id": renamed("trainer.hub_model_id"),
    "push_to_hub_organization": dropped("write organization/name into trainer.hub_model_id"),
    "push_to_hub_token": dropped("a recipe is no place for a secret; log in with `hf auth login`"),
    "overwrite_output_dir": dropped("a folder with another recipe's run is never written to"),
    "logging_dir": dropped(
        "metrics.jsonl and the curves are in the run folder; TensorBoard reads TENSORBOARD_LOGGING_DIR"
    ),
    "save_safetensors": dropped("weights are saved as safetensors, always"),
    "include_tokens_per_second": dropped("tokens a second are logged, always"),
    "include_inputs_for_metrics": dropped("align's own evaluation goes over the pairs"),
    "half_precision_backend": dropped("there is one"),
    "fp16_backend": dropped("there is one"),
    "fp16_opt_level": dropped("belonged to apex"),
    "use_mps_device": dropped("the device is found by itself"),
    "use_ipex": dropped("belonged to an extension that is gone"),
    "jit_mode_eval": dropped(_MEMORY),
    "torchdynamo": dropped("trainer.torch_compile compiles"),
    "tpu_num_cores": dropped(_LAUNCHER),
    "tpu_metrics_debug": dropped(_LAUNCHER),
    "ray_scope": dropped("there is no search over settings"),
    "past_index": dropped("belonged to models that are gone"),
    "dispatch_batches": dropped("write it into trainer.accelerator_config"),
    "split_batches": dropped("write it into trainer.accelerator_config"),
    "fsdp_min_num_params": dropped(_LAUNCHER),
    "fsdp_transformer_layer_cls_to_wrap": dropped(_LAUNCHER),
    "mp_parameters": dropped(_LAUNCHER),
    "sharded_ddp": dropped(_LAUNCHER),
}

_LAUNCH: Table = dict.fromkeys(
    (
        "accelerate_config",
        "num_processes",
        "num_machines",
        "machine_rank",
        "main_process_ip",
        "main_process_port",
        "mixed_precision",
        "gpu_ids",
        "config_file",
        "distributed_type",
    ),
    dropped(_LAUNCHER),
) | {"env": dropped("set environment variables in the shell")}

TABLE: Table = _SCRIPT | _MODEL | _LOSS | _DPO | _FORMER | _TRAINING_ARGUMENTS | _LAUNCH
"""Every key of TRL's scripts, of the configurations of its four trainers for preferences, and former ones."""

DEFAULTS: dict[str, Any] = {
    "model.dtype": "float32",
    "data.max_length": 1024,
    "data.truncation": "keep_start",
    "trainer.num_train_epochs": 3.0,
    "trainer.per_device_train_batch_size": 8,
    "trainer.learning_rate": 1e-6,
    "trainer.bf16": True,
    "trainer.gradient_checkpointing": True,
    "trainer.logging_steps": 10,
    "trainer.save_steps": 500,
}
"""What TRL 1.16 takes where a file is silent and align would take something else, or might one day."""
