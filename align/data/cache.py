"""Where prepared rows lie on disk, and under which key: everything that decides about an id, and nothing else."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
from transformers import PreTrainedTokenizerBase

VERSION = 3
"""Raised whenever the code makes other ids or other columns of the same data."""


def cache_root() -> Path:
    """Return the folder for things that can be made again: ``$ALIGN_CACHE``, else ``~/.cache/align``."""
    return Path(os.environ.get("ALIGN_CACHE") or Path.home() / ".cache" / "align").expanduser()


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of values that JSON can write, and of the version of this code; 64 hex digits."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_of(rows: datasets.Dataset) -> str:
    """Return 32 hex digits that are the same for data sets of the same columns and rows, wherever they lie."""
    digest = hashlib.blake2b(json.dumps(rows.features.to_dict(), sort_keys=True).encode(), digest_size=16)
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        for part in batch.combine_chunks().to_batches():
            digest.update(part.serialize())
    return digest.hexdigest()


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what decides about a tokenizer's ids: vocabulary and rules, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # What stands before the added tokens is the padding and truncation of the latest call, not the tokenizer.
        whole = backend.to_str()
        rules = whole[max(0, whole.find('"added_tokens"')) :]
    else:
        rules = json.dumps([type(tokenizer).__name__, tokenizer.name_or_path, sorted(tokenizer.get_vocab().items())])
    return {
        "rules": hashlib.sha256(rules.encode("utf-8", "surrogatepass")).hexdigest(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "all_special": tokenizer.all_special_tokens,
        "chat_template": tokenizer.chat_template,
    }


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Give a name to write to, which becomes ``file`` at the end of the block, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
