import pytest

from align.data.preview import preview, read_previewed
from align.data.rows import DataError, RowError
from align.recipe.schema import SourceSettings

ROW = {"prompt": "Is the sky blue today?", "chosen": " Yes, it is.", "rejected": " No."}
TURNS = {
    "prompt": [{"role": "user", "content": "Is it? 😀 да"}],
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}


def seen(tokenizer, write_jsonl, content, **settings):
    source = SourceSettings(path=write_jsonl(content))
    found = read_previewed(source, tokenizer, **settings)
    return [row if isinstance(row, RowError) else preview(tokenizer, *row) for row in found]


def test_the_pieces_are_what_the_template_writes(chatml, write_jsonl):
    (pair,) = seen(chatml, write_jsonl, [TURNS])
    text = "<|im_start|>user\nIs it? 😀 да<|im_end|>\n<|im_start|>assistant\n"
    assert [(p.kind, p.text) for p in pair.prompt] == [("prompt", text)]
    assert [(p.kind, p.text) for p in pair.chosen] == [("completion", "Yes."), ("closing", "<|im_end|>")]
    assert (pair.truncated, pair.dropped, pair.where) == (False, False, "pairs.jsonl:1")


@pytest.mark.parametrize("policy", ["keep_start", "keep_end", "drop"])
def test_pieces_add_up_and_what_is_cut_is_not_trained_on(plain, llama, write_jsonl, policy):
    for tokenizer in (plain, llama):
        (whole,) = seen(tokenizer, write_jsonl, [ROW])
        length = sum(p.tokens for p in [*whole.prompt, *whole.chosen])
        limit = length - 2
        (pair,) = seen(tokenizer, write_jsonl, [ROW], max_length=limit, truncation=policy)
        for side in ("prompt", "chosen", "rejected"):
            now, then = getattr(pair, side), getattr(whole, side)
            assert "".join(p.text for p in now) == "".join(p.text for p in then)
        kept = sum(p.tokens for p in [*pair.prompt, *pair.chosen] if p.kind != "cut")
        assert (kept, pair.dropped) == ((0, True) if policy == "drop" else (limit, False))
        if policy == "keep_start":
            assert [p.kind for p in pair.chosen] == ["completion", "cut"]
        if policy == "keep_end":
            assert pair.chosen[-1].kind == "closing"
            bos = tokenizer is llama
            assert [p.kind for p in pair.prompt] == (["prompt", "cut", "prompt"] if bos else ["cut", "prompt"])


def test_bad_rows_stand_where_they_are(plain, write_jsonl):
    rows = [ROW, {**ROW, "chosen": ""}, ROW, {**ROW, "prompt": "x " * 50}]
    found = seen(plain, write_jsonl, rows, start=2, rows=3, max_length=30)
    assert [getattr(row, "kind", None) for row in found] == ["empty", None, "nothing_left"]
    assert found[1].where == "pairs.jsonl:3"


def test_tokenised_rows_and_plain_data(plain, write_jsonl):
    (pair,) = seen(plain, write_jsonl, [{"prompt_ids": [5, 6], "chosen_ids": [7, 8], "rejected_ids": [9]}])
    assert isinstance(pair, RowError)  # a file names no columns beforehand: its rows are read as text
    with pytest.raises(DataError, match="no file or folder"):
        read_previewed(SourceSettings(path="nowhere.jsonl"), plain)
    mapping = seen(plain, write_jsonl, [ROW])[0].as_mapping()
    assert mapping["chosen"][-1] == {"kind": "closing", "text": "<|endoftext|>", "tokens": 1}


@pytest.mark.parametrize("label", [True, False])
def test_a_single_completion_stands_on_one_side(chatml, write_jsonl, label):
    single = {"prompt": TURNS["prompt"], "completion": TURNS["chosen"], "label": label}
    (row,) = seen(chatml, write_jsonl, [single])
    sides = [[(p.kind, p.text) for p in side] for side in (row.chosen, row.rejected)]
    assert sides[not label] == [("completion", "Yes."), ("closing", "<|im_end|>")]
    assert (sides[label], row.desirable) == ([], label)
    (dropped,) = seen(chatml, write_jsonl, [single], max_length=2, truncation="drop")
    assert (dropped.dropped, dropped.truncated) == (True, True)
