"""Keys of Axolotl (``axolotl train FILE`` with ``rl``), as of July 2026, and former ones.

Unlike TRL's, no key of Axolotl is a field of ``transformers.TrainingArguments`` unless it is listed here.
"""

from typing import Any

from align.recipe.foreign.answers import Answer, Table, attention, dropped, grouped, missed, renamed, truth

_MEMORY = "a matter of memory or speed, the same loss"
_LAUNCHER = "the launcher's: accelerate launch --config_file accelerate_configs/... scripts/train.py RECIPE"
_TOKENIZER = "the tokenizer is taken as it is saved beside the model"
_CACHE = "prepared pairs are kept below $ALIGN_CACHE, by their content"
_SFT = "belongs to supervised fine-tuning"
_OTHER = "belongs to training on samples of the policy"
_STRENGTH = "tau of ipo, lam of orpo"
_QUANTISED = "set model.quantization beside model.lora: nf4 or fp4 for 4 bits, int8 for 8"
_REPORT = "name it in trainer.report_to; its own environment variables say the rest"
_LORA = "only with adapter: lora or qlora"


def _scheduler(value: Any) -> Any:
    if value in ("one_cycle", "rex"):
        raise ValueError(f"{value!r} is Axolotl's own; see trainer.lr_scheduler_type for transformers' schedules")
    return value


def _cut(value: Any) -> str:
    ours = {"drop": "drop", "truncate": "keep_start"}
    if value not in ours:
        raise ValueError("no setting stops at a pair that is too long; drop leaves it out and says how many")
    return ours[value]


def _checkpointing(value: Any) -> bool:
    return True if isinstance(value, str) and value.startswith("offload") else bool(truth(value))


def _same(*names: str) -> Table:
    return {name: renamed(f"trainer.{name}") for name in names}


_MODEL: Table = {
    "base_model": renamed("model.path"),
    "model_revision": renamed("model.revision"),
    "revision_of_model": renamed("model.revision"),
    "trust_remote_code": renamed("model.trust_remote_code", value=truth),
    "attn_implementation": renamed("model.attn_implementation"),
    "flash_attention": renamed(
        "model.attn_implementation",
        "true is flash_attention_2",
        value=attention("flash_attention_2"),
        harmless=(False,),
    ),
    "sdp_attention": renamed("model.attn_implementation", "true is sdpa", value=attention("sdpa"), harmless=(False,)),
    "eager_attention": renamed(
        "model.attn_implementation", "true is eager", value=attention("eager"), harmless=(False,)
    ),
    "flex_attention": renamed(
        "model.attn_implementation", "true is flex_attention", value=attention("flex_attention"), harmless=(False,)
    ),
    "base_model_config": dropped("the model's configuration is the one beside its weights"),
    "model_type": dropped("the model's own configuration says its class"),
    "type_of_model": dropped("the model's own configuration says its class"),
    **dict.fromkeys(
        ("is_llama_derived_model", "is_mistral_derived_model", "is_qwen_derived_model", "is_falcon_derived_model"),
        dropped("the model's own configuration says its class"),
    ),
    **dict.fromkeys(
        ("tokenizer_config", "tokens", "added_tokens_overrides", "eot_tokens", "resize_token_embeddings_to_32x"),
        missed(f"{_TOKENIZER}; save it as you want it", [], False),
    ),
    **dict.fromkeys(
        ("tokenizer_type", "tokenizer_use_fast", "tokenizer_legacy", "tokenizer_save_jinja_files", "processor_type"),
        dropped(_TOKENIZER),
    ),
    "special_tokens": grouped("", f"{_TOKENIZER}; padding is masked by length, so any pad token will do", trains=True),
    "chat_template": missed(
        "the chat template is the tokenizer's own; save it with the tokenizer", "tokenizer_default"
    ),
    "chat_template_jinja": missed("the chat template is the tokenizer's own; save it with the tokenizer"),
    "chat_template_kwargs": missed("a column chat_template_kwargs of the rows reaches the chat template", {}),
    "default_system_message": missed("messages go through the chat template as they are"),
    "model_config": missed("the model's configuration is the one beside its weights", {}),
    "overrides_of_model_config": missed("the model's configuration is the one beside its weights", {}),
    "model_kwargs": missed("see model in docs/recipes.md for what loading takes", {}),
    "use_onebitllms": missed("weights are not quantised while they train", False),
    "unfrozen_parameters": missed("every weight is trained, or adapters are", []),
}

