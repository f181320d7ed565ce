"""``align COMMAND``: finds the command's file and turns users' mistakes into one line and exit code 2."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from align import __version__

COMMANDS = {
    "train": "train a model by a recipe",
    "validate": "check a recipe without training",
    "recipes": "list, show or copy the recipes that come with align",
    "data": "make preference pairs with a model",
    "plot": "draw the curves of a run",
}
"""Command: what ``align --help`` says of it. The file ``align/cli/<command>.py`` adds its arguments and runs it."""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; of the commands, only ``command`` has its arguments filled in."""
    top = argparse.ArgumentParser(
        prog="align",
        description="Train language models on preferences, and know what the loss means and what it will do.",
    )
    top.add_argument("--version", action="version", version=f"align {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        sub = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name == command:
            module = import_module(f"align.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return top


def parsed(top: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse words; overrides may stand before, between and after options, where argparse alone loses the later ones."""
    arguments, rest = top.parse_known_args(words)
    if rest and (not hasattr(arguments, "overrides") or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for a user's mistake, 1 for anything else, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    arguments = parsed(parser(command), words)
    try:
        return int(arguments.run(arguments))
    except ValueError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if arguments.debug:
            raise
        print(f"error: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
