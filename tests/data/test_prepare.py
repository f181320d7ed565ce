import csv
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from align.data import tokenize
from align.data.bad_rows import read_skipped
from align.data.prepare import prepare_pairs, prepare_unpaired, split_by_prompt
from align.data.rows import DataError, RowError
from align.data.store import PreparationReport, describe
from align.recipe.schema import SourceSettings

ROWS = [
    {"prompt": f"Is the sky {i % 40}?", "chosen": f" Yes {i}.", "rejected": " No.", "weight": 1 + i % 2}
    for i in range(60)
]
HH_FILE = os.environ.get("ALIGN_HH_FILE", "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that were tokenised."""
    sizes: list[int] = []
    whole = tokenize.PairTokenizer.__call__

    def count(self: Any, rows: Any, refuse: Any) -> Any:
        sizes.append(len(rows))
        return whole(self, rows, refuse)

    monkeypatch.setattr(tokenize.PairTokenizer, "__call__", count)
    return sizes


def ids(data: datasets.Dataset) -> list[Any]:
    return [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], row["weight"]) for row in data]


def save(folder: Path, kind: str) -> str:
    file = folder / f"pairs{kind}"
    if kind in (".jsonl", ".jsonl.gz"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
    elif kind == ".json":
        file.write_text(json.dumps(ROWS))
    elif kind == ".csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    else:
        datasets.Dataset.from_list(ROWS).save_to_disk(file)
    return str(file)


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", "_folder"])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, plain, kind: str):
    prepared = prepare_pairs(SourceSettings(path=save(tmp_path, kind)), plain)
    direct = prepare_pairs(ROWS, plain)
    assert ids(prepared.dataset) == ids(direct.dataset)
    assert prepared.dataset["weight"][:2] == [1.0, 2.0]
    assert replace(prepared.report, sources=direct.report.sources) == direct.report
    assert prepared.report.pairs == 60


def test_columns_and_places(plain, write_jsonl):
    data = prepare_pairs([SourceSettings(path=write_jsonl(ROWS))], plain).dataset
    assert data.column_names == [
        *("prompt_ids", "chosen_ids", "rejected_ids", "chosen_score", "rejected_score"),
        *("length", "weight", "where", "prompt_hash"),
    ]
    assert data[16]["where"] == "pairs.jsonl:17"
    assert prepare_pairs(datasets.Dataset.from_list(ROWS), plain).dataset[2]["where"] == "train_dataset row 3"
    assert plain.decode(data[16]["prompt_ids"]) == ROWS[16]["prompt"]
    assert plain.decode(data[16]["chosen_ids"]) == " Yes 16.<|endoftext|>"


def test_the_second_time_nothing_is_tokenised(chatml, write_jsonl, calls, caches: Path, capsys):
    source = SourceSettings(path=write_jsonl(ROWS))
    first = prepare_pairs([source], chatml)
    assert (calls, first.cached) == ([60], False)
    assert "tokenizing" in capsys.readouterr().err
    chatml(["a", "bc"], padding="max_length", max_length=9)
    write_jsonl(ROWS)
    second = prepare_pairs([source], chatml)
    assert (calls, second.cached) == ([60], True)
    assert capsys.readouterr().err == ""
    assert second.report == first.report
    assert ids(second.dataset) == ids(first.dataset)
    assert second.dataset._fingerprint == first.dataset._fingerprint
    assert sorted(f.suffix for f in (caches / "prepared").iterdir()) == [".arrow", ".json"]


def test_what_decides_changes_the_key(chatml, write_jsonl, calls):
    file = write_jsonl(ROWS)
    mapped = {"prompt": "chosen", "chosen": "prompt"}
    variants: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({}, {"max_length": 512}),
        ({}, {"truncation": "drop"}),
        ({"weight": 0.5}, {}),
        ({"columns": mapped}, {}),
        ({"format": "preference"}, {}),
    ]
    prints = [prepare_pairs([SourceSettings(path=file, **s)], chatml, **o).dataset._fingerprint for s, o in variants]
    chatml.chat_template += " "
    prints.append(prepare_pairs([SourceSettings(path=file)], chatml).dataset._fingerprint)
    write_jsonl([*ROWS, {**ROWS[0], "chosen": " New."}])
    prints.append(prepare_pairs([SourceSettings(path=file)], chatml).dataset._fingerprint)
    assert len(set(prints)) == len(prints) == len(calls)


