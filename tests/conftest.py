"""A small real model and tokenizer, made here, for everything that needs one."""

import json
import os

# Before anything imports a hub client: tests never reach for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # beside other tests, every process keeps to one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "the",
    "a",
    "good",
    "bad",
    "warm",
    "cold",
    "rain",
    "sun",
    "walk",
    "day",
    "night",
    "bread",
    "tea",
    "train",
    "late",
    "early",
    "happy",
    "sad",
    "quiet",
    "loud",
]


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "align-cache"))


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE of 400 tokens with a ChatML template; pad is eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([" ".join(WORDS)] * 10, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = CHATML
    return fast


def tiny_config(tokenizer, **changes):
    from transformers import LlamaConfig

    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        **changes,
    }
    return LlamaConfig(**settings)


@pytest.fixture
def model(tokenizer):
    """A two-layer Llama with random weights, larger than usual so that its log-probs differ from uniform."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(tokenizer, initializer_range=0.2))


@pytest.fixture(scope="session")
def model_dir(tokenizer, tmp_path_factory):
    """The same model and tokenizer, saved."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_config(tokenizer, initializer_range=0.2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pair_rows(n: int = 24) -> list[dict]:
    """Rows in which the chosen answer is warm and the rejected cold, of differing lengths."""
    rows = []
    for i in range(n):
        warm = " ".join(WORDS[(i + k) % len(WORDS)] for k in range(2 + i % 4)) + " good warm"
        cold = " ".join(WORDS[(2 * i + k) % len(WORDS)] for k in range(1 + i % 5)) + " bad cold"
        prompt = [{"role": "user", "content": f"the day {i}"}]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (warm, cold))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


@pytest.fixture
def pairs_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pair_rows()))
    return path


def arguments(folder, **changes):
    """Training arguments of a short run on the CPU."""
    from transformers import TrainingArguments

    settings = {
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
        **changes,
    }
    return TrainingArguments(str(folder), **settings)


def rows(n=24):
    """The rows of :func:`pair_rows` as a data set."""
    import datasets

    return datasets.Dataset.from_list(pair_rows(n))


def losses(trainer):
    """The losses a trainer logged."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
