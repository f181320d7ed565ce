"""Sampling completions from a model, in batches, with progress and tokens per second."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from align.data.template import render_prompt
from align.models.adapters import has_adapter
from align.recipe.schema import GenerationSettings, SynthSettings
from align.report.console import is_main


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


class Progress:
    """A bar over the tokens that may be drawn at most, and what was drawn; the first process alone shows one.

    Args:
        most: tokens if no completion ends before its limit.
        label: what the bar says; None for no bar.
        delay: seconds before it shows.

    Attributes:
        tokens: that were drawn.
        samples: that were drawn.
        seconds: that drawing took.
    """

    def __init__(self, most: int, label: str | None, *, delay: float = 0.0) -> None:
        hidden = label is None or not is_main()
        self.bar = tqdm(total=most, unit="tok", desc=label, leave=False, disable=hidden, delay=delay)
        self.tokens, self.samples = 0, 0
        self.seconds = 0.0

    def drew(self, tokens: int) -> None:
        """Count tokens of a step."""
        self.tokens += tokens
        self.bar.update(tokens)

    def leave_out(self, tokens: int, samples: int = 0) -> None:
        """Take from the whole what need not be drawn: the ends of short completions, or what is there already."""
        self.samples += samples
        if self.bar.total is not None:
            self.bar.total -= tokens  # shown with the next token: a refresh would show a bar before its delay

    @property
    def tokens_per_second(self) -> float:
        """Tokens drawn a second."""
        return self.tokens / max(self.seconds, 1e-9)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    *,
    skip_batches: int = 0,
    progress: Progress | None = None,
) -> Iterator[list[Completion]]:
    """Sample one completion for each prompt, a batch at a time.

    What is drawn from is the model's distribution at ``decoding``'s temperature, and of its nucleus: what a model's
    own generation settings would change of it (penalties, ``min_p``, forced tokens) is left out, but for its closing
    tokens. The random numbers of a batch depend on the seed and the batch's number alone, so a sampling that was cut
    off goes on where it stopped (``skip_batches``) to the same completions.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; prompts become user turns of its chat template, or plain text without one.
        prompts: repeat a prompt to get several completions of it; ids are taken as they are.
        decoding: how to sample.
        skip_batches: leave out the first so many batches.
        progress: counts what is drawn.
    """
    was_training = model.training
    model.eval()
    starts = range(skip_batches * decoding.batch_size, len(prompts), decoding.batch_size)
    counted = Progress(0, None) if progress is None else progress
    try:
        for start in starts:
            batch = prompts[start : start + decoding.batch_size]
            since = time.perf_counter()
            with _seeded(decoding.seed, start // decoding.batch_size, model.device):
                drawn = _sample_batch(model, tokenizer, batch, decoding, counted)
            counted.seconds += time.perf_counter() - since
            counted.leave_out(sum(decoding.max_new_tokens - len(each.ids) for each in drawn), len(drawn))
            yield drawn
    finally:
        model.train(was_training)


def _sample_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    progress: Progress,
) -> list[Completion]:
    tokens = [ids_of(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), tokenizer.pad_token_id, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(tokens):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=ids.device)
        mask[row, longest - len(prompt) :] = 1
    stops = stop_ids(model, tokenizer)
    asked = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=0,
        max_new_tokens=decoding.max_new_tokens,
        use_cache=True,
        eos_token_id=sorted(stops),
        pad_token_id=tokenizer.pad_token_id,
    )
    ticks = StoppingCriteriaList([_Tick(progress, stops)])
    # Not inference_mode: under autocast every weight would be cast again at every token.
    with torch.no_grad(), _settings_of_its_own(model, asked):
        out = model.generate(input_ids=ids, attention_mask=mask, stopping_criteria=ticks)
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


@contextmanager
def _settings_of_its_own(model: Any, asked: GenerationConfig) -> Iterator[None]:
    """Let a model generate as is asked: ``generate`` fills in what a model's own settings say beside it."""
    inner = model.get_base_model() if has_adapter(model) else model
    holders = [each for each in dict.fromkeys((model, inner)) if "generation_config" in vars(each)]
    before = [each.generation_config for each in holders]
    try:
        for each in holders:
            each.generation_config = asked
        yield
    finally:
        for each, found in zip(holders, before, strict=True):
            each.generation_config = found


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that close a completion: the tokenizer's, and those that the model's settings name."""
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
        torch.manual_seed((seed * 1_000_003 + batch) % 2**64)
        yield


class _Tick(StoppingCriteria):
    """Counts the tokens of completions that have not ended; stops nothing."""

    def __init__(self, progress: Progress, stops: Collection[int]) -> None:
        self.progress, self.stops = progress, sorted(stops)
        self.open: Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Tensor:
        last = input_ids[:, -1]
        self.open = torch.ones_like(last, dtype=torch.bool) if self.open is None else self.open
        self.progress.drew(int(self.open.sum()))
        self.open &= ~torch.isin(last, torch.tensor(self.stops, device=last.device))
        return torch.zeros_like(self.open)
