import datasets
import pytest

from align.data.inputs import inputs_of
from align.data.shapes import COMPLETIONS, PAIRS, shape_of

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
SINGLE = {"prompt": "p", "completion": "a", "label": False}
PAIR_IDS = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
SINGLE_IDS = {"prompt_ids": [1], "completion_ids": [2], "desirable": True}


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([PAIR, SINGLE], PAIRS),
        ([SINGLE, PAIR], COMPLETIONS),
        ([{"prompt": "p", "completion": "a"}], PAIRS),
        ([], PAIRS),
        ([PAIR_IDS], PAIRS),
        ([SINGLE_IDS], COMPLETIONS),
        ([{**PAIR_IDS, **SINGLE_IDS}], PAIRS),
    ],
)
def test_the_first_row_or_the_columns_tell(rows, shape):
    (given,) = inputs_of(datasets.Dataset.from_list(rows), "d")
    assert shape_of(given) is shape


def test_a_first_row_that_cannot_be_read_tells_nothing(tmp_path):
    from align.recipe.schema import SourceSettings

    (tmp_path / "a.jsonl").write_text('{"prompt": \n{"prompt": "p", "completion": "a", "label": 1}\n')
    (given,) = inputs_of(SourceSettings(path=str(tmp_path / "a.jsonl")), "d")
    assert shape_of(given) is COMPLETIONS


def test_a_pair_is_one_row_of_pairs_and_two_of_completions():
    for raw, make in ((PAIR, lambda s: s.reader("auto")), (PAIR_IDS, lambda s: s.from_ids)):
        assert [len(make(shape)(raw, "a:1")) for shape in (PAIRS, COMPLETIONS)] == [1, 2]
