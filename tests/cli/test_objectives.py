"""`align objectives`: what it prints, for people and for programs."""

import json

import pytest

from align.cli.main import main
from align.objectives.registry import OBJECTIVES


def test_the_list_names_every_objective(capsys):
    assert main(["objectives", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(OBJECTIVES)


def test_the_list_for_programs(capsys):
    assert main(["objectives", "ls", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert {"name", "needs", "data", "d_w", "d_l", "source"} <= known[0].keys()
    by_name = {entry["name"]: entry for entry in known}
    assert by_name["dpo"]["needs"] == ["reference"]
    assert by_name["simpo"]["needs"] == ["lengths"]
    assert {name: by_name[name]["data"] for name in ("dpo", "kto", "odpo", "npo", "sft")} == {
        "dpo": "pairs",
        "kto": "unpaired",
        "odpo": "scored pairs",
        "npo": "negatives",
        "sft": "positives",
    }


def test_a_page_says_what_users_ask(capsys):
    assert main(["objectives", "show", "sigmoid"]) == 0
    page = capsys.readouterr().out
    for text in ("dpo: Direct preference", "-log σ(β·Δ)", "beta = 0.1", "needs: reference", "arXiv:2305.18290", "d_w"):
        assert text in page


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_page_can_be_made(name, capsys):
    assert main(["objectives", "show", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["objectives", "show", name]) == 0
    page = capsys.readouterr().out
    for said in (found["title"], found["does"], found["source"], *found["limits"]):
        assert said in page
    for setting in found["settings"]:
        assert f"{setting['name']} = {setting['default']}" in page


def test_an_unknown_name_is_a_mistake_of_the_user(capsys):
    assert main(["objectives", "show", "smpo"]) == 2
    assert "did you mean 'simpo'?" in capsys.readouterr().err
