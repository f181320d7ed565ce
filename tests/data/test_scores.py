import pytest

from align.data import scores
from align.data.prepare import prepare_pairs, split_by_prompt
from align.data.rows import DataError
from align.data.scores import require_scores

ROWS = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "chosen_score": i, "rejected_score": -i} for i in range(9)]


def test_scores_that_are_all_there(plain):
    prepared = prepare_pairs(ROWS, plain)
    require_scores(prepared.dataset, "train_dataset")
    for part in split_by_prompt(prepared, 0.5):
        require_scores(part, "train_dataset")


@pytest.mark.parametrize("part", [2, 3, 1000])
def test_the_first_pair_without_is_named(plain, monkeypatch, write_jsonl, part):
    from align.recipe.schema import SourceSettings

    monkeypatch.setattr(scores, "PART", part)
    rows = [*ROWS[:4], {**ROWS[4], "rejected_score": None}, {k: v for k, v in ROWS[5].items() if "score" not in k}]
    dataset = prepare_pairs(SourceSettings(path=write_jsonl(rows)), plain).dataset
    with pytest.raises(DataError, match=r"^pairs\.jsonl:5: .* there is none in 'rejected_score'; write both"):
        require_scores(dataset, "train_dataset")
    with pytest.raises(DataError, match=r"^pairs\.jsonl:6: .* there is none in 'chosen_score' and 'rejected_score'; "):
        require_scores(dataset.select([3, 5, 4]), "train_dataset")


def test_a_data_set_without_the_columns(plain):
    dataset = prepare_pairs(ROWS, plain).dataset.remove_columns(["chosen_score"])
    with pytest.raises(DataError, match=r"^eval_dataset: the objective needs a score of both completions"):
        require_scores(dataset, "eval_dataset")
