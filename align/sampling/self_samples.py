"""Responses of a model to prompts that are token ids already, several each, for training against negatives.

Instructions may stand before the prompts while the model is sampled; training never sees them. Samples are cached by
content in parts, written as they come; processes that train together begin with different parts and read each other's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from align.data.special import own_bos
from align.data.template import has_template
from align.models.identity import identity_of
from align.recipe.d2o import D2oSettings
from align.report.console import say
from align.sampling.cache import cached_samples
from align.sampling.generate import Decoding, Progress

PART = 8
"""Batches in a part."""


def self_samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: D2oSettings,
    *,
    share: tuple[int, int] = (0, 1),
    label: str = "sampling",
    bar: bool = True,
    max_length: int | None = None,
) -> list[list[list[int]]]:
    """Return the ids of ``settings.samples`` responses to each prompt, closing token included where one came.

    Args:
        model: a causal language model, on its device.
        tokenizer: its tokenizer.
        prompts: ids of each, as training sees them.
        settings: how to sample.
        share: number of this process and of all: who begins where.
        label: what the progress bar says, and what is said once all are there.
        bar: whether there is a progress bar.
        max_length: longest prompt + sample that training sees, in tokens; how many are longer is said.

    Raises:
        ValueError: if the instructions are not there, the chat template takes none, or the model has fewer positions
            than a prompt, its instruction and a sample need.
    """
    asked = with_instructions(tokenizer, prompts, settings)
    refuse_beyond_positions(model.config, asked, settings)
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i]), i))  # prompts of a batch are of like lengths
    size = settings.batch_size * PART
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    identity, found = identity_of(model, adapters=None), dict[int, list[int]]()
    mine, of = share
    ended = 0
    with Progress(len(asked) * settings.max_new_tokens, f"{label}, samples" if bar else None) as progress:
        for number in sorted(range(len(parts)), key=lambda number: (number % of != mine, number)):
            prompts_of_part = [asked[i] for i in parts[number]]
            decoding = decoding_of(settings, number)
            completions = cached_samples(
                model, tokenizer, prompts_of_part, decoding, identity=identity, progress=progress
            )
            found |= {i: completion.ids for i, completion in zip(parts[number], completions, strict=True)}
            ended += sum(completion.ended for completion in completions)
    count = settings.samples
    longer = sum(len(prompts[i // count]) + len(ids) > (max_length or math.inf) for i, ids in found.items())
    beyond = f"; {longer:,} lose their ends beyond {max_length} tokens with their prompt" if longer else ""
    say(_told(label, len(asked), ended, progress, settings) + beyond)
    return [[found[row * count + number] for number in range(count)] for row in range(len(prompts))]


def _told(label: str, count: int, ended: int, progress: Progress, settings: D2oSettings) -> str:
    """Return a line on what was drawn by this process, and on how samples end."""
    drawn = "all found in the cache"
    if progress.samples:
        drawn = f"{progress.samples:,} drawn here, {progress.tokens_per_second:,.0f} tokens a second"
    cut = ", the others are cut" if ended < count else ""
    share = f"{ended / max(count, 1):.0%} ended within {settings.max_new_tokens} tokens{cut}"
    return f"{label}: {count:,} samples of the model itself ({drawn}); {share}"


def refuse_beyond_positions(config: Any, asked: Sequence[Sequence[int]], settings: D2oSettings) -> None:
    """Refuse prompts behind which a whole sample has no place.

    Raises:
        ValueError: with the longest, and what can be done.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, asked), default=0)
    if positions is not None and longest + settings.max_new_tokens > positions:
        instruction = "" if settings.instructions is None else " with its instruction"
        raise ValueError(
            f"d2o.max_new_tokens: the longest prompt has {longest} tokens{instruction}, and {settings.max_new_tokens} "
            f"more are beyond the model's {positions} positions; lower d2o.max_new_tokens or data.max_length"
            + ("" if settings.instructions is None else ", or set d2o.instructions=null")
        )


