import datasets
import pytest

from align.data.inputs import completions_of_ids, inputs_of, pair_of_ids
from align.data.rows import DataError
from align.recipe.schema import SourceSettings

ROWS = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
IDS = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}


def test_one_or_several(write_jsonl):
    source = SourceSettings(path=write_jsonl(ROWS))
    data = datasets.Dataset.from_list(ROWS)
    for given, names in (
        (source, ["pairs.jsonl"]),
        (data, ["train_dataset"]),
        ([data], ["train_dataset"]),
        ([source, data], ["pairs.jsonl", "train_dataset[1]"]),
        (ROWS, ["train_dataset"]),
        (iter(ROWS), ["train_dataset"]),
    ):
        assert [i.source.name for i in inputs_of(given, "train_dataset")] == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "a streamed data set"),
        ([datasets.Dataset.from_list(ROWS).to_iterable_dataset()], "a streamed data set"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "several splits .train.; pass one of them"),
        ("pairs.jsonl", "got str"),
        (3, "got int"),
        ([1, "a"], "got int, str"),
    ],
)
def test_what_is_refused(given: object, said: str):
    with pytest.raises(DataError, match=said):
        inputs_of(given, "train_dataset")


def test_ids_are_told_by_their_columns():
    assert inputs_of(datasets.Dataset.from_list([IDS]), "d")[0].tokenised
    assert not inputs_of(datasets.Dataset.from_list(ROWS), "d")[0].tokenised


def test_pairs_of_ids():
    pair = pair_of_ids({**IDS, "weight": 2}, "d row 1")
    assert (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids, pair.weight, pair.where) == (
        [1],
        [2],
        [3],
        2.0,
        "d row 1",
    )
    assert pair.prompt_hash == pair_of_ids({**IDS, "chosen_ids": [9]}, "d row 2").prompt_hash
    assert pair.prompt_hash != pair_of_ids({**IDS, "prompt_ids": [9]}, "d row 2").prompt_hash
    for bad in ([], None, [1.5], [-1], "12"):
        with pytest.raises(DataError, match=r"d row 1: column 'chosen_ids' must be a list of at least one token id"):
            pair_of_ids({**IDS, "chosen_ids": bad}, "d row 1")


def test_completions_of_ids():
    shared = {"prompt_ids": [1], "weight": 2, "where": "a.jsonl:3"}
    (row,) = completions_of_ids({**shared, "completion_ids": [4], "desirable": False}, "d row 1")
    assert (row.completion_ids, row.desirable, row.weight, row.where) == ([4], False, 2.0, "a.jsonl:3")
    good, bad = completions_of_ids({**shared, "chosen_ids": [4], "rejected_ids": [5]}, "d row 1")
    assert (good.completion_ids, good.desirable, good.where) == ([4], True, "a.jsonl:3 (chosen)")
    assert (bad.completion_ids, bad.desirable, bad.where) == ([5], False, "a.jsonl:3 (rejected)")
    assert good.prompt_hash == bad.prompt_hash == row.prompt_hash
    for bad_raw, said in (
        ({"prompt_ids": [1], "completion_ids": [], "desirable": True}, "'completion_ids' must be a list"),
        ({"prompt_ids": [1], "completion_ids": [2]}, "'desirable' is not there"),
        ({"prompt_ids": [1], "completion_ids": [2], "desirable": 3}, "'desirable' must be true or false"),
    ):
        with pytest.raises(DataError, match=said):
            completions_of_ids(bad_raw, "d row 1")


def test_single_completions_of_ids_are_no_pairs():
    with pytest.raises(DataError, match="is a single completion"):
        pair_of_ids({"prompt_ids": [1], "completion_ids": [2], "desirable": True}, "d row 1")
    data = datasets.Dataset.from_list([{"prompt_ids": [1], "completion_ids": [2], "desirable": True}])
    assert inputs_of(data, "d")[0].tokenised
