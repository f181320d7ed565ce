import json
from pathlib import Path

import pyarrow.ipc

from align.data.bad_rows import BadRows
from align.data.rows import Row, RowError
from align.data.store import Store
from align.data.tokenize import PairTokenizer

ROWS = [Row(prompt="p", chosen=f" a{i}", rejected=" b", where=f"old.jsonl:{i}") for i in range(3)]


def written(folder: Path, plain, **settings) -> Store:
    store = Store(folder / "k.arrow", ["old.jsonl"])
    pairs, bad = PairTokenizer(plain, max_length=9), BadRows(**settings)

    def batches():
        yield pairs(ROWS)
        if settings:
            bad.take(RowError("empty", "is empty", where="old.jsonl:7"), {"chosen": ""})

    store.write("k", batches(), pairs, bad)
    return store


def test_what_is_written_is_whole_and_nothing_else_lies_about(tmp_path: Path, plain):
    store = written(tmp_path, plain)
    assert store.is_whole()
    assert store.skipped() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k.arrow", "k.json"]
    (tmp_path / "k.json").unlink()
    assert not store.is_whole()


def test_places_follow_the_name_of_the_source(tmp_path: Path, plain):
    written(tmp_path, plain, on_bad_row="skip")
    store = Store(tmp_path / "k.arrow", ["new row 1.jsonl"])
    assert store.is_whole()
    with pyarrow.ipc.open_stream((tmp_path / "k.arrow").read_bytes()) as stream:
        assert stream.read_all()["where"].to_pylist() == [f"new row 1.jsonl:{i}" for i in range(3)]
    assert json.loads(store.skipped().read_text())["where"] == "new row 1.jsonl:7"
    assert store.report().sources == ["new row 1.jsonl"]
    assert Store(tmp_path / "k.arrow", ["old.jsonl"]).is_whole()
