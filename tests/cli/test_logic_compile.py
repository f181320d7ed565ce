import json

import pytest
import yaml

from align.cli.main import main
from align.logic.compiled import FormulaObjective
from align.logic.landscape import sixteen
from align.logic.zoo import table


def run(capsys, *words):
    code = main(["logic", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_compile_prints_a_section_that_trains(capsys):
    _, out, _ = run(
        capsys, "compile", "cCPO", "--reference", "--link", "squared", "--beta", "0.2", "--format", "recipe"
    )
    objective = FormulaObjective(**yaml.safe_load(out)["objective"])
    assert objective.structure == sixteen()["cCPO"].reference_form()
    assert (objective.link, objective.beta) == ("squared", 0.2)
    words = ["compile", "M(l) -> M(w)", "--condition", "M(w) | M(l)", "--length-normalised", "--margin", "0.5"]
    _, out, _ = run(capsys, *words, "--format", "recipe")
    settings = yaml.safe_load(out)["objective"]
    assert (settings["length_normalised"], settings["margin"]) == (True, 0.5)


def test_compile_prints_code_and_latex(capsys):
    _, out, _ = run(capsys, "compile", "ORPO", "--format", "torch")
    space = {}
    exec(out, space)
    assert callable(space["loss"])
    _, out, _ = run(capsys, "compile", "ORPO", "--format", "latex")
    assert out.startswith(r"\ell = -\log\sigma")
    _, out, _ = run(capsys, "compile", "ORPO", "--json")
    assert {"rho", "recipe", "torch", "latex", "marks"} <= set(json.loads(out))
    _, out, _ = run(capsys, "compile", "M(y3) -> M(w)")
    assert "# no recipe: training knows no probability of M(y3)" in out
    _, out, _ = run(capsys, "compile", "Ref(w)")
    assert "# no recipe: it depends on no probability of the policy" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compile", "true"], "nothing is counted on one side"),
        (["compile", "dpo", "--beta", "0"], "beta must be greater than 0"),
        (["compile", "bco_pair"], "2 structures"),
        (["decompile", "log(w/x)"], "no quantity 'x'"),
        (["decompile", "nope"], "unknown objective 'nope'"),
        (["decompile", "dpo", "beat=1"], "did you mean 'beta'"),
        (["decompile", "dpo", "beta"], "write KEY=VALUE"),
        (["decompile", "log(w/l)", "beta=1"], "settings go with an objective"),
        (["decompile", "dpo", "--as", "loss"], "--as goes with an expression"),
        (["decompile", "none.py:loss"], "no Python file"),
        (["decompile", "none.py:loss", "--as", "loss"], "--as goes with an expression"),
        (["decompile", "dpo", "beta=[1"], "is no value of YAML"),
        (["compile", "Const(0.5)"], "depends on no probability"),
        (["decompile", "w.__class__"], "'.' is no part of an expression"),
        (["decompile", "__import__('os').system('true')"], "is no part of an expression"),
        (["decompile", "exp(exp(exp(exp(20))))*log(w)"], "the exponential of a number beyond 700"),
        (["decompile", "9^9^9^9"], "an exponent beyond 64"),
        (["decompile", "1e400*log(w)"], "too large a number"),
        (["compile", "discopop"], "say another with --link"),
        (["compile", "dpo", "--margin", "inf"], "the margin finite"),
        (["compile", "dpo", "--json", "--format", "torch"], "leave --format out"),
        (["compile", "Safe | safe & ~M(w)"], "differ in capitals alone"),
    ],
)
def test_mistakes_are_exit_code_2(words, said, capsys):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err


