import datasets
import pytest

from align.data.inputs import inputs_of, pair_of_ids
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
