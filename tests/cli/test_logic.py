import argparse
import json
import subprocess
import sys

import pytest

from align.cli.logic import COMMANDS, add_arguments, print_json
from align.cli.main import main
from align.logic.circuit import log_ratio
from align.logic.parsing import parse
from align.logic.structure import Structure

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


def test_json_has_null_for_numbers_that_are_not_finite(capsys):
    print_json({"a": [1.5, float("inf")], "b": {"c": float("nan")}, "d": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None], "b": {"c": None}, "d": [True, None]}
    assert main(["logic", "check", "CPO", "entails", "false", "--json"]) == 1
    out = capsys.readouterr().out
    assert "Infinity" not in out
    assert json.loads(out)["witness"]["losses"][1] is None


@pytest.mark.parametrize("command", ["show", "decompile"])
def test_what_is_nested_too_deeply_is_a_mistake_of_the_one_who_asks(command, capsys):
    text = {"show": "M(w)", "decompile": "log(w)"}[command]
    assert main(["logic", command, "(" * 3000 + text + ")" * 3000]) == 2
    assert "nested too deeply" in capsys.readouterr().err


def structures(found):
    """What the formulas of a JSON answer say, wherever they stand in it, with the log-ratio beside them."""
    if isinstance(found, list):
        return [one for item in found for one in structures(item)]
    if not isinstance(found, dict):
        return []
    core = found.get("core") or found.get("region")
    own = []
    if core is not None:
        whole = Structure.of(*map(parse, (core, found["condition"], found["additive"])))
        own = [(whole.without_idle_atoms(), found["rho"])]
    return own + [one for item in found.values() for one in structures(item)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "dpo"], 2),
        (["show", "bco_pair"], 2),
        (["show", "M(l) & Safe(w) -> M(w)"], 1),
        (["decompile", "log(w*(1-l)/(l*(1-w)))"], 1),
        (["decompile", "apo_down"], 2),
        (["landscape"], 16),
        (["landscape", "--reference"], 16),
        (["meet", "ORPO", "CPO"], 1),
        (["compile", "cCPO", "--reference"], 1),
    ],
)
def test_formulas_of_json_read_back_as_what_they_are(words, expected, capsys):
    assert main(["logic", *words, "--json"]) == 0
    found = structures(json.loads(capsys.readouterr().out))
    assert len(found) == expected
    for structure, rho in found:
        assert log_ratio(structure) == rho
