import json

import pytest

from align.cli.main import main


def run(capsys, *words):
    code = main(["logic", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_show_says_what_dpo_means(capsys):
    code, out, _ = run(capsys, "show", "dpo")
    assert code == 0
    assert "whenever the model deems the loser valid and the reference deems the winner valid" in out
    assert "M(l) ∧ Ref(w) → M(w) ∧ Ref(l)" in out
    assert "log [ (w·rl) / (l·rw) ]" in out
    assert "scale (beta): 0.1" in out
    assert "looser        cCPO with reference; l14 with reference" in out


def test_show_as_json_has_what_scripts_need(capsys):
    _, out, _ = run(capsys, "show", "dpo", "--json")
    found = json.loads(out)
    wanted = "name core condition additive rho link marks column_class neighbours"
    assert set(wanted.split()) <= set(found)
    assert found["marks"][0]["mark"] in ("win", "lose", "both", "neither")
    assert all(isinstance(value, bool) for value in found["marks"][0]["row"].values())
    _, out, _ = run(capsys, "show", "M(l) -> M(w)", "--condition", "M(w) | M(l)", "--additive", "M(w) & M(l)", "--json")
    found = json.loads(out)
    assert set(wanted.split()) <= set(found)
    assert (found["landscape"], found["rho"], found["column_class"]) == ("CPO", "log [ w / l ]", "neither")
    assert [entry["mark"] for entry in found["marks"]] == ["both", "win", "lose", "neither"]
    near = {name: set(losses) for name, losses in found["neighbours"].items()}
    assert near == {"tighter": {"sCE", "cUnl"}, "looser": {"cCPO", "l14"}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cCPO"], "only the ratio of the two counts"),
        (["bco_pair"], "It is a sum of 2 structures."),
        (["simper"], "It has no structure: the score is no log-ratio"),
        (["dpop"], "It is one of 2 structures."),
        (["M(l) -> M(w)"], "the same as unCPO of the landscape"),
        (["M(l) -> M(w)", "--condition", "M(w) | M(l)"], "the same as cCPO of the landscape"),
        (["chain(3)"], "a ranking of responses"),
        (["chain(8)"], "256 rows, not listed"),
        (["chain(5)"], "the best first"),
        (["M(w) & Ref(w) & Ref(l) & Ref2(w) & M(l)"], "rows that do not count are left out"),
        (["true"], "undefined: nothing counts against the winner"),
        (["ipo"], "not decreasing"),
    ],
)
def test_show_of_other_kinds(words, said, capsys):
    if words[0].startswith("M(w) & Ref"):
        words = [words[0], "--condition", "M(w)"]
    code, out, _ = run(capsys, "show", *words)
    assert code == 0
    assert said in out


def test_table_has_masses_ratio_and_slopes(capsys):
    code, out, _ = run(capsys, "table", "ORPO", "--at", "w=0.3,l=0.2")
    assert code == 0
    assert "w(1−l)      0.24" in out
    assert "ρ = log(✓/✗) = 0.538997" in out
    assert "∂ρ/∂log M(w) = 1.42857" in out
    _, out, _ = run(capsys, "table", "ORPO", "--at", "M(w)=0.3,M(l)=0.2", "--json")
    found = json.loads(out)
    assert found["totals"] == pytest.approx({"win": 0.24, "lose": 0.14})
    _, out, _ = run(capsys, "table", "M(w) & Const(0.5)", "--at", "w=0.5")
    assert "0.25" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "nope"], "no loss 'nope'"),
        (["show", "M(l) ->"], "^"),
        (["show", "dpo", "--condition", "M(w)"], "is a name"),
        (["table", "bco_pair"], "2 structures, not one"),
        (["table", "chain(12)"], "12 atoms"),
        (["table", "CPO", "--at", "w=2,l=0.1"], "between 0 and 1"),
        (["table", "CPO", "--at", "w=0.2"], "no probability of M(l)"),
        (["table", "CPO", "--at", "ref_w=0.2"], "its atoms are M(w), M(l)"),
        (["table", "CPO", "--at", "0.2"], "gives no probability of an atom"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, said, capsys):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
