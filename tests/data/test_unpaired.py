from typing import Any

import pytest

from align.data.rows import RowError
from align.data.unpaired import is_single, to_unpaired

USER = {"role": "user", "content": "Is the sky blue?"}
YES = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}
SURE = {"role": "user", "content": "Sure?"}
HUMAN = "\n\nHuman: Is the sky blue?\n\nAssistant:"
TEXT = {"prompt": "Sky?", "completion": " Blue.", "label": True}
TURNS = {"prompt": [USER], "completion": [YES], "label": False}


def one(raw: dict[str, Any], form: Any = "auto") -> Any:
    (row,) = to_unpaired(raw, "a.jsonl:1", form)
    return row


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": [USER], "completion": [YES]},
        {"completion": [USER, YES]},
        {"prompt": None, "completion": [USER, YES]},
        {"prompt": USER["content"], "completion": [YES]},
        {"prompt": "Is the  sky blue?", "completion": [USER, YES]},
        {"prompt": [USER], "completion": [USER, YES]},
        {"prompt": [USER], "completion": "Yes."},
        {"prompt": [USER], "completion": YES},
        {"completion": f"{HUMAN} Yes."},
    ],
)
def test_every_conversational_form_makes_the_same_row(raw: dict[str, Any]):
    row = one({**raw, "label": 1})
    assert (row.prompt, row.completion, row.desirable, row.where) == ([USER], [YES], True, "a.jsonl:1")


def test_plain_text_is_taken_as_it_is():
    row = one({**TEXT, "label": "False", "weight": 2, "completion_ended": False})
    assert (row.prompt, row.completion, row.desirable) == ("Sky?", " Blue.", False)
    assert (row.weight, row.ended) == (2.0, (False,))
    assert one({**TEXT, "prompt": ""}).prompt == ""
    assert one({**TEXT, "completion": f"{HUMAN} Yes."}, "preference").completion == f"{HUMAN} Yes."


def test_what_follows_a_given_prompt_is_the_completion():
    whole = [USER, YES, SURE, NO]
    assert one({"completion": whole, "label": True}).completion == [NO]
    assert one({"prompt": USER["content"], "completion": whole, "label": True}).completion == [YES, SURE, NO]
    assert one({"prompt": [USER, YES, SURE], "completion": whole, "label": True}).completion == [NO]


def test_transcripts_may_have_their_prompt_apart():
    row = one({"prompt": HUMAN, "completion": " Yes.", "label": True}, "hh")
    assert (row.prompt, row.completion) == ([USER], [YES])
    assert one({"completion": HUMAN + " ", "label": True}).says_nothing


def test_a_pair_is_taken_apart():
    raw = {"prompt": [USER], "chosen": [YES], "rejected": [NO], "weight": 3, "rejected_ended": False}
    good, bad = to_unpaired({**raw, "label": "unrelated", "completion": None}, "a.jsonl:17")
    assert (good.completion, good.desirable, good.where) == ([YES], True, "a.jsonl:17 (chosen)")
    assert (bad.completion, bad.desirable, bad.where) == ([NO], False, "a.jsonl:17 (rejected)")
    assert (good.ended, bad.ended) == ((True,), (False,))
    assert good.weight == bad.weight == 3.0
    assert good.prompt_digest == bad.prompt_digest == one(TURNS).prompt_digest


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        ({"prompt": "p", "completion": "c"}, "missing", "column 'label' is not there; write true where the completion"),
        ({**TEXT, "label": "good"}, "wrong_type", "column 'label' must be true or false, got 'good'"),
        ({"prompt": "p", "answer": "c", "label": 1}, "missing", "there is no column 'completion'"),
        ({**TEXT, "completion": None}, "missing", "column 'completion' is null"),
        ({**TEXT, "completion": " "}, "empty", "column 'completion' is empty; remove the row"),
        ({**TEXT, "completion": ""}, "empty", "column 'completion' is empty; remove the row"),
        (
            {**TEXT, "chosen": "c"},
            "wrong_type",
            "both a single completion and a pair: it has columns completion, chose",
        ),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "same", "chosen and rejected are the same"),
        ({"prompt": "p", "chosen": "a", "label": 1}, "missing", "there is no column 'rejected'"),
        ({"prompt": "p", "chosen": None, "rejected": None}, "missing", "column 'chosen' is null"),
        ({"completion": "c", "label": True}, "missing", "there is no column 'prompt'; name the prompt's column"),
        ({"question": "q", "completion": "c", "label": True}, "missing", "map it: columns: {prompt: question}"),
        ({**TEXT, "prompt": 3}, "wrong_type", "column 'prompt' must be turns, got int"),
        ({**TEXT, "prompt": "\ud83d"}, "not_utf8", "column 'prompt' holds half a character"),
        ({**TURNS, "prompt": [USER, YES]}, "role_order", "column 'prompt' must end with a user turn"),
        ({**TURNS, "completion": [YES, SURE]}, "role_order", "'completion' must begin and end with an assistant turn"),
        ({**TURNS, "completion": [SURE, YES]}, "prompts_differ", "'prompt' is not how the completion begins"),
        (
            {**TURNS, "prompt": "Else?", "completion": [USER, YES]},
            "prompts_differ",
            "is no user turn of the completion",
        ),
        ({**TURNS, "completion": 1.5}, "wrong_type", "column 'completion' must be turns, got float"),
        ({"completion": [YES], "label": True}, "role_order", "column 'prompt' must end with a user turn"),
        ({**TURNS, "images": ["x"]}, "wrong_type", "column 'images' holds"),
        ({**TEXT, "weight": 0}, "bad_weight", "column 'weight' must be a positive number"),
        ({**TEXT, "completion_ended": "no"}, "wrong_type", "column 'completion_ended' must be true or false"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(raw: dict[str, Any], kind: str, said: str):
    with pytest.raises(RowError) as error:
        to_unpaired(raw, "a.jsonl:17")
    assert str(error.value).startswith("a.jsonl:17: ")
    assert said in str(error.value)
    assert error.value.kind == kind


def test_transcripts_that_are_none():
    for raw, said in (
        ({**TURNS}, "column 'prompt' must be a transcript, like the completion"),
        ({"completion": "\n\nAssistant: Yes.", "label": True}, "a turn before the last one, which is the prompt"),
        ({"completion": "Yes.", "label": True}, "column 'completion' must be a transcript"),
    ):
        with pytest.raises(RowError, match=said):
            to_unpaired(raw, "a:1", "hh")


def test_what_is_a_single_completion_beyond_doubt():
    assert is_single(TEXT)
    assert is_single({**TEXT, "label": 0, "chosen": None})
    assert not is_single({**TEXT, "chosen": "a"})
    assert not is_single({"prompt": "p", "completion": "c"})
    assert not is_single({"prompt": "p", "chosen": "c", "rejected": "d", "label": 1})
