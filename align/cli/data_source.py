"""Arguments that every action has which reads rows: the source, and how the model would take them."""

import argparse
from typing import TYPE_CHECKING, Any

from align.recipe.schema import DataSettings, SourceSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def add_source_arguments(parser: argparse.ArgumentParser, *, model: str | None) -> None:
    """Add FILE, how it is read, and how long pairs may be; ``model`` is the tokenizer's default."""
    parser.add_argument("file", metavar="FILE", help="a data file, a folder saved by datasets, or a hub name")
    parser.add_argument("--split", default=None, help="named split of a folder or hub name")
    parser.add_argument("--config", default=None, help="named configuration of a hub name")
    parser.add_argument("--format", default="auto", choices=("auto", "preference", "hh"), help="form of the rows")
    parser.add_argument(
        "--columns", metavar="OURS=THEIRS", nargs="+", default=[], help="names of columns, such as prompt=question"
    )
    parser.add_argument(
        "--model",
        default=model,
        help="whose tokenizer and chat template are used" + (f" (default: {model})" * bool(model)),
    )
    parser.add_argument("--max-length", type=_length, default=1024, help="in tokens, or null (default: 1024)")
    parser.add_argument("--truncation", default="keep_start", choices=("keep_start", "keep_end", "drop"))
    parser.add_argument("--json", action="store_true", help="print JSON")


def source_of(arguments: argparse.Namespace) -> SourceSettings:
    """Return the source that was named.

    Raises:
        ValueError: if ``--columns`` is not OURS=THEIRS.
    """
    columns = {}
    for pair in arguments.columns:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise ValueError(f"--columns {pair}: write OURS=THEIRS, such as prompt=question")
        columns[ours] = theirs
    return SourceSettings(
        path=arguments.file,
        split=arguments.split,
        config=arguments.config,
        format=arguments.format,
        columns=columns,
    )


def lengths_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return ``max_length`` and ``truncation``, checked as in a recipe."""
    settings = DataSettings(
        train=[SourceSettings(path=arguments.file)], max_length=arguments.max_length, truncation=arguments.truncation
    )
    return {"max_length": settings.max_length, "truncation": settings.truncation}


def tokenizer_of(arguments: argparse.Namespace) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of ``--model``."""
    from align.models.load import Source, load_tokenizer
    from align.report.console import stage

    if arguments.json:  # nothing else belongs on the output then
        return load_tokenizer(Source(path=arguments.model))
    with stage(f"loading the tokenizer of {arguments.model}"):
        return load_tokenizer(Source(path=arguments.model))


def _length(text: str) -> int | None:
    return None if text == "null" else int(text)
