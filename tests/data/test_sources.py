import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from align.data.rows import DataError
from align.data.sources import count_rows, open_dataset, open_list, open_source, read_rows, take_share
from align.recipe.schema import SourceSettings, SynthSettings

ROWS = [{"chosen": f"c{i}", "rejected": f"r{i}"} for i in range(10)]


def rows_of(**settings: Any) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(SourceSettings(**settings))]


def test_relative_paths_start_where_the_command_runs(write_jsonl, monkeypatch: pytest.MonkeyPatch):
    file = Path(write_jsonl(ROWS))
    monkeypatch.chdir(file.parent)
    assert list(read_rows(SourceSettings(path="pairs.jsonl")))[2] == ("pairs.jsonl:3", ROWS[2])


def test_a_missing_file_is_named_in_full_with_its_neighbour(write_jsonl):
    file = Path(write_jsonl(ROWS))
    with pytest.raises(DataError) as error:
        rows_of(path=str(file.with_name("pair.jsonl")))
    assert f"no file or folder {file.with_name('pair.jsonl')} (relative paths start at" in str(error.value)
    assert "did you mean 'pairs.jsonl'?" in str(error.value)


def test_a_missing_folder_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="its folder does not exist either"):
        rows_of(path=str(tmp_path / "nowhere" / "pairs.jsonl"))


def test_splits_and_configs_are_not_for_files(write_jsonl):
    file = write_jsonl(ROWS)
    with pytest.raises(DataError, match="a file has no splits, but split is 'train'"):
        rows_of(path=file, split="train")
    with pytest.raises(DataError, match="'config' is for hub names"):
        rows_of(path=file, config="main")


def test_synth_is_refused():
    with pytest.raises(DataError, match="make its pairs first"):
        open_source(SourceSettings(synth=SynthSettings()))


def test_a_saved_data_set(tmp_path: Path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    found = list(read_rows(SourceSettings(path=str(tmp_path / "saved"))))
    assert found[2] == ("saved row 3", ROWS[2])
    assert open_source(SourceSettings(path=str(tmp_path / "saved"))).count() == 10
    with pytest.raises(DataError, match="has no splits to choose from, but split is 'test'"):
        rows_of(path=str(tmp_path / "saved"), split="test")


def test_a_saved_data_set_with_splits(tmp_path: Path):
    parts = {"train": datasets.Dataset.from_list(ROWS[:7]), "test": datasets.Dataset.from_list(ROWS[7:])}
    folder = str(tmp_path / "saved")
    datasets.DatasetDict(parts).save_to_disk(folder)
    assert rows_of(path=folder, split="test") == ROWS[7:]
    with pytest.raises(DataError, match=r"has several splits \(train, test\); name one with 'split'"):
        rows_of(path=folder)
    with pytest.raises(DataError, match=r"has no split 'tset'; did you mean 'test'\?"):
        rows_of(path=folder, split="tset")


def test_a_folder_that_load_dataset_reads(tmp_path: Path, write_jsonl):
    write_jsonl(ROWS, name="train.jsonl")
    assert rows_of(path=str(tmp_path)) == ROWS


def test_any_other_folder_is_refused(tmp_path: Path):
    (tmp_path / "notes.xyz").write_text("nothing")
    with pytest.raises(DataError, match=r"is a folder, but neither one saved by .* name one data file in it"):
        rows_of(path=str(tmp_path))


def test_a_hub_name_goes_to_load_dataset(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load(path: str, name: str | None, split: str | None) -> datasets.Dataset:
        asked.append((path, name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = list(read_rows(SourceSettings(path="someone/pairs", config="small", split="train[:10]")))
    assert asked == [("someone/pairs", "small", "train[:10]")]
    assert found[0] == ("someone/pairs row 1", ROWS[0])


def test_a_hub_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    def load(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"no file or folder .*someone/pairs .*the hub gave no such data set .*no network"
    ):
        rows_of(path="someone/pairs")


def test_a_data_set_from_python_counts_from_one():
    opened = open_dataset(datasets.Dataset.from_list(ROWS).with_format("torch"), name="train_dataset")
    assert list(opened.read())[2] == ("train_dataset row 3", ROWS[2])
    assert next(open_list(ROWS, name="rows").read()) == ("rows row 1", ROWS[0])


def test_columns_are_renamed_even_crosswise(write_jsonl):
    file = write_jsonl([{"question": "q", "chosen": "worse", "rejected": "better"}])
    columns = {"prompt": "question", "chosen": "rejected", "rejected": "chosen"}
    row = rows_of(path=file, columns=columns)[0]
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("q", "better", "worse")


def test_a_column_that_is_missing_is_named_with_the_others(write_jsonl):
    file = write_jsonl([{"question": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError) as error:
        rows_of(path=file, columns={"prompt": "qestion"})
    assert str(error.value) == (
        "pairs.jsonl:1: there is no column 'qestion' (columns: question, chosen, rejected); did you mean 'question'?"
    )


@pytest.mark.parametrize(("share", "expected"), [(1, 10), (2, 20), (0.5, 5), (1.5, 15), (0.25, 3), (0.001, 0)])
def test_shares(write_jsonl, share: float, expected: int):
    found = rows_of(path=write_jsonl(ROWS), weight=share)
    assert len(found) == expected
    assert found[: 10 * int(share)] == ROWS * int(share)
    rest = found[10 * int(share) :]
    assert rest == [row for row in ROWS if row in rest], "order is kept and no row comes twice"


@pytest.mark.parametrize("share", [1, 0.5, 0.25, 1.5, 2.3, 0.001])
def test_rows_are_counted_with_their_share(write_jsonl, share: float):
    source = SourceSettings(path=write_jsonl(ROWS), weight=share)
    assert count_rows(source) == len(list(read_rows(source)))


def test_counting_fetches_nothing_but_misses_files():
    assert count_rows(SourceSettings(path="someone/pairs")) is None
    with pytest.raises(DataError, match="no file or folder"):
        count_rows(SourceSettings(path="./pairs.jsonl"))


def test_a_share_is_the_same_everywhere():
    def read(count: int) -> Any:
        return lambda: iter([(str(i), {}) for i in range(count)])

    # Written down from random.Random(0).random(), whose sequence Python promises to keep.
    assert [where for where, _ in take_share(read(8), 0.5)] == ["2", "3", "5", "7"]
    assert len(list(take_share(read(2501), 0.3))) == 750


def test_content_follows_the_bytes(write_jsonl, tmp_path: Path):
    before = open_source(SourceSettings(path=write_jsonl(ROWS))).content()
    assert open_source(SourceSettings(path=write_jsonl(ROWS))).content() == before
    assert open_source(SourceSettings(path=write_jsonl(ROWS[1:]))).content() != before
    assert open_list(ROWS, name="a").content() != open_list(ROWS[1:], name="a").content()
    assert json.loads(Path(write_jsonl(ROWS[:1])).read_text()) == ROWS[0]
