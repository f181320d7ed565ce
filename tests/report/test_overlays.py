import pytest
from matplotlib.figure import Figure

from align.report.overlays import LOGPS, OVERLAYS, draw_estimates, draw_overlay, has_estimates
from align.report.run_record import read_runs
from tests.report.conftest import metrics, training, whole_summary

BY_NAME = {overlay.name: overlay for overlay in OVERLAYS}


@pytest.fixture
def runs(make_run):
    return read_runs([make_run(f"run{i}", rows=metrics(fall=-8.0 + i)) for i in range(3)])


def lines(axes):
    return [line for line in axes.get_lines() if line.get_label() in {"run0", "run1", "run2"}]


def test_a_colour_a_run_chosen_solid_rejected_dashed(runs):
    axes = Figure().subplots()
    draw_overlay(axes, runs, LOGPS)
    found = {(line.get_label(), line.get_linestyle()): line for line in lines(axes)}
    assert len(found) == 6
    assert found["run0", "-"].get_color() == found["run0", "--"].get_color() != found["run1", "-"].get_color()
    assert found["run0", "-"].get_ydata()[-1] == pytest.approx(-8)
    assert found["run2", "--"].get_ydata()[-1] == pytest.approx(-18)


def test_ends_bear_the_numbers_of_the_runs(runs):
    axes = Figure().subplots()
    draw_overlay(axes, runs, LOGPS)
    assert sorted(text.get_text() for text in axes.texts) == ["1", "1", "2", "2", "3", "3"]


def test_one_side_alone(runs):
    axes = Figure().subplots()
    draw_overlay(axes, runs, LOGPS, only="logps/rejected")
    assert [line.get_linestyle() for line in lines(axes)] == ["-"] * 3
    assert lines(axes)[0].get_ydata()[-1] == pytest.approx(-24)


def test_training_speaks_where_one_run_was_not_evaluated(runs, make_run):
    assert LOGPS.where(runs) == "held out"
    mixed = [*runs, *read_runs([make_run("bare", rows=[training(1), training(2)])])]
    assert LOGPS.where(mixed) == "training"
    assert [key for key, _ in LOGPS.keys(mixed)] == ["logps/chosen", "logps/rejected"]


def test_accuracy_has_its_intervals(runs):
    axes = Figure().subplots()
    draw_overlay(axes, runs, BY_NAME["accuracy"])
    assert len(axes.collections) == 3
    assert axes.collections[0].get_segments()[0][:, 1].tolist() == pytest.approx([0.62, 0.77])


def test_only_what_was_logged(make_run):
    runs = read_runs([make_run(f"run{i}", rows=[{"step": 1, "loss": 0.5}]) for i in range(2)])
    assert [overlay.name for overlay in OVERLAYS if overlay.has_data(runs)] == ["loss"]


def test_reward_against_kl_leaves_out_runs_without_samples(make_run):
    runs = read_runs([make_run("a"), make_run("b", result=whole_summary())])
    axes = Figure().subplots()
    draw_estimates(axes, runs)
    assert [has_estimates(run) for run in runs] == [False, True]
    assert [text.get_text() for text in axes.texts] == ["2"]
    assert axes.get_xlabel().startswith("KL")


def test_auc_has_its_own_interval(unpaired):
    axes = Figure().subplots()
    draw_overlay(axes, read_runs([unpaired]), BY_NAME["auc"])
    assert axes.collections[0].get_segments()[0][:, 1].tolist() == pytest.approx([0.7, 0.9])


def test_runs_without_the_subject_have_no_say(runs, unpaired, make_run):
    compared = [training(step) for step in (1, 2)]
    compared += [{"step": step, "eval_loss": 0.5, "eval_rewards/margins": 0.1} for step in (1, 2)]
    margins, both = BY_NAME["margins"], read_runs([make_run("pairs", rows=compared), unpaired])
    assert margins.where(both) == "held out"
    assert margins.shown_by(both) == both[:1]
    assert margins.where([*both, *runs]) == "training"
