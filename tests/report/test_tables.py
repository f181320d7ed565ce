from align.report.run_record import read_runs
from align.report.tables import MOST_ROWS, Table, table_of_overlay, table_of_rewards, table_of_rows, table_of_values
from tests.report.conftest import summary


def test_a_row_a_step_with_gaps():
    rows = [{"step": 2, "loss": 0.5}, {"step": 1, "loss": 0.75}, {"step": 2, "eval_loss": 0.625}]
    table = table_of_rows(rows, ("loss", "eval_loss", "absent"))
    assert table.heads == ("step", "loss", "eval_loss")
    assert table.rows == [["1", "0.75", ""], ["2", "0.5", "0.625"]]


def test_runs_have_columns_of_their_own(make_run):
    runs = read_runs([make_run(n, rows=[{"step": s, "loss": 0.5}]) for s, n in enumerate("ab")])
    table = table_of_overlay(runs, ["loss"])
    assert table.heads == ("step", "a: loss", "b: loss")
    assert table.rows == [["0", "0.5", ""], ["1", "", "0.5"]]


def test_long_tables_are_thinned_and_say_so():
    table = Table.of(("x",), [(i,) for i in range(1000)])
    assert (len(table.rows), table.left_out) == (MOST_ROWS, 1000 - MOST_ROWS)
    assert (table.rows[0], table.rows[-1]) == (["0"], ["999"])


def test_rewards_and_values():
    assert table_of_rewards(summary()).rows[2] == ["difference", "0.1", "0.05", "0.15"]
    table = table_of_values({"base": [3, 4], "aligned": [5, 6]})
    assert table.heads == ("sample", "base", "aligned")
    assert table.rows == [["1", "3", "5"], ["2", "4", "6"]]
