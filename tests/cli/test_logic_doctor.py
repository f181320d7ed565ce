import json
import math

import pytest
import torch

from align.cli.main import main
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES


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
    assert (found["pairs"], found["setting"]["scale"], found["column_class"]) == (5, 0.1, "neither")
    _, out, _ = run(capsys, "unCPO", "--logps", pairs, "--length-normalised", "--beta", "2", "--json")
    assert json.loads(out)["vanished"] == 0


CLOSED = [
    *("dpo", "hinge", "ipo", "ipo_sum", "sigmoid_norm", "ld_dpo", "wpo", "cal_dpo", "iterative_rpo", "dpo_shift"),
    *("simpo", "cpo", "slic_hf", "rrhf", "orpo"),
]


@pytest.mark.parametrize("name", CLOSED)
def test_losses_and_pulls_are_those_of_the_objectives_own_code(name, pairs, capsys):
    objective = OBJECTIVES.build(name)
    rows = [json.loads(line) for line in pairs.read_text().splitlines() if line]
    columns = ("chosen_logps", "rejected_logps", "reference_chosen_logps", "ref_rejected_logps")
    leaves = [torch.tensor([row[c] for row in rows], dtype=torch.float64, requires_grad=True) for c in columns]
    sizes = {
        f"{side}_lengths": torch.tensor([row[f"{side}_length"] for row in rows]) for side in ("chosen", "rejected")
    }
    policy = PairLogps(chosen=leaves[0], rejected=leaves[1], **sizes)
    reference = PairLogps(chosen=leaves[2], rejected=leaves[3], **sizes)
    losses = objective.link(objective.score(policy, reference if objective.needs_reference else None))
    slopes = torch.autograd.grad(losses.sum(), leaves[:2])
    found = json.loads(run(capsys, name, "--logps", pairs, "--json")[1])
    if name == "dpo_shift":  # its rejected log-ratio counts 0.95 times: an atom of its own weighs that power
        return
    lengths = list(sizes.values()) if found["setting"]["normalised"] else [1, 1]
    assert found["loss"] == pytest.approx(losses.mean().item(), rel=1e-6)
    assert found["d_w"] == pytest.approx(-(slopes[0] * lengths[0]).median().item(), rel=1e-6, abs=1e-12)
    assert found["d_l"] == pytest.approx((slopes[1] * lengths[1]).median().item(), rel=1e-6, abs=1e-12)


def test_settings_can_be_given_in_the_place_of_the_objectives(pairs, capsys):
    def setting(*words):
        return json.loads(run(capsys, *words, "--logps", pairs, "--json")[1])["setting"]

    plain = {"link": "logistic", "scale": 2.0, "margin": 1.0, "weight": 1.0, "normalised": True}
    assert setting("simpo") == plain
    assert setting("simpo", "--summed") == plain | {"normalised": False}
    assert setting("npo")["weight"] == 20
    assert setting("cCPO", "--margin", "1.5")["margin"] == 1.5
    assert setting("slic_hf", "--link", "logistic", "--beta", "0.5")["scale"] == 0.5
    assert setting("dpo", "--link", "squared", "--beta", "0.1")["margin"] == 5
    assert run(capsys, "dpo", "--logps", pairs, "--beta", "0")[0] == 2
    assert "left out: regulariser" in run(capsys, "cpo", "--logps", pairs)[1]


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


def made_run(folder, objective, rewards):
    """A run of one logged step: log-probabilities of 12 and 10 tokens, and their rewards."""
    logged = {"step": 1, "logps/chosen": -30.0, "logps/rejected": -31.0, "length/chosen": 12.0, "length/rejected": 10.0}
    (folder / "metrics.jsonl").write_text(
        json.dumps(logged | dict(zip(("rewards/chosen", "rewards/rejected"), rewards, strict=True))) + "\n"
    )
    (folder / "recipe.yaml").write_text(f"objective: {objective}\n")
    return folder


@pytest.mark.parametrize(
    ("objective", "rewards"),
    [
        ("{name: dpo, beta: 0.1}", (0.1 * 2, 0.1 * -3)),
        ("[{name: dpo, beta: 0.2, weight: 1.0}, {name: sft, weight: 0.1}]", (0.2 * 2, 0.2 * -3)),
        ("{name: ipo, tau: 0.5}", (0.5 * 2 / 12, 0.5 * -3 / 10)),  # a token
        ("{name: ipo_sum, tau: 0.5}", (0.5 * 2, 0.5 * -3)),
        ('{formula: "M(l) & Ref(w) -> M(w)", beta: 0.4}', (0.4 * 2, 0.4 * -3)),
        ('{formula: "M(l) & Ref(w) -> M(w)", link: hinge, beta: 0.4}', (2, -3)),
        ('{formula: "M(l) & Ref(w) -> M(w)", beta: 0.4, length_normalised: true}', (0.4 * 2 / 12, 0.4 * -3 / 10)),
    ],
)
def test_the_references_log_probabilities_are_those_behind_a_runs_rewards(objective, rewards, tmp_path, capsys):
    run_folder = made_run(tmp_path, objective, rewards)
    code, out, _ = run(capsys, "dpo", "--logps", run_folder, "--beta", "1", "--json")
    assert code == 0
    assert json.loads(out)["loss"] == pytest.approx(math.log1p(math.exp(-5)))  # log-ratios 2 and -3


@pytest.mark.parametrize("objective", ["{name: cpo, beta: 0.1}", '{formula: "M(w)"}', "{file: gone.py, name: loss}"])
def test_rewards_that_are_no_log_ratios_give_no_reference(objective, tmp_path, capsys):
    run_folder = made_run(tmp_path, objective, (0.5, 0.25))
    assert run(capsys, "CPO", "--logps", run_folder)[0] == 0
    code, _, err = run(capsys, "dpo", "--logps", run_folder)
    assert code == 2
    assert "row 1: ref_chosen is missing" in err


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
        ('{"chosen": -1.0, "rejected": -1.0}', "r_dpo", "give --beta and --margin"),
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
