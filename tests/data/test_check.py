import json

import pytest

from align.data.check import PLACES, check_rows
from align.data.rows import DataError
from align.recipe.schema import SourceSettings

GOOD = {"prompt": "Is it?", "chosen": " Yes.", "rejected": " No."}
SAME = {**GOOD, "rejected": " Yes."}
EMPTY = {**GOOD, "chosen": ""}
LONG = {**GOOD, "prompt": "Is it? " * 50}
CUT = {**GOOD, "chosen": " Yes." * 50}


def test_counts_by_hand(plain, write_jsonl):
    source = SourceSettings(path=write_jsonl([GOOD, SAME, EMPTY, SAME, LONG, CUT, GOOD]))
    bare = check_rows(source)
    assert (bare.rows, bare.bad, bare.tokenised) == (7, 3, False)
    assert list(bare.faults) == ["same", "empty"]
    assert bare.faults["same"].places == ["pairs.jsonl:2", "pairs.jsonl:4"]
    assert bare.faults["empty"].example == "pairs.jsonl:3: column 'chosen' is empty; remove the row"
    whole = check_rows(source, plain, max_length=60)
    assert {kind: fault.count for kind, fault in whole.faults.items()} == {"same": 2, "empty": 1, "nothing_left": 1}
    assert (whole.truncated, whole.dropped) == (1, 0)
    dropping = check_rows(source, plain, max_length=60, truncation="drop")
    assert (dropping.bad, dropping.truncated, dropping.dropped) == (3, 0, 2)
    assert json.loads(json.dumps(whole.as_mapping()))["usable"] == 3


def test_places_are_named_only_so_far(write_jsonl):
    report = check_rows(SourceSettings(path=write_jsonl([SAME] * 1500)))
    assert (report.rows, report.faults["same"].count) == (1500, 1500)
    assert report.faults["same"].places == [f"pairs.jsonl:{i}" for i in range(1, PLACES + 1)]


def test_a_file_that_is_broken_as_a_whole(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="is no whole gzip file"):
        check_rows(SourceSettings(path=str(tmp_path / "a.jsonl.gz")))


def test_single_completions_are_told_by_the_first_row(plain, write_jsonl):
    single = {"prompt": "Is it?", "completion": " Yes.", "label": True}
    file = write_jsonl([single, {**single, "label": "good"}, {**single, "completion": " Yes." * 50}])
    report = check_rows(SourceSettings(path=file), plain, max_length=60)
    assert (report.unpaired, report.rows, report.bad, report.truncated) == (True, 3, 1, 1)
    assert report.faults["wrong_type"].places == ["pairs.jsonl:2"]
    assert not check_rows(SourceSettings(path=write_jsonl([GOOD]))).unpaired