def test_a_mixture_is_its_sources_one_after_the_other(plain, write_jsonl):
    a = SourceSettings(path=write_jsonl(ROWS, "a.jsonl"), weight=1.5)
    b = SourceSettings(path=write_jsonl(ROWS[:10], "b.jsonl"), weight=0.5)
    prepared = prepare_pairs([a, b, datasets.Dataset.from_list(ROWS[:2])], plain)
    names = [where.split(":")[0].split(" ")[0] for where in prepared.dataset["where"]]
    assert names == ["a.jsonl"] * 90 + ["b.jsonl"] * 5 + ["train_dataset[2]"] * 2
    assert prepared.report.rows == 97


BAD = [
    {"prompt": "p", "chosen": "a", "rejected": "a"},
    {"prompt": "p", "chosen": "", "rejected": "a"},
    {"prompt": "p", "rejected": "a"},
    {"prompt": "p " * 40, "chosen": "a", "rejected": "b"},
]


def test_bad_rows_are_skipped_and_written_down(plain, tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    lines = [json.dumps(row).encode() for row in [*ROWS[:3], *BAD]] + [b'{"prompt": ', b"\xff{}", b"[1]"]
    file.write_bytes(b"\n".join([*lines, json.dumps(ROWS[3]).encode()]))
    prepared = prepare_pairs(SourceSettings(path=str(file)), plain, max_length=20, on_bad_row="skip")
    assert prepared.dataset["where"][:] == ["pairs.jsonl:1", "pairs.jsonl:2", "pairs.jsonl:3", "pairs.jsonl:11"]
    skipped = list(read_skipped(prepared.skipped_file))
    kinds = {row.where.split(":")[1]: row.kind for row in skipped}
    assert kinds == {
        "4": "same",
        "5": "empty",
        "6": "missing",
        "7": "nothing_left",
        "8": "not_json",
        "9": "not_utf8",
        "10": "not_json",
    }
    by_line = {int(row.where.split(":")[1]): row for row in skipped}
    assert [by_line[4 + i].row for i in range(4)] == BAD
    assert [by_line[i].text for i in (8, 9, 10)] == ['{"prompt": ', "\\xff{}", "[1]"]
    assert (prepared.report.rows, prepared.report.pairs, prepared.report.skipped_rows) == (11, 4, 7)

    with pytest.raises(RowError, match=r"pairs\.jsonl:\d+: .*on_bad_row: skip") as first:
        prepare_pairs(SourceSettings(path=str(file)), plain, max_length=20)  # the same key, which has bad rows
    assert first.value.kind in kinds.values()
    assert prepare_pairs(SourceSettings(path=str(file)), plain, max_length=20, on_bad_row="skip").cached


def test_another_name_is_no_other_content(plain, write_jsonl, calls):
    bad = {"prompt": "p", "chosen": "a", "rejected": "a"}
    first = prepare_pairs(SourceSettings(path=write_jsonl([*ROWS, bad])), plain, on_bad_row="skip")
    again = prepare_pairs(SourceSettings(path=write_jsonl([*ROWS, bad], "b.jsonl")), plain, on_bad_row="skip")
    assert (calls, again.cached) == ([60], True)
    assert again.dataset["where"][:] == [f"b.jsonl:{i}" for i in range(1, 61)]
    assert ids(again.dataset) == ids(first.dataset)
    assert [row.where for row in read_skipped(again.skipped_file)] == ["b.jsonl:61"]
    assert again.report.sources == ["b.jsonl"]


def test_two_sources_that_had_one_name_are_read_again(plain, write_jsonl, tmp_path: Path):
    (tmp_path / "x").mkdir()
    a, b = write_jsonl(ROWS[:5]), write_jsonl(ROWS[5:9], "x/pairs.jsonl")
    assert set(prepare_pairs([SourceSettings(path=a), SourceSettings(path=b)], plain).dataset["where"]) == {
        f"pairs.jsonl:{i}" for i in range(1, 6)
    }
    c = write_jsonl(ROWS[5:9], "x/other.jsonl")
    names = prepare_pairs([SourceSettings(path=a), SourceSettings(path=c)], plain).dataset["where"][:]
    assert names == [f"pairs.jsonl:{i}" for i in range(1, 6)] + [f"other.jsonl:{i}" for i in range(1, 5)]


def test_many_batches(plain, calls):
    prepared = prepare_pairs(ROWS * 40, plain)
    assert calls == [1000, 1000, 400]
    assert len(prepared.dataset) == prepared.report.pairs == 2400


def test_a_row_that_cannot_be_used_leaves_nothing_behind(plain, write_jsonl, caches: Path):
    file = write_jsonl([*ROWS, {"prompt": "p", "chosen": "a", "rejected": "a"}])
    with pytest.raises(DataError, match=r"pairs\.jsonl:61: chosen and rejected are the same"):
        prepare_pairs([SourceSettings(path=file)], plain)
    assert list((caches / "prepared").iterdir()) == []


def test_no_pair_left(plain):
    with pytest.raises(DataError, match="no pair is left: the sources hold 60 rows: 60 dropped for their length"):
        prepare_pairs(ROWS, plain, max_length=2, truncation="drop")
    with pytest.raises(DataError, match="no pair is left: the sources hold no rows"):
        prepare_pairs([], plain)


def test_pairs_that_are_tokens_already(plain):
    given = prepare_pairs(ROWS, plain).dataset
    again = prepare_pairs(given, plain)
    pandas.testing.assert_frame_equal(again.dataset.to_pandas(), given.to_pandas())
    bare = prepare_pairs(given.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]), plain, max_length=9)
    assert set(bare.dataset["weight"]) == {1.0}
    assert bare.dataset[2]["where"] == "train_dataset row 3"
    assert max(len(r["prompt_ids"]) + len(r["chosen_ids"]) for r in given) > 9
    assert max(len(r["prompt_ids"]) + len(r["chosen_ids"]) for r in bare.dataset) == 9