def check_room(config: Any, tokenizer: PreTrainedTokenizerBase, longest: Sequence[int], settings: D2oSettings) -> int:
    """Refuse a prompt behind which a sample has no place in the model's positions.

    Args:
        config: of the model.
        tokenizer: of the model.
        longest: ids of the longest prompt.
        settings: how to sample.

    Returns:
        Its tokens with the longest instruction.

    Raises:
        ValueError: as :func:`refuse_beyond_positions`.
    """
    under_each = math.ceil(max(1, len(load_instructions(settings.instructions))) / settings.samples)
    asked = with_instructions(tokenizer, [longest] * under_each, settings)
    refuse_beyond_positions(config, asked, settings)
    return max(map(len, asked))


def with_instructions(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], settings: D2oSettings, *, first: int = 0
) -> list[list[int]]:
    """Return what the model is given for each sample of each prompt: instructions come one after the other.

    They go on from one prompt to the next, so that all are used however few samples a prompt has; ``first`` is the
    number of the first prompt.

    Where a chat template begins every conversation with a system turn of its own, the instruction stands in its place.

    Raises:
        ValueError: if the instructions are not there, or the chat template takes none.
    """
    before = instruction_ids(tokenizer, settings.instructions)
    begins = openings(tokenizer, load_instructions(settings.instructions))
    found = []
    for row, prompt in enumerate(prompts, first):
        head = _head(prompt, tokenizer)
        for number in range(row * settings.samples, (row + 1) * settings.samples):
            usual, instructed = begins[number % len(begins)]
            if usual and list(prompt[: len(usual)]) == usual:
                found.append([*instructed, *prompt[len(usual) :]])
            else:
                found.append([*head, *before[number % len(before)], *prompt[len(head) :]])
    return found


def openings(tokenizer: PreTrainedTokenizerBase, lines: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Return, for each instruction, what a chat template puts before a user's turn without and with it; ids.

    Both end where the rest of the conversation is the same.
    """
    if not has_template(tokenizer) or not lines:
        return [([], [])]
    user: Any = {"role": "user", "content": "a"}

    def ids(turns: Any) -> list[int]:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    plain, found = ids([user]), []
    for line in lines:
        other, shared = ids([{"role": "system", "content": line}, user]), 0
        while shared < min(len(plain), len(other)) and plain[-1 - shared] == other[-1 - shared]:
            shared += 1
        found.append((plain[: len(plain) - shared], other[: len(other) - shared]))
    return found


def decoding_of(settings: D2oSettings, number: int) -> Decoding:
    """Return how samples are drawn, with random numbers of their own for each number."""
    plain = Decoding(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        batch_size=settings.batch_size,
    )
    return replace(plain, seed=settings.seed * 1_000_003 + number)


def load_instructions(name: str | None) -> list[str]:
    """Return a list of instructions: one that comes with the package, or a file with one a line; [] for None.

    Raises:
        ValueError: if there is none, or it is empty.
    """
    if name is None:
        return []
    shipped = files("align.sampling").joinpath("instructions", f"{name}.txt")
    if not shipped.is_file() and not Path(name).expanduser().is_file():
        raise ValueError(f"d2o.instructions: no list and no file {name!r}; the list that comes with align: moral")
    text = (shipped if shipped.is_file() else Path(name).expanduser()).read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"d2o.instructions: {name} has no line")
    return lines


def instruction_ids(tokenizer: PreTrainedTokenizerBase, name: str | None) -> list[list[int]]:
    """Return the ids that stand before a prompt for each instruction: a system turn, or plain text without a template.

    Raises:
        ValueError: if the chat template takes no system turn.
    """
    lines = load_instructions(name)
    if not has_template(tokenizer):
        texts = [f"{line}\n\n" for line in lines]
    else:
        try:
            turns: Any = [[{"role": "system", "content": line}] for line in lines]
            texts = [str(tokenizer.apply_chat_template(turn, tokenize=False)) for turn in turns]
        except Exception as error:
            raise ValueError(
                f"d2o.instructions: the chat template takes no system turn ({error}); set d2o.instructions=null"
            ) from error
    for line, text in zip(lines, texts, strict=True):
        if line not in text:
            raise ValueError(
                "d2o.instructions: the chat template leaves out a system turn that no user's turn follows; set "
                "d2o.instructions=null"
            )
    if own_bos(tokenizer) is not None:
        texts = [text.removeprefix(str(tokenizer.bos_token)) for text in texts]
    return [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts] or [[]]


def _head(prompt: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
    """Return the token that the tokenizer puts in front of everything, where it does and it is there."""
    return prompt[:1] if prompt[0] == own_bos(tokenizer) else []