_ADAPTERS: Table = {
    "adapter": grouped("model.lora", "a mapping trains adapters; leave it out to train every weight"),
    "lora_r": grouped("model.lora.r", _LORA),
    "lora_alpha": grouped("model.lora.lora_alpha", _LORA),
    "lora_dropout": grouped("model.lora.lora_dropout", _LORA),
    "lora_target_linear": grouped("model.lora.target_modules", "true is all-linear"),
    "lora_target_modules": grouped("model.lora.target_modules", _LORA),
    "peft_use_rslora": grouped("model.lora.lora_alpha", "multiply lora_alpha by the square root of r"),
    "peft_use_dora": missed("adapters are plain LoRA", False),
    "lora_modules_to_save": missed("whole layers cannot be trained beside adapters", []),
    "lora_target_parameters": missed("adapters go on layers by name, model.lora.target_modules", []),
    "lora_model_dir": missed("a folder with an adapter loads with the adapter merged in; give it as model.path"),
    "lora_fan_in_fan_out": dropped("peft knows the layers that need it"),
    "lora_on_cpu": dropped(_MEMORY),
    "load_in_8bit": missed(_QUANTISED, False),
    "load_in_4bit": missed(_QUANTISED, False),
    "bnb_config_kwargs": dropped("belongs to load_in_4bit"),
    "gptq": missed("weights are quantised when they are loaded, model.quantization; give the original ones", False),
    "merge_lora": dropped("the adapter is saved; peft merges it"),
    "loraplus_lr_ratio": missed("adapters have one learning rate"),
    "loraplus_lr_embedding": missed("adapters have one learning rate"),
    "relora": missed("adapters are plain LoRA", False),
    "peft": missed("model.lora has r, lora_alpha, lora_dropout and target_modules", {}),
}