def test_scores_come_through(plain, tmp_path: Path):
    file = tmp_path / "pairs.csv"
    file.write_text("prompt,chosen,rejected,chosen_score,worse\np, a, b,0.5,-2\nq, a, b,,1\n")
    source = SourceSettings(path=str(file), columns={"rejected_score": "worse"})
    data = prepare_pairs(source, plain).dataset
    np.testing.assert_array_equal(data["chosen_score"], [0.5, np.nan])
    np.testing.assert_array_equal(data["rejected_score"], [-2.0, 1.0])
    assert data.features["chosen_score"].dtype == "float32"
    again = prepare_pairs(data, plain, max_length=9).dataset
    np.testing.assert_array_equal(again["chosen_score"], [0.5, np.nan])
    with pytest.raises(RowError, match="column 'chosen_score' must be a finite number, got 'high'"):
        prepare_pairs([{**ROWS[0], "chosen_score": "high"}], plain)


SINGLE = [
    {"prompt": f"Is the sky {i % 40}?", "completion": f" Yes {i}.", "label": i % 3 > 0, "weight": 1 + i % 2}
    for i in range(60)
]


def singles(data: datasets.Dataset) -> list[Any]:
    return [(row["prompt_ids"], row["completion_ids"], row["desirable"], row["weight"]) for row in data]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_single_completions_of_every_kind_of_file(tmp_path: Path, plain, kind: str):
    table = pandas.DataFrame(SINGLE)
    file = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        getattr(table, f"to_{kind}")(file, index=False)
    prepared = prepare_unpaired(SourceSettings(path=str(file)), plain)
    assert prepared.dataset.column_names == [
        *("prompt_ids", "completion_ids", "desirable"),
        *("length", "weight", "where", "prompt_hash"),
    ]
    assert singles(prepared.dataset) == singles(prepare_unpaired(SINGLE, plain).dataset)
    row = prepared.dataset[16]
    assert (plain.decode(row["prompt_ids"]), row["desirable"]) == (SINGLE[16]["prompt"], True)
    assert plain.decode(row["completion_ids"]) == " Yes 16.<|endoftext|>"
    assert row["length"] == len(row["prompt_ids"]) + len(row["completion_ids"])
    assert (prepared.report.desirable, prepared.report.undesirable, prepared.report.pairs) == (40, 20, 0)
    kept = prepared.report.desirable_tokens + prepared.report.undesirable_tokens
    assert kept == sum(len(row["completion_ids"]) for row in prepared.dataset)
    assert describe(prepared.report).startswith("60 completions (40 desirable, 20 undesirable); 0.0 % truncated")
    assert prepare_unpaired(SourceSettings(path=str(file)), plain).cached


