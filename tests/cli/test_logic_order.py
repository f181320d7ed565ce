import json
import math

import pytest

from align.cli.main import main


def run(capsys, *words):
    code = main(["logic", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["CPO", "entails", "cCPO"], 0, "nowhere the smaller one"),
        (["cCPO", "entails", "CPO"], 1, "marked ✓ and ✓✗"),
        (["ORPO", "entails", "CPO", "--functional"], 1, "in the other order"),
        (["CPO", "entails", "cCPO", "--functional"], 0, "at all probabilities"),
        (["dpo", "equals", "hinge"], 0, "their links differ: logistic and hinge"),
        (["dpo", "equals", "cpo"], 1, "does not equal"),
        (["ipo", "entails", "cCPO-ref"], 0, "warning: the order of losses does not follow"),
        (["M(w) & ~M(l)", "entails", "M(w)"], 0, "entails"),
        (["dpo", "entails", "bco_pair"], 2, ""),
        (["true", "equals", "CPO", "--functional"], 2, ""),
    ],
)
def test_check_answers_with_its_exit_code(words, code, said, capsys):
    found, out, _ = run(capsys, "check", *words)
    assert found == code
    assert said in out


def test_check_as_json_has_a_witness(capsys):
    code, out, _ = run(capsys, "check", "cCPO", "entails", "CPO", "--json")
    found = json.loads(out)
    assert (code, found["holds"]) == (1, False)
    assert found["witness"]["row"] == {"M(w)": True, "M(l)": True}
    assert found["witness"]["losses"][0] < found["witness"]["losses"][1]
    assert (found["one"], found["relation"], found["other"], found["mode"]) == ("cCPO", "entails", "CPO", "logical")
    _, out, _ = run(capsys, "check", "CPO", "entails", "cCPO", "--json")
    found = json.loads(out)
    assert (found["holds"], found["witness"], found["warning"]) == (True, None, None)
    code, out, _ = run(capsys, "check", "ORPO", "entails", "CPO", "--functional", "--json")
    found = json.loads(out)
    assert (code, found["holds"], found["mode"], found["witness"]["row"]) == (1, False, "functional", None)
    w, l = (found["witness"]["probabilities"][name] for name in ("M(w)", "M(l)"))  # noqa: E741
    orpo, cpo = math.log(w * (1 - l) / (l * (1 - w))), math.log(w / l)
    assert orpo > cpo
    assert found["witness"]["losses"] == pytest.approx([math.log1p(math.exp(-rho)) for rho in (orpo, cpo)])


def test_count_prints_the_numbers_of_the_paper(capsys):
    code, out, _ = run(capsys, "count")
    assert code == 0
    for number in ("256", "225", "210", "187", "52", "40", "34", "16", "81", "4,294,967,296", "268,435,456"):
        assert number in out.split()
    _, out, _ = run(capsys, "count", "--json")
    found = json.loads(out)
    assert (found["structures"], found["satisfiable"], found["distinct_sides"]) == (256, 225, 210)
    assert (found["distinct_functions"], found["monotone_pairs"], found["usual"]) == (187, 52, 16)
    assert (found["monotone_functions"], found["strictly_monotone"], found["with_decisive_rows"]) == (40, 34, 16)
    assert (found["atoms"], found["rows"], found["of_one_core"]) == (2, 4, 81)
    assert found["with_reference"]["structures"] == 4_294_967_296
    assert found["with_reference"]["with_decisive_rows"] == 268_435_456
    assert found["with_reference"]["of_one_core"] == 43_046_721
    _, out, _ = run(capsys, "count", "--atoms", "16")
    assert "about 10^" in out
    assert run(capsys, "count", "--atoms", "0")[0] == 2


def test_neighbours_say_the_row_that_changes(capsys):
    _, out, _ = run(capsys, "neighbours", "CPO")
    assert "cCPO" in out
    assert "(M(w)=T M(l)=T: ✓✗ becomes ✓)" in out
    _, out, _ = run(capsys, "neighbours", "dpo", "--json")
    found = json.loads(out)
    assert [one["name"] for one in found["looser"]] == ["cCPO with reference", "l14 with reference"]
    _, out, _ = run(capsys, "neighbours", "unCPO")
    assert "looser than unCPO: none of its kind" in out


def test_meet_and_join_have_names(capsys):
    assert run(capsys, "meet", "ORPO", "CPO")[1].startswith("cUnl\n")
    assert run(capsys, "join", "ORPO", "CPO")[1].startswith("cCPO\n")
    _, out, _ = run(capsys, "meet", "dpo", "cCPO", "--json")
    assert json.loads(out)["name"] == "meet of dpo and cCPO"


def test_diff_says_rows_ratios_and_slopes(capsys):
    _, out, _ = run(capsys, "diff", "dpo", "cCPO-ref")
    assert "mark 2 rows otherwise" in out
    assert "cCPO with reference: ρ = log [ (w·rl) / (l·rw(1−w)) ]" in out
    assert "∂ρ/∂log M(w) = 1.429" in out
    _, out, _ = run(capsys, "diff", "dpo", "ipo", "--json")
    assert json.loads(out)["rows"] == []
    assert "they are one loss" in run(capsys, "diff", "dpo", "ipo")[1]
    _, out, _ = run(capsys, "diff", "Safe(w) -> M(w)", "M(w)")
    assert "mark 1 rows otherwise" in out