def test_decompile_reads_expressions_objectives_and_files(tmp_path, capsys):
    code, out, _ = run(capsys, "decompile", "log(w*(1-l)/(l*(1-w)))")
    assert code == 0
    assert "(ORPO)" in out
    assert "4 cores mean the same" in out
    code, out, _ = run(capsys, "decompile", "w/(1-w)")
    assert "read as a ratio" in out
    assert "the same ratio, as a function, is" in out
    code, out, _ = run(capsys, "decompile", "simpo", "gamma=0.25")
    assert "margin: 0.25" in out
    file = tmp_path / "own.py"
    file.write_text("def loss(chosen, rejected):\n    return (chosen - rejected - 5).square()\n")
    code, out, _ = run(capsys, "decompile", f"{file}:loss", "--json")
    found = json.loads(out)
    assert (code, found["parts"][0]["link"], found["parts"][0]["margin"]) == (0, "squared", "5")
    code, out, _ = run(capsys, "decompile", "dpop", "lam=1")
    assert out.startswith("dpop: 2 cases")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("simpo", {"link": "logistic", "beta": 2.0, "margin": 0.5, "length_normalised": True}),
        ("dpo", {"link": "logistic", "beta": 0.1}),
        ("ipo_sum", {"link": "squared", "beta": 0.1}),
        ("slic_hf", {"link": "hinge", "beta": 1.0}),
        ("hinge", {"link": "hinge", "beta": 10.0}),
        ("rrhf", {"link": "hinge", "beta": 0.0, "length_normalised": True}),
    ],
)
def test_compiled_objectives_keep_their_settings(name, settings, capsys):
    _, out, _ = run(capsys, "compile", name, "--format", "recipe")
    found = yaml.safe_load(out)["objective"]
    assert {key: value for key, value in found.items() if key not in ("formula", "condition", "additive")} == settings
    assert ("a weight of" in out) == (name == "hinge")
    assert ("regulariser" in out) == (name in ("slic_hf", "rrhf"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("log(-w)", "is no number: I*pi"),
        ("log(w/l)^0.5", "no multiple of a logarithm"),
        ("log((w-l)/(w+l))", "changes its sign"),
        ("w^50/l", "50 times in a product"),
    ],
)
def test_odd_expressions_are_refused_or_read_in_words(text, said, capsys):
    code, out, _ = run(capsys, "decompile", text)
    assert code in (0, 1)
    assert said in out
    assert run(capsys, "decompile", "-log(w)")[0] == 0
    assert run(capsys, "decompile", "(beta+tau)*log(w/l)")[0] == 0


def test_what_counts_nothing_is_exit_code_1_with_the_row(capsys):
    code, out, _ = run(capsys, "decompile", "log(w*(1-l)/(l+1-w))")
    assert code == 1
    assert "2 in the row M(w) = F, M(l) = T" in out
    assert run(capsys, "decompile", "log(w/l)", "--as", "loss")[1].count("linear") == 1


def test_what_was_taken_off_is_in_the_json(capsys):
    _, out, _ = run(capsys, "decompile", "-2*logsigmoid(0.3*log(w*ref_l/(ref_w*l)) - 0.25)", "--json")
    found = json.loads(out)
    assert (found["read_as"], found["outcome"], found["stripped"]) == ("loss", "structure", [])
    (part,) = found["parts"]
    said = {key: part[key] for key in ("role", "link", "weight", "scale", "margin", "normalised", "landscape")}
    assert said == {
        "role": "core",
        "link": "logistic",
        "weight": "2",
        "scale": "0.3",
        "margin": "0.25",
        "normalised": False,
        "landscape": "DPO",
    }
    assert part["also"] == []
    _, out, _ = run(capsys, "decompile", "w/(1-w)", "--json")
    assert sorted(json.loads(out)["parts"][0]["also"]) == [
        "M(w) & M(l) over ~M(w) & M(l)",
        "M(w) & ~M(l) over ~M(w) & ~M(l)",
    ]


def test_zoo_lists_every_objective(capsys, tmp_path, monkeypatch):
    _, out, _ = run(capsys, "zoo")
    assert [line.split()[0] for line in out.splitlines()] == list(table())
    assert "dpop" in out
    assert "(2 cases)" in out
    _, out, _ = run(capsys, "zoo", "--json")
    assert json.loads(out) == list(table().values())
    import align.cli.logic_compile as module

    monkeypatch.setattr(module, "write", lambda: tmp_path / "zoo.json")
    assert "zoo.json" in run(capsys, "zoo", "--write")[1]