def test_a_pair_taken_apart_has_the_ids_of_the_pair(chatml, plain, plain_llama, write_jsonl):
    turns = [{"role": "user", "content": "Hi"}]
    rows = [*ROWS[:5], {"prompt": turns, "chosen": "Yo", "rejected": "No", "rejected_ended": False}]
    for tokenizer in (chatml, plain, plain_llama):
        source = SourceSettings(path=write_jsonl(rows))
        pairs, apart = prepare_pairs(source, tokenizer), prepare_unpaired(source, tokenizer)
        assert apart.dataset._fingerprint != pairs.dataset._fingerprint
        expected = [
            (pair["prompt_ids"], pair[f"{side}_ids"], side == "chosen", pair["weight"])
            for pair in pairs.dataset
            for side in ("chosen", "rejected")
        ]
        assert singles(apart.dataset) == expected
        assert apart.dataset["where"][:3] == [
            "pairs.jsonl:1 (chosen)",
            "pairs.jsonl:1 (rejected)",
            "pairs.jsonl:2 (chosen)",
        ]
        assert (
            apart.dataset["prompt_hash"][::2] == apart.dataset["prompt_hash"][1::2] == pairs.dataset["prompt_hash"][:]
        )
        assert (apart.report.rows, apart.report.desirable, apart.report.undesirable) == (12, 6, 6)
        taken = prepare_unpaired(pairs.dataset, tokenizer)
        assert singles(taken.dataset) == expected
        assert taken.dataset["where"][:] == apart.dataset["where"][:]


def test_places_of_pairs_taken_apart_follow_the_file(plain, write_jsonl, calls):
    rows = [*ROWS[:3], {"prompt": "p " * 9, "chosen": "a " * 30, "rejected": "b"}, {"prompt": "p " * 40, **BAD[0]}]
    options: dict[str, Any] = {"max_length": 40, "truncation": "drop", "on_bad_row": "skip"}
    first = prepare_unpaired(SourceSettings(path=write_jsonl(rows)), plain, **options)
    again = prepare_unpaired(SourceSettings(path=write_jsonl(rows, "b.jsonl")), plain, **options)
    assert again.cached
    assert again.dataset["where"][-2:] == ["b.jsonl:3 (rejected)", "b.jsonl:4 (rejected)"]
    assert (first.report.dropped, first.report.skipped) == (1, {"same": 1})


def test_a_bad_side_of_a_pair_is_written_down_with_its_row(plain, write_jsonl):
    rows = [*ROWS[:2], {**ROWS[2], "prompt": "p " * 40}]
    prepared = prepare_unpaired(SourceSettings(path=write_jsonl(rows)), plain, max_length=20, on_bad_row="skip")
    skipped = list(read_skipped(prepared.skipped_file))
    assert [row.where for row in skipped] == ["pairs.jsonl:3 (chosen)", "pairs.jsonl:3 (rejected)"]
    assert [row.row for row in skipped] == [rows[2]] * 2


def test_single_completions_that_are_tokens_already(plain):
    given = prepare_unpaired(SINGLE, plain).dataset
    assert prepare_unpaired(given, plain).dataset.to_list() == given.to_list()
    bare = prepare_unpaired(given.select_columns(["prompt_ids", "completion_ids", "desirable"]), plain, max_length=9)
    assert set(bare.dataset["weight"]) == {1.0}
    assert max(bare.dataset["length"]) == 9
    with pytest.raises(RowError, match=r"train_dataset row 1: column 'desirable' is not there"):
        prepare_unpaired(given.select_columns(["prompt_ids", "completion_ids"]), plain)


def test_pairs_that_are_single_completions_are_told_so(plain, write_jsonl):
    said = r"is a single completion with a label, but the objective needs pairs .* such as kto"
    for given in (SourceSettings(path=write_jsonl(SINGLE)), prepare_unpaired(SINGLE, plain).dataset):
        with pytest.raises(RowError, match=said) as error:
            prepare_pairs(given, plain)
        assert error.value.kind == "missing"
    with pytest.raises(DataError, match=rf"no pair is left: .*60 that cannot be used \(missing; the first: .*{said}"):
        prepare_pairs(SINGLE, plain, on_bad_row="skip")


