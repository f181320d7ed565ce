"""``align COMMAND``: finds the command's file and turns users' mistakes into one line and exit code 2."""

import argparse
import contextlib
import errno
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from align import __version__

COMMANDS = {
    "train": "train a model by a recipe",
    "validate": "say what a run would be: data, steps, memory, time",
    "bench": "train a recipe for a few steps, and say how fast it is and where the time goes",
    "precompute": "keep the reference's log-probabilities of a recipe's rows, for runs to come",
    "recipes": "list, show or copy recipes, or bring one over from TRL, alignment-handbook or Axolotl",
    "objectives": "list the losses, or show what one of them is, needs, pulls at and becomes",
    "logic": "say what losses mean, compare them, and make losses of formulas",
    "claims": "list, run or show what is claimed of the wings' methods, and what came out",
    "probe": "say what a model's representations are like",
    "entangle": "measure how chosen and rejected gradients are entangled, pair by pair",
    "data": "check, preview or make preference pairs",
    "plot": "draw the curves of a run",
    "env": "print what a report of a fault needs to say about the machine",
    "report": "show a run, or several beside each other, on one page",
}
"""Command: what ``align --help`` says of it. The file ``align/cli/<command>.py`` adds its arguments and runs it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


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
    """Run a command and return its exit code.

    0; 2 for a user's mistake; 1 for anything else; 130 when interrupted; 141 when the reader of a pipe has gone. A
    traceback is shown with ``--debug`` only.
    """
    words = [_as_text(word) for word in (sys.argv[1:] if argv is None else argv)]
    command = next((word for word in words if word in COMMANDS), None)
    _print_anything()
    try:
        arguments = parsed(parser(command), words)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _complain("interrupted" + ("; the same command continues from the last checkpoint" * (command == "train")))
        return 130
    except Exception as error:
        if _reader_has_gone(error):
            return 141
        if "--debug" in words:
            raise
        code, text = explained(error)
        _complain(f"error: {text}")
        return code


def ended(code: int) -> int:
    """Close this process's connections to those it was launched with, its work done, and return its exit code.

    Behind a failure they are left alone: closing could wait for a process that waits for this one.
    """
    if code == 0 and "align.trainers.engine" in sys.modules:
        import_module("align.trainers.engine").leave_group()
    return code


def _as_text(word: str) -> str:
    """Return a word that begins with a minus and is no option, such as ``-log(w)``, so that argparse sees that."""
    return f" {word}" if re.match(r"-[^-]*\(", word) and not word.startswith("--") else word


def explained(error: Exception) -> tuple[int, str]:
    """Return the exit code and the text for an error.

    Examples:
        >>> explained(ValueError("r.yaml:3: no"))
        (2, 'r.yaml:3: no')
        >>> explained(PermissionError(13, "Permission denied", "runs"))
        (2, 'runs: permission denied')
    """
    if isinstance(error, ValueError):
        return 2, str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}no space is left on the disk; free some, then give the same command again"
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes | os.PathLike) and error.strerror:
        return 2, f"{os.fsdecode(error.filename)}: {error.strerror[0].lower()}{error.strerror[1:]}"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "align":
        package = error.name.partition(".")[0]
        return 1, f"the package {package!r} is missing or broken: {error} (--debug shows where)"
    return 1, f"{type(error).__name__}: {error} (--debug shows where)"


def _complain(text: str) -> None:
    """Print to stderr; of several processes each says which it is."""
    rank = os.environ.get("RANK", "0")
    prefix = f"[process {rank}] " if rank != "0" else ""
    with contextlib.suppress(OSError):  # nobody reads it
        print(prefix + text, file=sys.stderr)


def _print_anything() -> None:
    """Let terminals that know few characters show the others as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _reader_has_gone(error: Exception) -> bool:
    """Whether an error is that stdout has no reader any more, as after ``align ... | head``.

    Where printing failed for whatever reason, nothing more is printed: Python would try again as it ends.
    """
    if not isinstance(error, OSError):
        return False
    try:
        descriptor = sys.stdout.fileno()
        sys.stdout.flush()
        broken = isinstance(error, BrokenPipeError) and _has_no_reader(descriptor)
    except OSError:
        broken = isinstance(error, BrokenPipeError)
    if broken or error.errno in _FULL:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return broken


def _has_no_reader(descriptor: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
