"""Lists of prompts: those that come with the package, or a user's file with a prompt a line."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout", "all"]

HELDOUT_PERCENT = 30


def load_prompts(name: str, split: Split = "all", limit: int | None = None) -> list[str]:
    """Return the prompts of one part of a list, in the list's order.

    The part a prompt belongs to follows from a hash of its text, so adding prompts moves none.

    Args:
        name: ``sentiment``, or a text file with a prompt a line; empty lines and repeats are left out.
        split: ``train`` (about 70 %), ``heldout`` (the rest) or ``all``.
        limit: return at most so many.

    Raises:
        ValueError: if there is no such list or file, or the part is empty.
    """
    lines = dict.fromkeys(line.strip() for line in _text(name).splitlines())
    prompts = [line for line in lines if line and (split == "all" or split_of(line) == split)][:limit]
    if not prompts:
        raise ValueError(f"prompts {name!r} has no prompt in its part {split!r}")
    return prompts


def split_of(prompt: str) -> Literal["train", "heldout"]:
    """Return the part of its list that a prompt belongs to."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") % 100 < HELDOUT_PERCENT else "train"


def _text(name: str) -> str:
    shipped = files("align.sampling").joinpath("lists", f"{name}.txt")
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    file = Path(name).expanduser()
    if not file.is_file():
        lists = sorted(p.name.removesuffix(".txt") for p in files("align.sampling").joinpath("lists").iterdir())
        raise ValueError(f"no list of prompts and no file {name!r}; lists that come with align: {', '.join(lists)}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: byte {error.start}") from error
