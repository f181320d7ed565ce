import argparse
import json
import subprocess
import sys

import pytest

from align.cli.logic import COMMANDS, add_arguments
from align.cli.main import main

CHEAP = [
    "show dpo",
    "table CPO",
    "compile cCPO",
    "check CPO entails cCPO",
    "landscape",
    "landscape --format dot",
    "count",
    "neighbours CPO",
    "meet ORPO CPO",
    "join ORPO CPO",
    "diff dpo cCPO-ref",
    "zoo",
]


def test_every_command_has_help_with_examples(capsys):
    for name, (_, purpose, examples) in COMMANDS.items():
        with pytest.raises(SystemExit) as stopped:
            main(["logic", name, "--help"])
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert purpose[1:20] in said
        for example in examples.splitlines():
            assert f"align logic {example}" in said
        assert "exit code: 0" in said


def test_the_commands_are_those_that_were_asked_for():
    wanted = "show table compile decompile check landscape count neighbours meet join diff doctor zoo"
    assert set(COMMANDS) == set(wanted.split())
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "exit code" in parser.epilog


@pytest.mark.parametrize("command", CHEAP)
def test_no_command_that_only_reads_imports_torch(command):
    code = (
        "import sys; from align.cli.main import main\n"
        f"code = main({['logic', *command.split()]!r})\n"
        "heavy = [m for m in ('torch', 'sympy', 'numpy', 'matplotlib', 'transformers') if m in sys.modules]\n"
        "sys.exit(3 if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [c for c in CHEAP if "--format" not in c])
def test_every_command_prints_json(command, capsys):
    assert main(["logic", *command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
