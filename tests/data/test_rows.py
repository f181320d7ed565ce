import pickle
from pathlib import Path

from align.data.rows import KINDS, DataError, Row, UnpairedRow, place_of, side_of


def test_an_error_names_place_column_and_fix():
    error = DataError("is empty", where="pairs.jsonl:17", column="chosen", fix="remove the row")
    assert str(error) == "pairs.jsonl:17: column 'chosen' is empty; remove the row"
    assert (error.where, error.column, error.fix) == ("pairs.jsonl:17", "chosen", "remove the row")
    assert isinstance(error, ValueError)


def test_an_error_survives_the_way_back_from_a_worker():
    error = DataError("is empty", where="a:1", column="chosen")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.where == "a:1"


def test_digest_of_a_prompt_is_that_of_its_text():
    rows = [Row(prompt=text, chosen="a", rejected="b", where="x:1") for text in ("Sky?", "Sky?", "Sea?")]
    digests = [row.prompt_digest for row in rows]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 16


def test_the_documentation_knows_every_kind():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    for kind, meaning in KINDS.items():
        assert f"| `{kind}` | {meaning} |" in page


def test_a_row_as_ids():
    row = Row(prompt="p", chosen="a", rejected="b", chosen_score=2.0, weight=3.0, where="x:1")
    pair = row.tokens([1], [[2], [3]])
    assert (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) == ([1], [2], [3])
    assert (pair.chosen_score, pair.weight, pair.where) == (2.0, 3.0, "x:1")
    single = UnpairedRow(prompt="p", completion="a", desirable=False, where="x:2")
    ids = single.tokens([1], [[2]])
    assert (ids.completion_ids, ids.desirable, ids.prompt_hash) == ([2], False, pair.prompt_hash)


def test_a_place_in_a_pair_that_is_taken_apart_leads_back():
    for desirable in (True, False):
        assert place_of(side_of("pairs.parquet row 3", desirable)) == "pairs.parquet row 3"
