"""Sampled completions on disk, keyed by what decides them, written as they come and taken up where they stopped."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from align.data.cache import cache_root
from align.models.load import fingerprint
from align.sampling.generate import Completion, Decoding, ids_of, sample

VERSION = 1
"""Raised when the meaning of a cached file changes."""


def cached_samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    decoding: Decoding,
    *,
    label: str = "sampling",
    identity: str | None = None,
) -> list[Completion]:
    """Return one completion for each prompt, sampling only what an earlier call with the same inputs did not.

    The key is content: every weight and its type, the prompts' tokens, the decoding. Nothing else changes it.

    Args:
        model: as :func:`~align.sampling.generate.sample`.
        tokenizer: as there.
        prompts: as there.
        decoding: as there.
        label: as there.
        identity: the model's :func:`~align.models.load.fingerprint`, where it is known already.
    """
    asked = [ids_of(tokenizer, prompt) for prompt in prompts]
    key = _key(identity or fingerprint(model), asked, decoding)
    file = cache_root() / "samples" / f"{key}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # another run that wants the same samples waits, then reads them
        done = _read(file, asked)
        if len(done) == len(prompts):
            return done
        whole = len(done) // decoding.batch_size
        done = done[: whole * decoding.batch_size]
        _write(file, done, mode="w")
        for batch in sample(model, tokenizer, prompts, decoding, skip_batches=whole, label=label):
            _write(file, batch, mode="a")
            done.extend(batch)
    return done


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
