"""``align claims``: what it lists, and what it says of names it does not know."""

import json

import pytest

from align.cli.claims import claim_recipe, claimed
from align.cli.main import main
from align.wings.registry import modules


def said(capsys, *words):
    capsys.readouterr()
    code = main(["claims", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_list_has_every_method(capsys):
    code, out, _ = said(capsys, "ls", "--json")
    lines = json.loads(out)
    assert code == 0
    assert {line["name"] for line in lines} == set(modules())
    assert {"name", "wing", "paper", "verdict", "effect", "interval", "seeds", "seconds", "fresh", "same_code"} == set(
        lines[0]
    )
    code, out, _ = said(capsys, "ls")
    assert code == 0
    assert len(out.splitlines()) == len(lines) + 1


def test_a_claim_that_was_not_run(capsys, tmp_path):
    code, _, err = said(capsys, "show", "clip", "--out", str(tmp_path))
    assert code == 2
    assert "the claim 'clip' was not run: align claims run clip" in err
    _, out, _ = said(capsys, "ls", "--json", "--out", str(tmp_path))
    assert {line["verdict"] for line in json.loads(out)} == {"not run"}


def test_names(capsys):
    code, _, err = said(capsys, "show", "clipp")
    assert code == 2
    assert "no claim 'clipp'; did you mean 'clip'" in err
    assert claim_recipe("clip") == claimed()["contrastive/clip"]
    assert claim_recipe("contrastive/clip") == claimed()["contrastive/clip"]
    with pytest.raises(ValueError, match="no recipe"):
        claim_recipe("contrastive/none")


def test_run_and_show_print_the_same(capsys, tmp_path, monkeypatch):
    from align.wings import trials

    monkeypatch.setattr(trials, "on", lambda work: {"score": float(work.seed)})
    monkeypatch.setattr(trials, "load_data", lambda name, settings: None)
    file = tmp_path / "mine.yaml"
    file.write_text(
        "method: clip\ndata: mnist\nclaim: {says: s, seeds: [1, 2, 3], arms: {a: {}}, untuned: u, "
        "relations: [{figure: score, at_least: 0.5}]}\n"
    )
    code, ran, err = said(capsys, "run", str(file), "--out", str(tmp_path))
    assert code == 0
    assert "[3/3] a, seed 3" in err
    _, shown, _ = said(capsys, "show", str(file), "--out", str(tmp_path))
    assert shown == ran
    _, text, _ = said(capsys, "show", str(file), "--json", "--out", str(tmp_path))
    assert json.loads(text)["arms"] == {"a": {"score": [1.0, 2.0, 3.0]}}
