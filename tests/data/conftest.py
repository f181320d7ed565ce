"""Small real tokenizers, trained here: one that speaks ChatML, one like Llama's, and both without their templates."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

WORDS = ["Is the sky blue today? Yes, it is.", "What is the capital of France? Paris is.", "Human: hello Assistant: hi"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "<|head|>{{ m['role'] }}<|/head|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)


def train(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 5, trainer)
    return tokenizer


@pytest.fixture
def chatml() -> PreTrainedTokenizerFast:
    """Adds nothing by itself; its pad token is its EOS; turns close with another token than EOS."""
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train(special),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def llama() -> PreTrainedTokenizerFast:
    """Puts BOS in front by itself, and its template writes BOS as well."""
    backend = train(["<|bos|>", "<|eos|>", "<|eot|>", "<|head|>", "<|/head|>"])
    backend.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        extra_special_tokens=["<|eot|>", "<|head|>", "<|/head|>"],
    )
    tokenizer.chat_template = LLAMA
    return tokenizer


@pytest.fixture
def plain(chatml: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    chatml.chat_template = None
    return chatml


@pytest.fixture
def plain_llama(llama: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    llama.chat_template = None
    return llama


@pytest.fixture(autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("ALIGN_CACHE", str(root / "align"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "datasets")
    return root / "align"


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Any:
    def write(rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> str:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(file)

    return write
