import io
import json
from pathlib import Path

import pytest

from align.data.bad_rows import BadRows, SkippedRow, copy_skipped, read_skipped, with_way_out
from align.data.rows import RowError

FAULT = RowError("empty", "is empty", where="a.jsonl:3", column="chosen", fix="remove the row")


def test_the_first_bad_row_ends_the_work_and_says_what_can_be_done():
    with pytest.raises(RowError) as error:
        BadRows().take(FAULT, {"chosen": ""})
    assert str(error.value) == (
        "a.jsonl:3: column 'chosen' is empty; remove the row, or leave bad rows out with on_bad_row: skip (kind of "
        "fault: empty; `align data check` counts them all)"
    )
    bare = with_way_out(RowError("same", "equal", where="a:1"))
    assert str(bare).startswith("a:1: equal; leave bad rows out with on_bad_row: skip")


def test_skipped_rows_are_counted_and_come_back_as_they_were(tmp_path: Path):
    stream = io.StringIO()
    bad = BadRows(on_bad_row="skip", stream=stream)
    bad.take(FAULT, {"chosen": "", "half": "\ud83d", "when": Path("x")})
    bad.take(RowError("not_json", "is no JSON", where="a.jsonl:4", text="{"), None)
    assert (bad.total, dict(bad.counts)) == (2, {"empty": 1, "not_json": 1})
    assert bad.first is FAULT
    (tmp_path / "s.jsonl").write_text(stream.getvalue(), encoding="utf-8")
    first, second = read_skipped(tmp_path / "s.jsonl")
    assert first.row == {"chosen": "", "half": "\ud83d", "when": "x"}
    assert str(first.fault) == str(FAULT)
    assert second == SkippedRow(where="a.jsonl:4", kind="not_json", problem="is no JSON", text="{")
    assert json.loads(stream.getvalue().splitlines()[1]) == {
        "where": "a.jsonl:4",
        "kind": "not_json",
        "problem": "is no JSON",
        "text": "{",
    }


def test_other_choices_are_refused():
    with pytest.raises(ValueError, match="on_bad_row must be one of fail, skip; got 'drop'"):
        BadRows(on_bad_row="drop")


def test_copies_lie_beside_the_run_only_where_something_was_skipped(tmp_path: Path):
    (tmp_path / "s.jsonl").write_text("x")
    target = tmp_path / "run" / "skipped-training.jsonl"
    assert copy_skipped(tmp_path / "s.jsonl", target) == target
    assert target.read_text() == "x"
    assert copy_skipped(None, target) is None
    assert not target.exists()
