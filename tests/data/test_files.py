import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from align.data.files import kind_of, reader_of, rows_in
from align.data.rows import DataError, RowError

ROWS = [{"chosen": 'é, "one"\nline', "rejected": "two"}, {"chosen": "three", "rejected": "four"}]


def read(file: Path) -> list[tuple[str, dict[str, object]]]:
    return list(reader_of(file)(file))


def read_all(file: Path) -> None:
    for _, row in read(file):
        if isinstance(row, RowError):
            raise row


def jsonl_bytes() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_jsonl_counts_lines_and_skips_empty_ones(tmp_path: Path, mark: bytes):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(mark + b"\n" + jsonl_bytes().replace(b"\n", b"\r\n"))
    assert read(file) == [("pairs.jsonl:2", ROWS[0]), ("pairs.jsonl:3", ROWS[1])]


def test_gzipped_text(tmp_path: Path):
    for name, content in (("a.jsonl.gz", jsonl_bytes()), ("a.json.gz", json.dumps({"data": ROWS, "n": 2}).encode())):
        file = tmp_path / name
        file.write_bytes(gzip.compress(content))
        assert [row for _, row in read(file)] == ROWS


def test_json_list_and_object_with_one_list(tmp_path: Path):
    for content in (ROWS, {"version": 1, "data": ROWS}):
        file = tmp_path / "pairs.json"
        file.write_text(json.dumps(content))
        assert read(file) == [("pairs.json row 1", ROWS[0]), ("pairs.json row 2", ROWS[1])]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_names_the_line_where_a_row_begins(tmp_path: Path, mark: str):
    file = tmp_path / "pairs.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        stream.write(mark)
        writer = csv.DictWriter(stream, ["chosen", "rejected"])
        writer.writeheader()
        writer.writerows(ROWS)
    assert read(file) == [("pairs.csv:2", ROWS[0]), ("pairs.csv:4", ROWS[1])]


def test_csv_takes_long_cells(tmp_path: Path):
    file = tmp_path / "pairs.csv"
    file.write_text(f"chosen,rejected\n{'x' * 200_000},y\n")
    assert len(read(file)[0][1]["chosen"]) == 200_000


def test_parquet_states_its_rows(tmp_path: Path):
    file = tmp_path / "pairs.parquet"
    turns = [{"chosen": [{"role": "assistant", "content": "a"}]}] * 3
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(turns), file)
    assert read(file)[2] == ("pairs.parquet row 3", turns[2])
    assert rows_in(file) == 3


def test_json_lines_are_counted_and_others_are_not(tmp_path: Path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" + jsonl_bytes()))
    assert rows_in(tmp_path / "a.jsonl.gz") == 2
    assert rows_in(tmp_path / "a.csv") is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"chosen": "x"}\n{"chosen": \n', r"a\.jsonl:2: is no JSON"),
        ("a.jsonl", b'{"chosen": "x"}\n\xff\xfe\n', r"a\.jsonl:2: is not UTF-8 text \(byte 0xff at 0\)"),
        ("a.jsonl", b'["x"]\n', r"a\.jsonl:1: must be an object with columns, got list"),
        ("a.json", b'{"a": [1], "b": [2]}', r"a\.json: holds neither a list"),
        ("a.json", b'[{"a": 1}, 2]', r"a\.json row 2: must be an object"),
        ("a.csv", b"chosen,rejected\nx,y\nx,y,z\n", r"a\.csv:3: has 3 cells where the header has 2"),
        ("a.csv", b"chosen,chosen\nx,y\n", r"a\.csv:1: must name its columns, each once"),
        ("a.csv", b'chosen,rejected\nx,"y\n', r"a\.csv:2: is no CSV"),
        ("a.csv", b"", r"a\.csv:1: must name its columns"),
        ("a.jsonl.gz", b'{"chosen": "x"}\n', r"a\.jsonl\.gz: is no whole gzip file"),
        ("a.jsonl.gz", gzip.compress(jsonl_bytes(), mtime=0)[:-9], r"a\.jsonl\.gz: is no whole gzip file"),
        ("a.parquet", b"not at all", r"a\.parquet: is no Parquet file"),
    ],
)
def test_broken_content_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, said: str):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_all(file)


def test_reading_goes_on_behind_a_broken_row(tmp_path: Path):
    good = b'{"chosen": "x"}'
    cases = {
        "a.jsonl": (b"\n".join([good, b"{", b"\xff", b"7", good]), ["not_json", "not_utf8", "not_json"], ":5"),
        "a.csv": (b"chosen\r\nx\r\n\xff\r\nx,y\r\nx\r\n", ["not_utf8", "not_csv"], ":5"),
        "a.json": (b"[" + good + b", 7, " + good + b"]", ["not_json"], " row 3"),
    }
    for name, (content, kinds, last) in cases.items():
        file = tmp_path / name
        file.write_bytes(content)
        rows = read(file)
        assert [row.kind for _, row in rows if isinstance(row, RowError)] == kinds
        assert rows[0][1] == {"chosen": "x"}
        assert rows[-1] == (f"{name}{last}", {"chosen": "x"})


def test_parquet_with_text_that_is_none(tmp_path: Path):
    column = pyarrow.array([b"x", b"a\xff", b"y"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"chosen": column}), tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet")
    assert [rows[0][1], rows[2][1]] == [{"chosen": "x"}, {"chosen": "y"}]
    assert str(rows[1][1]) == "a.parquet row 2: is not UTF-8 text (byte 0xff at 1); save the file as UTF-8"


def test_json_that_is_one_broken_value_ends_the_reading(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"chosen": "x"}, {"chosen": ')
    with pytest.raises(DataError, match=r"a\.json row 2: is no JSON .*name it \.jsonl"):
        read(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_bytes('{"chosen": "x"}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.jsonl: is UTF-16 text; save the file as UTF-8"):
        read(tmp_path / "a.jsonl")


def test_unknown_kinds():
    assert kind_of("pairs.parquet.gz") is kind_of("pairs.txt") is kind_of("jsonl") is None
    with pytest.raises(DataError, match=r"use \.jsonl, \.json, \.csv, \.parquet"):
        reader_of(Path("pairs.txt"))


def test_nothing_is_made_of_what_follows_a_broken_quote(tmp_path: Path):
    for content in ('p,c\nx,y\nx,"She said "hi" to\nhim, sadly"\n', 'p,c\nx,y\nx,"never closed\nx,y\n'):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(DataError, match=r"a\.csv:3: is no CSV from here on") as error:
            read(tmp_path / "a.csv")
        assert not isinstance(error.value, RowError)


def test_a_number_of_thousands_of_digits_is_a_bad_row(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"id": ' + "9" * 5000 + '}\n{"id": 1}\n')
    first, second = read(tmp_path / "a.jsonl")
    assert isinstance(first[1], RowError)
    assert first[1].kind == "not_json"
    assert second == ("a.jsonl:2", {"id": 1})


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path: Path):
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"chosen": [str(i) * 50 for i in range(500)]}), file)
    content = bytearray(file.read_bytes())
    content[20:400] = bytes(range(190)) * 2
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet"):
        read(file)
