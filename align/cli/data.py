"""``align data check | preview | degrade | synth``: look at preference data, or make some."""

import argparse
from importlib import import_module

ACTIONS = {
    "check": "count the rows that cannot be used, and say why",
    "preview": "print rows decoded, as the model will see them",
    "degrade": "print versions of responses from which key content is removed",
    "synth": "sample completions, score them, pair best with worst",
}
"""Action: what it does. The file ``align/cli/data_<action>.py`` adds its arguments and runs it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help_text in ACTIONS.items():
        module = import_module(f"align.cli.data_{name}")
        module.add_arguments(actions.add_parser(name, help=help_text, description=module.DESCRIPTION))


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return int(import_module(f"align.cli.data_{arguments.action}").run(arguments))