_DATA: Table = {
    "datasets": grouped("data.train", "path, name (config), split and data_files; 'type' decides the columns"),
    "test_datasets": grouped("data.eval", "as datasets"),
    "val_set_size": grouped(
        "data.eval_fraction", "a share of the prompts by a hash of their text; a count of rows has no counterpart"
    ),
    "sequence_len": renamed("data.max_length"),
    "excess_length_strategy": renamed("data.truncation", "drop is drop, truncate is keep_start", value=_cut),
    "max_prompt_len": missed("data.max_length bounds prompt and completion together"),
    "min_sample_len": missed("no pair is too short"),
    "eval_sequence_len": missed("data.max_length bounds both"),
    "dataset_exact_deduplication": missed("rows that stand twice are trained on twice; remove them", False),
    "shuffle_merged_datasets": dropped("training goes over the pairs in random order"),
    "shuffle_before_merging_datasets": dropped("training goes over the pairs in random order"),
    **dict.fromkeys(
        (
            "dataset_prepared_path",
            "skip_prepare_dataset",
            "num_dataset_shards_to_save",
            "push_dataset_to_hub",
            "dataset_keep_in_memory",
        ),
        dropped(_CACHE),
    ),
    **dict.fromkeys(("dataset_processes", "dataset_num_proc"), dropped("the tokenizer uses all cores by itself")),
    "dataset_shard_num": missed("a source's weight takes a share of its rows"),
    "dataset_shard_idx": dropped("belongs to dataset_shard_num"),
    "streaming": dropped("rows are tokenised once, to disk, and never all in memory"),
    **dict.fromkeys(
        ("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "pad_to_multiple_of", "batch_flattening"),
        dropped(_MEMORY),
    ),
    "remove_unused_columns": dropped("the columns of a pair are all used"),
    "group_by_length": renamed(
        "trainer.train_sampling_strategy",
        "true is group_by_length",
        value=lambda value: "group_by_length" if truth(value) is True else "random",
    ),
    "train_on_inputs": missed("the loss is over completions, always", False),
}

_LOSS: Table = {
    "rl": grouped("objective.name", "dpo, ipo, kto, orpo or simpo"),
    "rl_beta": grouped("objective.beta", _STRENGTH),
    "dpo_beta": grouped("objective.beta", _STRENGTH),
    "orpo_alpha": grouped("objective.lam", "of orpo; rl_beta goes before it"),
    "trl": grouped("objective.beta", "beta of it"),
    "dpo_loss_type": grouped("objective.name", "a list; sigmoid is dpo, the others keep their names"),
    "dpo_loss_weights": grouped("objective", "weight of each objective of a list"),
    "dpo_label_smoothing": grouped(
        "objective.label_smoothing", "TRL 1.16 reads it for robust, exo_pair, aot and aot_unpaired only", harmless=(0,)
    ),
    "dpo_use_weighting": grouped("objective.name", "true is wpo, with bounded: false", harmless=(False,)),
    "dpo_norm_loss": grouped("objective.name", "true is sigmoid_norm", harmless=(False,), trains=True),
    "rpo_alpha": grouped(
        "objective", "a list with {name: sft, weight: ..., nll: batch_mean}", harmless=(0,), trains=True
    ),
    "cpo_alpha": grouped(
        "objective", "beside simpo a list with {name: sft, weight: ..., nll: batch_mean}; 1 if absent"
    ),
    "simpo_gamma": grouped("objective.gamma", "of simpo: the margin itself, there too"),
    "kto_desirable_weight": grouped("objective.desirable_weight", "of kto"),
    "kto_undesirable_weight": grouped("objective.undesirable_weight", "of kto"),
    "dpo_generate_during_eval": dropped("evaluation.generation compares samples of before and after training"),
    **dict.fromkeys(
        ("precompute_ref_log_probs", "dpo_use_liger_kernel", "dpo_padding_free", "dpo_use_logits_to_keep"),
        dropped(_MEMORY),
    ),
    "reward_model": missed("a policy is trained, no reward model", False),
    "neftune_noise_alpha": missed("noise in the policy alone would make it differ from the reference before training"),
    "noisy_embedding_alpha": missed("noise in the policy alone would make it differ from the reference"),
}

_TRAINING: Table = {
    "output_dir": renamed("output.dir"),
    "micro_batch_size": renamed("trainer.per_device_train_batch_size", "pairs, on each device"),
    "eval_batch_size": renamed("trainer.per_device_eval_batch_size"),
    "batch_size": missed("set trainer.per_device_train_batch_size and trainer.gradient_accumulation_steps"),
    "num_epochs": renamed("trainer.num_train_epochs"),
    "optimizer": renamed("trainer.optim"),
    "lr_scheduler": renamed("trainer.lr_scheduler_type", value=_scheduler),
    "warmup_ratio": renamed("trainer.warmup_steps", "a number below 1 is a share of the steps"),
    "cosine_min_lr_ratio": missed("lr_scheduler_type: cosine_with_min_lr and lr_scheduler_kwargs: {min_lr_rate: ...}"),
    "cosine_constant_lr_ratio": missed("see trainer.lr_scheduler_type for transformers' schedules"),
    "bf16": grouped("trainer.bf16", "auto is model.dtype: auto; true also loads the weights in bfloat16"),
    "bfloat16": grouped("trainer.bf16", "true also loads the weights in bfloat16"),
    "fp16": renamed("trainer.fp16", value=truth),
    "float16": renamed("trainer.fp16", value=truth),
    "float32": dropped("model.dtype names the type of the weights"),
    "gradient_checkpointing": renamed("trainer.gradient_checkpointing", value=_checkpointing),
    "evals_per_epoch": grouped("trainer.eval_steps", "a number below 1 is a share of the steps"),
    "saves_per_epoch": grouped("trainer.save_steps", "a number below 1 is a share of the steps"),
    "evaluation_strategy": renamed("trainer.eval_strategy"),
    "gc_steps": renamed("trainer.torch_empty_cache_steps"),
    "auto_find_batch_size": missed("it changes how many pairs make a step", False),
    "include_tokens_per_second": dropped("tokens a second are logged, always"),
    "include_tkps": dropped("tokens a second are logged, always"),
    "early_stopping_patience": missed("a callback from Python stops early"),
    "loss_watchdog_threshold": dropped("a NaN is shown in the metrics, and nothing stops the run"),
    "loss_watchdog_patience": dropped("belongs to loss_watchdog_threshold"),
    "auto_resume_from_checkpoints": dropped("a killed run continues by itself: give the same command again"),
    "resume_from_checkpoint": dropped("a killed run continues by itself: give the same command again"),
    "save_safetensors": dropped("weights are saved as safetensors, always"),
    "save_only_model": dropped("a killed run could not continue from it"),
    "hf_use_auth_token": dropped("log in with `hf auth login`"),
    "trainer_cls": missed("a trainer of your own subclasses PairTrainer, from Python"),
    "plugins": missed("there are no plugins", []),
    "strict": dropped("an unknown key is an error, always"),
    **_same(
        "gradient_accumulation_steps",
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "optim_args",
        "optim_target_modules",
        "lr_scheduler_kwargs",
        "max_steps",
        "warmup_steps",
        "logging_steps",
        "eval_steps",
        "eval_strategy",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "seed",
        "tf32",
        "gradient_checkpointing_kwargs",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataloader_drop_last",
        "accelerator_config",
        "ddp_timeout",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_find_unused_parameters",
        "hub_model_id",
        "hub_strategy",
        "hub_revision",
    ),
    **dict.fromkeys(
        (
            "deepspeed",
            "ddp",
            "world_size",
            "local_rank",
            "device",
            "device_map",
            "max_memory",
            "gpu_memory_limit",
            "low_cpu_mem_usage",
            "deepcompile",
            "dp_shard_size",
            "dp_replicate_size",
            "tensor_parallel_size",
            "context_parallel_size",
            "sequence_parallel_degree",
            "heads_k_stride",
            "ring_attn_func",
            "experimental_skip_move_to_device",
        ),
        dropped(_LAUNCHER),
    ),
    **dict.fromkeys(
        (
            "activation_offloading",
            "layer_offloading",
            "xformers_attention",
            "flash_optimum",
            "sage_attention",
            "tiled_mlp",
            "use_kernels",
            "chunked_cross_entropy",
            "fix_untrained_tokens",
        ),
        dropped(_MEMORY),
    ),
    "wandb_project": grouped("trainer.report_to", "[wandb], and the environment variable WANDB_PROJECT"),
    "wandb_name": grouped("trainer.run_name"),
    "use_wandb": grouped("trainer.report_to", "[wandb]"),
    "use_tensorboard": grouped("trainer.report_to", "[tensorboard]"),
    "use_mlflow": grouped("trainer.report_to", "[mlflow]"),
    "use_comet": grouped("trainer.report_to", "[comet_ml]"),
    "use_trackio": grouped("trainer.report_to", "[trackio]"),
    **dict.fromkeys(
        (
            "eval_causal_lm_metrics",
            "do_causal_lm_eval",
            "do_bench_eval",
            "bench_dataset",
            "eval_table_size",
            "eval_max_new_tokens",
            "s2_attention",
            "noise",
        ),
        dropped(_SFT),
    ),
}

TABLE: Table = _MODEL | _ADAPTERS | _DATA | _LOSS | _TRAINING
"""Every key of a recipe with ``rl`` that decides about the training, and many that do not."""

PREFIXES: dict[str, Answer] = {
    "wandb_": dropped(_REPORT),
    "mlflow_": dropped(_REPORT),
    "comet_": dropped(_REPORT),
    "trackio_": dropped(_REPORT),
    "swanlab_": dropped(_REPORT),
    "use_swanlab": dropped(_REPORT),
    "fsdp": dropped(_LAUNCHER),
    "vllm": dropped(_OTHER),
    "ebft": dropped(_OTHER),
    "flash_attn_": dropped(_MEMORY),
    "generat": dropped("evaluation.generation compares samples of before and after training"),
    "lora_mlp_kernel": dropped(_MEMORY),
    "lora_qkv_kernel": dropped(_MEMORY),
    "lora_o_kernel": dropped(_MEMORY),
    "lora_embedding_kernel": dropped(_MEMORY),
    "sample_packing_": dropped(_MEMORY),
    "use_scattermoe": dropped(_MEMORY),
    "use_sonicmoe": dropped(_MEMORY),
    "pretrain": dropped(_SFT),
    "peft_": missed("model.lora has r, lora_alpha, lora_dropout and target_modules"),
    "qgalore_": missed("see trainer.optim for transformers' optimisers"),
    "dion_": missed("see trainer.optim for transformers' optimisers"),
    "jagged_restart_": missed("see trainer.lr_scheduler_type for transformers' schedules"),
}
"""Answers to families of keys, by how their names begin."""

DEFAULTS: dict[str, Any] = {
    "data.max_length": 512,
    "data.truncation": "drop",
    "trainer.num_train_epochs": 1.0,
    "trainer.per_device_train_batch_size": 1,
    "trainer.optim": "adamw_torch_fused",
    "trainer.lr_scheduler_type": "cosine",
    "trainer.warmup_steps": 0.03,
    "trainer.save_strategy": "epoch",
    "trainer.save_total_limit": 4,
}
"""What Axolotl takes where a file is silent and align would take something else, or might one day."""

MARKUP: dict[str, dict[str, str]] = {
    "icr": {"prompt": "input"},
    "intel": {"prompt": "question"},
    "argilla": {"prompt": "instruction"},
}
"""Columns of the strategies ``chatml.*``, ``llama3.*`` and ``zephyr.*`` that are not called as ours are."""
