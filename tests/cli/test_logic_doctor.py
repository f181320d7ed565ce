import json

import pytest

from align.cli.main import main


def run(capsys, *words):
    code = main(["logic", "doctor", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {
            "chosen_logps": -50.0 - k,
            "rejected_logps": -60.0,
            "reference_chosen_logps": -51.0,
            "ref_rejected_logps": -59.0,
        }
        for k in range(5)
    ]
    file.write_text(
        "".join(json.dumps(row | {"chosen_length": 20, "rejected_length": 25}) + "\n" for row in rows) + "\n"
    )
    return file


def test_a_file_of_log_probabilities_is_examined(pairs, capsys):
    code, out, _ = run(capsys, "unCPO", "--logps", pairs)
    assert code == 0
    assert "pull no more           100%" in out
    assert "length_normalised" in out
    _, out, _ = run(capsys, "dpo", "--logps", pairs, "--json")
    found = json.loads(out)
    assert (found["pairs"], found["setting"]["beta"], found["column_class"]) == (5, 0.1, "neither")
    _, out, _ = run(capsys, "unCPO", "--logps", pairs, "--length-normalised", "--beta", "2", "--json")
    assert json.loads(out)["vanished"] == 0


def test_settings_are_those_of_the_objective_unless_given(pairs, capsys):
    def setting(*words):
        return json.loads(run(capsys, *words, "--logps", pairs, "--json")[1])["setting"]

    assert setting("simpo") == {"link": "logistic", "beta": 2.0, "margin": 0.5, "normalised": True}
    assert setting("simpo", "--summed")["normalised"] is False
    assert setting("ipo_sum") == {"link": "squared", "beta": 0.1, "margin": 0.0, "normalised": False}
    assert setting("slic_hf", "--link", "logistic")["link"] == "logistic"
    assert setting("cCPO", "--margin", "1.5")["margin"] == 1.5


def test_a_run_is_examined_by_its_logged_means(tmp_path, capsys):
    lines = [
        {"step": k, "logps/chosen": -30.0 - k, "logps/rejected": -31.0 - k, "rewards/chosen": -0.1 * k,
         "rewards/rejected": -0.2 * k, "length/chosen": 12.0, "length/rejected": 14.0}
        for k in (1, 2)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 3, "loss": 1}])
    )
    (tmp_path / "recipe.yaml").write_text("objective: {name: dpo, beta: 0.1}\n")
    code, out, _ = run(capsys, "dpo", "--logps", tmp_path)
    assert code == 0
    assert "the means of 2 logging steps" in out
    assert run(capsys, "CPO", "--logps", tmp_path, "--length-normalised")[0] == 0


@pytest.mark.parametrize(
    ("text", "loss", "said"),
    [
        ("", "CPO", "has no rows"),
        ("{", "CPO", "pairs.jsonl:1: no JSON"),
        ("[1]", "CPO", "pairs.jsonl:1: expected an object"),
        ('{"chosen": -1.0}', "CPO", "row 1: rejected is missing"),
        ('{"chosen": -1.0, "rejected": -1.0}', "dpo", "row 1: ref_chosen is missing"),
        ('{"chosen": -1.0, "rejected": -1.0}', "kto", "2 structures"),
        ('{"chosen": -1.0, "rejected": -1.0}', "discopop", "--link logistic|squared|hinge"),
        ('{"chosen": -1.0, "rejected": -1.0}', "r_dpo", "give --margin"),
    ],
)
def test_mistakes_name_the_row_and_the_column(text, loss, said, tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    code, _, err = run(capsys, loss, "--logps", file)
    assert code == 2
    assert said in err


def test_a_run_without_pairs_is_refused(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    code, _, err = run(capsys, "CPO", "--logps", tmp_path)
    assert code == 2
    assert "logged no log-probabilities" in err