def test_the_split_of_single_completions_keeps_prompts_together(plain):
    prepared = prepare_unpaired(ROWS, plain)
    train, held_out = split_by_prompt(prepared, 0.3)
    assert len(train) + len(held_out) == 120
    assert not set(train["prompt_hash"]) & set(held_out["prompt_hash"])
    _, of_pairs = split_by_prompt(prepare_pairs(ROWS, plain), 0.3)
    assert set(of_pairs["prompt_hash"]) == set(held_out["prompt_hash"])
    with pytest.raises(DataError, match="leaves no completion held out"):
        split_by_prompt(prepare_unpaired(ROWS[:1], plain), 1e-9)
    with pytest.raises(DataError, match="no completion is left"):
        prepare_unpaired(SINGLE, plain, max_length=2, truncation="drop")


def test_the_split_keeps_prompts_together(chatml, llama):
    prepared = prepare_pairs(ROWS, chatml)
    train, held_out = split_by_prompt(prepared, 0.3)
    assert len(train) + len(held_out) == 60
    assert not set(train["prompt_hash"]) & set(held_out["prompt_hash"])
    again = split_by_prompt(prepared, 0.3)
    assert [part._fingerprint for part in again] == [train._fingerprint, held_out._fingerprint]
    other = split_by_prompt(prepare_pairs(ROWS[::-1], llama, max_length=9), 0.3)
    assert set(other[1]["prompt_hash"]) == set(held_out["prompt_hash"])
    more = split_by_prompt(prepared, 0.6)
    assert set(held_out["prompt_hash"]) < set(more[1]["prompt_hash"])


def test_the_share_held_out_is_about_the_one_asked_for(plain):
    rows = [{"prompt": f"Number {i}", "chosen": "a", "rejected": "b"} for i in range(2000)]
    _, held_out = split_by_prompt(prepare_pairs(rows, plain), 0.1)
    assert abs(len(held_out) - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5


def test_a_split_with_an_empty_side_is_refused(plain):
    prepared = prepare_pairs(ROWS[:1], plain)
    for fraction, said in ((1e-9, "leaves no pair held out"), (0.999999999, "leaves no pair to train on")):
        with pytest.raises(DataError, match=said):
            split_by_prompt(prepared, fraction)


def test_a_report_in_one_line():
    report = PreparationReport(
        rows=1156,
        pairs=1156,
        truncated=36,
        dropped=0,
        silent=0,
        transcribed=1,
        skipped={"empty": 2, "same": 1},
        prompt_tokens=1,
        chosen_tokens=1,
        rejected_tokens=1,
        max_length=1024,
        truncation="keep_start",
        sources=["a.jsonl"],
    )
    assert describe(report) == (
        "1,156 pairs; 3.1 % truncated (keep_start, 1024 tokens); 0 dropped; 3 bad rows skipped (2 empty, 1 same); "
        "1 written as 'Human:'/'Assistant:' transcripts, for want of a chat template"
    )
    bare = replace(report, skipped={}, transcribed=0)
    assert describe(bare) == "1,156 pairs; 3.1 % truncated (keep_start, 1024 tokens); 0 dropped"


@pytest.mark.skipif(not Path(HH_FILE).is_file(), reason="ALIGN_HH_FILE names no file")
def test_published_transcripts_are_prepared_whole(plain):
    prepared = prepare_pairs([SourceSettings(path=HH_FILE)], plain, max_length=None)
    with gzip.open(HH_FILE, "rt", encoding="utf-8") as stream:
        raws = [json.loads(line) for line in stream]
    for row, raw in zip(prepared.dataset, raws, strict=True):
        assert plain.decode(row["prompt_ids"] + row["chosen_ids"]) == raw["chosen"] + "<|endoftext|>"
        assert plain.decode(row["prompt_ids"] + row["rejected_ids"]) == raw["rejected"] + "<|endoftext|>"
    assert describe(prepared.report).startswith("1,156 pairs; 0.0 % truncated (keep_start, no limit); 0 dropped; 4 ")
