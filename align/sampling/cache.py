"""Sampled completions on disk, keyed by what decides them, written as they come and taken up where they stopped."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from align.data.cache import cache_root
from align.models.identity import identity_of
from align.sampling.generate import Completion, Decoding, Progress, ids_of, sample, stop_ids

VERSION = 3
"""Raised when the meaning of a cached file changes."""


def cached_samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    *,
    label: str = "sampling",
    identity: str | None = None,
    progress: Progress | None = None,
) -> list[Completion]:
    """Return one completion for each prompt, sampling only what an earlier call with the same inputs did not.

    The key is content: the model, weights, types, configuration and adapters, the type of autocast, the prompts'
    tokens, the decoding, the tokens that close a completion. Nothing else changes what is drawn.

    Args:
        model: as :func:`~align.sampling.generate.sample`.
        tokenizer: as there.
        prompts: as there.
        decoding: as there.
        label: what the progress bar says.
        identity: the model's :func:`~align.models.identity.identity_of`, where it is known already.
        progress: of a larger whole, in place of a bar of its own.
    """
    asked = [ids_of(tokenizer, prompt) for prompt in prompts]
    stops = sorted(stop_ids(model, tokenizer))
    key = _key(f"{identity or identity_of(model, adapters=None)} {stops} {_autocast(model)}", asked, decoding)
    file = cache_root() / "samples" / f"{key}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # another run that wants the same samples waits, then reads them
        done = _read(file, asked)
        if len(done) < len(prompts):
            done = done[: len(done) // decoding.batch_size * decoding.batch_size]
        if progress is not None:
            progress.leave_out(len(done) * decoding.max_new_tokens)
        if len(done) == len(prompts):
            return done
        _write(file, done, mode="w")
        left = (len(prompts) - len(done)) * decoding.max_new_tokens
        with nullcontext(progress) if progress is not None else Progress(left, label) as counted:
            skipped = len(done) // decoding.batch_size
            for batch in sample(model, tokenizer, prompts, decoding, skip_batches=skipped, progress=counted):
                _write(file, batch, mode="a")
                done.extend(batch)
    return done


def _autocast(model: Any) -> str:
    kind = model.device.type
    return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""


def _key(identity: str, prompts: Sequence[list[int]], decoding: Decoding) -> str:
    digest = hashlib.sha256(f"{VERSION} {identity} {sorted(asdict(decoding).items())}".encode())
    for prompt in prompts:
        digest.update(f"{prompt}\n".encode())
    return digest.hexdigest()[:16]


def _read(file: Path, prompts: Sequence[list[int]]) -> list[Completion]:
    """Return the completions that answer the prompts, in order, up to the first line that does not."""
    if not file.is_file():
        return []
    completions: list[Completion] = []
    for line, prompt in zip(file.read_bytes().split(b"\n"), prompts, strict=False):
        try:
            completion = Completion(**json.loads(line))
        except (ValueError, TypeError):
            break  # the line a killed run was writing
        if completion.prompt_ids != prompt:
            break
        completions.append(completion)
    return completions


def _write(file: Path, completions: Sequence[Completion], *, mode: str) -> None:
    with file.open(mode, encoding="utf-8") as out:
        out.writelines(json.dumps(asdict(c)) + "\n" for c in completions)
