"""Sampling completions from a model, in batches, with progress and tokens per second."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from align.data.template import render_prompt
from align.recipe.schema import GenerationSettings, SynthSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How completions are sampled: the whole distribution at a temperature, or its nucleus."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64
    seed: int = 0

    @classmethod
    def of(cls, settings: SynthSettings | GenerationSettings) -> "Decoding":
        """Return how a recipe's section samples."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled completion.

    Attributes:
        prompt: the prompt as the user wrote it.
        text: the completion, special tokens left out.
        prompt_ids: what the model was given.
        ids: what it answered, its closing token included where it came to one.
        ended: whether it closed by itself before ``max_new_tokens``.
    """

    prompt: str
    text: str
    prompt_ids: list[int]
    ids: list[int]
    ended: bool


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    *,
    skip_batches: int = 0,
    label: str | None = "sampling",
) -> Iterator[list[Completion]]:
    """Sample one completion for each prompt, a batch at a time.

    The random numbers of a batch depend on the seed and the batch's number alone, so a sampling that was cut off
    goes on where it stopped (``skip_batches``) to the same completions.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; prompts become user turns of its chat template, or plain text without one.
        prompts: repeat a prompt to get several completions of it; ids are taken as they are.
        decoding: how to sample.
        skip_batches: leave out the first so many batches.
        label: what the progress bar says; None for no bar.
    """
    was_training = model.training
    model.eval()
    starts = range(skip_batches * decoding.batch_size, len(prompts), decoding.batch_size)
    there = min(skip_batches * decoding.batch_size, len(prompts)) * decoding.max_new_tokens
    total = len(prompts) * decoding.max_new_tokens
    bar = tqdm(total=total, initial=there, unit="tok", desc=label, leave=False, disable=label is None)
    try:
        for start in starts:
            batch = prompts[start : start + decoding.batch_size]
            with _seeded(decoding.seed, start // decoding.batch_size, model.device):
                yield _sample_batch(model, tokenizer, batch, decoding, tick=bar.update)
    finally:
        bar.close()
        model.train(was_training)


def _sample_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    *,
    tick: Callable[[int], Any],
) -> list[Completion]:
    tokens = [ids_of(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), tokenizer.pad_token_id, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(tokens):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=ids.device)
        mask[row, longest - len(prompt) :] = 1
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=0,
            max_new_tokens=decoding.max_new_tokens,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([_Tick(tick, len(tokens), decoding.max_new_tokens)]),
        )
    stops = _stop_ids(model, tokenizer)
    answers = [_up_to_stop(row, stops) for row in out[:, longest:].tolist()]
    return [
        Completion(
            prompt=prompt if isinstance(prompt, str) else str(tokenizer.decode(before)),
            text=str(tokenizer.decode(answer, skip_special_tokens=True)).strip(),
            prompt_ids=before,
            ids=answer,
            ended=answer[-1] in stops,
        )
        for prompt, before, answer in zip(prompts, tokens, answers, strict=True)
    ]


def ids_of(tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[int]) -> list[int]:
    """Return the ids that a model is given of a prompt."""
    return render_prompt(tokenizer, prompt) if isinstance(prompt, str) else list(prompt)


def _stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None}


def _up_to_stop(ids: list[int], stops: set[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


@contextmanager
def _seeded(seed: int, batch: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed * 1_000_003 + batch)
        yield


class _Tick(StoppingCriteria):
    """Moves the progress bar at every token; stops nothing."""

    def __init__(self, tick: Callable[[int], Any], rows: int, total: int) -> None:
        self.tick, self.rows, self.total, self.done = tick, rows, total, 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Tensor:
        self.done += 1
        self.tick(self.rows)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
