import pytest

from align.report.key_figures import Cell, facts, key_figures
from align.report.run_record import read_runs
from tests.report.conftest import training, whole_summary


@pytest.fixture
def shown(whole):
    return {measure.label: cells[0] for measure, cells in key_figures(read_runs([whole]))}


@pytest.mark.parametrize(
    ("label", "cell"),
    [
        ("Chosen, change", Cell("-8.0", "held out")),
        ("Rejected, change", Cell("-24.0", "held out")),
        ("Accuracy", Cell("0.700", "[0.620, 0.770]")),
        ("\u201cLonger wins\u201d", Cell("0.610")),
        ("Accuracy, length-matched", Cell("0.700", "88 pairs")),
        ("Reward, difference", Cell("+0.100", "[+0.050, +0.150]")),
        ("Win rate", Cell("0.100", "[0.050, 0.150]")),
        ("KL to the base", Cell("0.10", "[0.05, 0.15]")),
        ("KL a token", Cell("0.010")),
        ("Distinct-2", Cell("0.500 \u2192 0.250")),
        ("Length", Cell("20.0 \u2192 31.5")),
    ],
)
def test_figures_of_the_summary(shown, label, cell):
    assert shown[label] == cell


def test_what_no_run_has_is_left_out_and_gaps_stay(whole, make_run):
    runs = read_runs([make_run("cut", rows=[training(1), training(9)]), whole])
    table = {measure.label: cells for measure, cells in key_figures(runs)}
    assert table["Accuracy"][0] is None
    assert table["Chosen, change"][0] == Cell("-0.1", "training")
    assert "Accuracy" not in {measure.label for measure, _ in key_figures(runs[:1])}


def test_facts(whole, make_run):
    found = facts(read_runs([whole])[0])
    assert found["objective"] == "dpo (beta 0.1)"
    assert found["reference"] == "base: a frozen copy"
    assert (found["state"], found["time"], found["peak memory"]) == ("finished, 300 steps", "4 min 47 s", "3.48 GiB")
    assert found["pairs trained on"] == "8,000"
    cut = facts(read_runs([make_run("cut", rows=[training(40)])])[0])
    assert cut["state"] == "unfinished: last logged step 40 of 300"
    assert "time" not in cut


def test_a_summary_that_someone_edited_breaks_nothing(make_run):
    broken = whole_summary(generation={"reward": 3, "kl": {"value": "x"}}, versions=None, train=[], seconds="long")
    (run,) = read_runs([make_run(result=broken)])
    assert not any(measure.group.startswith("Samples") for measure, _ in key_figures([run]))
    assert "time" not in facts(run)


def test_single_completions_have_an_auc_and_no_accuracy(unpaired):
    (run,) = read_runs([unpaired])
    shown = {(measure.group, measure.label): cells[0] for measure, cells in key_figures([run])}
    assert shown == {
        ("Log-probability", "Desirable, change"): Cell("-3.0", "held out"),
        ("Log-probability", "Undesirable, change"): Cell("-30.0", "held out"),
        ("Held-out completions", "AUC"): Cell("0.800", "[0.700, 0.900]"),
        ("Held-out completions", "Margin of means"): Cell("+0.250"),
        ("Held-out completions", "Completions"): Cell("16 + 8"),
    }
    assert facts(run)["completions trained on"] == "36"


def test_pairs_beside_single_completions(unpaired, whole):
    table = {(measure.group, measure.label): cells for measure, cells in key_figures(read_runs([whole, unpaired]))}
    assert table["Log-probability", "Chosen or desirable, change"] == [
        Cell("-8.0", "held out"),
        Cell("-3.0", "held out"),
    ]
    assert table["Held-out pairs", "Accuracy"][1] is None
    assert table["Held-out completions", "AUC"][0] is None


def test_a_run_that_reads_one_side(one_sided):
    shown = {measure.label: cells[0] for measure, cells in key_figures(read_runs([one_sided]))}
    assert shown["Chosen, change"].interval == "training"
    assert "Rejected, change" not in shown
    assert shown["Accuracy"] == Cell("0.700", "[0.620, 0.770]")
