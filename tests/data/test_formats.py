import json
import math
from typing import Any

import pytest

from align.data.formats import shared_start, to_row
from align.data.rows import KINDS, DataError, RowError

USER = {"role": "user", "content": "Is the sky blue?"}
YES = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}
HUMAN = "\n\nHuman: Is the sky blue?\n\nAssistant:"


def parts(raw: dict[str, Any], form: Any = "auto") -> tuple[Any, Any, Any]:
    row = to_row(raw, "pairs.jsonl:1", form)
    return row.prompt, row.chosen, row.rejected


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": None, "chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": USER["content"], "chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": USER["content"], "chosen": [YES], "rejected": [NO]},
        {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": [USER], "chosen": "Yes.", "rejected": "No."},
        {"prompt": [USER], "chosen": YES, "rejected": NO},
        {"prompt": {"role": ["user"], "content": [USER["content"]]}, "chosen": [YES], "rejected": [NO]},
        {"chosen": f"{HUMAN} Yes.", "rejected": f"{HUMAN} No."},
    ],
)
def test_every_conversational_form_makes_the_same_row(raw: dict[str, Any]):
    assert parts(raw) == ([USER], [YES], [NO])


def test_plain_text_is_taken_as_it_is():
    assert parts({"prompt": "Sky? ", "chosen": " blue", "rejected": "red"}) == ("Sky? ", " blue", "red")
    assert parts({"prompt": "", "chosen": "blue", "rejected": "red"}) == ("", "blue", "red")


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("Answer:\nyes", "Answer:\nno", "Answer:\n"),
        ("Why?  so", "Why?  no", "Why? "),
        ("Why? so", "Why?\nno", "Why?"),
        ("Q: Hi. Yes", "Q: Hi. Yes sir", "Q: Hi."),
        ("blue", "red", ""),
    ],
)
def test_a_shared_start_ends_with_a_whole_word(chosen: str, rejected: str, prompt: str):
    assert shared_start(chosen, rejected) == shared_start(rejected, chosen) == prompt


def test_an_implicit_prompt_of_plain_text():
    raw = {"chosen": "The sky is blue.", "rejected": "The sky is black."}
    assert parts(raw) == ("The sky is", " blue.", " black.")


def test_a_prompt_under_another_name_is_not_overlooked():
    raw = {"question": "Which sky?", "chosen": "The blue one", "rejected": "The red one"}
    with pytest.raises(DataError, match=r"no column 'prompt', but 'question'; map it: columns: \{prompt: question\}"):
        to_row(raw, "a:1")
    whole = {"question": "Which sky?", "chosen": "Which sky? Blue", "rejected": "Which sky? Red"}
    assert parts(whole) == ("Which sky?", " Blue", " Red")


def test_transcripts_may_have_their_prompt_apart():
    assert parts({"prompt": HUMAN, "chosen": " Yes.", "rejected": " No."}, "hh") == ([USER], [YES], [NO])


def test_a_transcript_is_plain_text_where_that_is_asked_for():
    assert parts({"chosen": f"{HUMAN} Yes.", "rejected": f"{HUMAN} No."}, "preference") == (HUMAN, " Yes.", " No.")


def test_conversations_that_part_early_keep_what_follows():
    follow = {"role": "user", "content": "Sure?"}
    row = to_row({"chosen": [USER, YES, follow, YES], "rejected": [USER, NO, follow, NO]}, "a:1")
    assert row.prompt == [USER]
    assert row.chosen == [YES, follow, YES]


@pytest.mark.parametrize(("given", "weight"), [(None, 1.0), (2, 2.0), (0.5, 0.5), ("0.25", 0.25)])
def test_weights(given: Any, weight: float):
    assert to_row({"prompt": "p", "chosen": "a", "rejected": "b", "weight": given}, "a:1").weight == weight


@pytest.mark.parametrize("given", [0, -1, "much", True, float("nan"), float("inf"), [1]])
def test_weights_that_are_none(given: Any):
    with pytest.raises(DataError, match=r"a:1: column 'weight' must be a positive number"):
        to_row({"prompt": "p", "chosen": "a", "rejected": "b", "weight": given}, "a:1")


TEXT = {"prompt": "p", "chosen": "a", "rejected": "b"}
TURNS = {"prompt": [USER], "chosen": [YES], "rejected": [NO]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"prompt": "p", "chosen": "a", "reject": "b"}, "there is no column 'rejected'; did you mean 'reject'?"),
        ({**TEXT, "chosen": None}, "column 'chosen' is null; remove the row"),
        ({**TEXT, "chosen": " \n"}, "column 'chosen' is empty"),
        ({**TEXT, "rejected": "a"}, "chosen and rejected are the same"),
        ({"chosen": "a b", "rejected": "a b"}, "chosen and rejected are the same"),
        ({"chosen": "blue", "rejected": "red"}, "share no start that could be it"),
        ({**TEXT, "prompt": "\ud83d"}, "column 'prompt' holds half a character"),
        ({**TURNS, "chosen": [{**YES, "content": "a\ud83d"}]}, "column 'chosen' holds half a character"),
        ({**TEXT, "prompt": 3}, "column 'prompt' must be turns, got int"),
        ({**TEXT, "rejected": [NO]}, "column 'chosen' must be turns, got str"),
        ({**TEXT, "chosen": 1.5}, "column 'chosen' must be turns, got float"),
        ({**TURNS, "rejected": []}, "column 'rejected' must be turns, got nothing"),
        ({**TURNS, "rejected": [YES]}, "chosen and rejected are the same"),
        ({**TURNS, "chosen": [{**YES, "content": " "}]}, "column 'chosen' is empty"),
        ({**TURNS, "chosen": [{**YES, "content": None}]}, "whose content is text"),
        ({**TURNS, "chosen": [{**YES, "role": "gpt"}]}, "has a turn with the role 'gpt'; write 'assistant'"),
        ({**TURNS, "chosen": [{**YES, "role": "x"}]}, "known roles: system, user, assistant"),
        ({**TURNS, "chosen": [{**YES, "tool_calls": "no"}]}, "tool_calls must be a list of mappings"),
        ({**TURNS, "tools": [3]}, "column 'tools' must be a list of mappings"),
        ({**TURNS, "chat_template_kwargs": "x"}, "column 'chat_template_kwargs' must be a mapping"),
        ({**TURNS, "chosen": [{**YES, "content": [{"type": "image"}]}]}, "parts other than text (image)"),
        ({**TURNS, "images": ["x.png"]}, "column 'images' holds what a language model of text cannot"),
        ({**TURNS, "prompt": [{"from": "human", "value": "Hi"}]}, "in ShareGPT's form; write {from, value} as {role"),
        ({**TURNS, "prompt": [USER, {"role": "tool", "content": "4"}]}, "has a tool turn that follows no assistant"),
        ({**TURNS, "prompt": [USER, YES]}, "column 'prompt' must end with a user turn"),
        ({**TURNS, "prompt": [USER, {"role": "system", "content": "s"}, USER]}, "a system turn must be the first"),
        ({**TURNS, "rejected": [NO, USER]}, "column 'rejected' must begin and end with an assistant turn"),
        ({**TURNS, "chosen": [USER]}, "is not how chosen and rejected begin"),
        ({"prompt": "Another?", "chosen": [USER, YES], "rejected": [USER, NO]}, "is no user turn of both"),
        ({"chosen": [USER, YES], "rejected": [USER, YES]}, "are the same"),
        ({"chosen": [USER, YES], "rejected": [USER, YES, USER, NO]}, "answer different prompts"),
        ({"chosen": [USER, YES], "rejected": [{**USER, "content": "?"}, YES]}, "share no first turn"),
        ({"chosen": [YES], "rejected": [NO]}, "share no first turn"),
        (
            {
                "chosen": f"{HUMAN} So.\n\nHuman: a\n\nAssistant: c",
                "rejected": f"{HUMAN} So.\n\nHuman: b\n\nAssistant: c",
            },
            "answer different prompts",
        ),
        ({"chosen": f"{HUMAN} Yes.\n\nHuman: more", "rejected": f"{HUMAN} No."}, "ends with an 'Assistant:' turn"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(raw: dict[str, Any], said: str):
    with pytest.raises(DataError) as error:
        to_row(raw, "pairs.jsonl:17")
    assert str(error.value).startswith("pairs.jsonl:17: ")
    assert said in str(error.value)


def test_every_kind_of_fault_has_a_row_that_shows_it():
    """The kinds that a row in memory can have; bytes and templates have theirs beside their code."""
    shown = {
        "missing": {"prompt": "p", "chosen": "a"},
        "empty": {**TURNS, "prompt": []},
        "same": {**TEXT, "rejected": "a"},
        "prompts_differ": {"prompt": "Another?", "chosen": [USER, YES], "rejected": [USER, NO]},
        "role_order": {**TURNS, "prompt": [USER, YES]},
        "unknown_role": {**TURNS, "chosen": [{**YES, "role": "x"}]},
        "wrong_type": {**TEXT, "prompt": 3},
        "bad_weight": {**TEXT, "weight": 0},
        "not_utf8": {**TEXT, "prompt": "\ud83d"},
    }
    for kind, raw in shown.items():
        with pytest.raises(RowError) as error:
            to_row(raw, "a:1")
        assert error.value.kind == kind
    assert set(shown) | {"nothing_left", "not_json", "not_csv", "template"} == set(KINDS)


def test_tools_and_their_turns():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": None}}}
    asks = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "name": "add", "content": "4", "tool_call_id": None}
    raw = {"prompt": [USER, asks, answer], "chosen": [YES], "rejected": [NO], "tools": json.dumps([{"name": "add"}])}
    row = to_row({**raw, "chat_template_kwargs": '{"enable_thinking": false, "x": null}'}, "a:1")
    assert row.tools == ({"name": "add"},)
    assert row.template_settings == {"enable_thinking": False}
    plain_call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    assert row.prompt[1] == {"role": "assistant", "content": "", "tool_calls": [plain_call]}
    assert row.prompt[2] == {"role": "tool", "content": "4", "name": "add"}
    assert to_row(raw, "a:1").prompt_digest != to_row({**raw, "tools": None}, "a:1").prompt_digest
    assert to_row({**raw, "prompt": [USER], "chosen": [asks]}, "a:1").chosen[0]["tool_calls"]


def test_text_in_parts_is_text():
    parts_of = [{"type": "text", "text": "Is the sky "}, {"type": "text", "text": "blue?"}]
    assert parts({**TURNS, "prompt": [{"role": "user", "content": parts_of}]}) == ([USER], [YES], [NO])


def test_hh_asks_for_transcripts():
    with pytest.raises(DataError, match="column 'chosen' must be a transcript"):
        to_row({"chosen": "Yes.", "rejected": "No."}, "a:1", "hh")
    with pytest.raises(DataError, match="column 'prompt' must be a transcript"):
        to_row({**TURNS}, "a:1", "hh")


@pytest.mark.parametrize(("given", "ended"), [(None, True), (True, True), (False, False), ("False", False)])
def test_completions_say_whether_they_were_cut_off(given, ended):
    row = to_row({"prompt": "a", "chosen": "b", "rejected": "c", "chosen_ended": given}, "pairs.csv:2")
    assert (row.chosen_ended, row.rejected_ended) == (ended, True)


@pytest.mark.parametrize("given", ["maybe", 2.5, []])
def test_cut_off_is_true_or_false(given):
    with pytest.raises(DataError, match=r"pairs.csv:2: column 'rejected_ended' must be true or false"):
        to_row({"prompt": "a", "chosen": "b", "rejected": "c", "rejected_ended": given}, "pairs.csv:2")


def test_scores_are_read():
    row = to_row({**TEXT, "chosen_score": "1.5"}, "a:1")
    assert row.chosen_score == 1.5
    assert math.isnan(row.rejected_score)


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "p", "completion": "c", "label": True},
        {"prompt": "p", "completion": "c", "label": 0, "chosen": None, "rejected": ""},
        {"prompt_ids": [1], "completion_ids": [2], "desirable": True},
    ],
)
def test_a_single_completion_is_no_pair_and_told_so(raw: dict[str, Any]):
    with pytest.raises(RowError, match=r"a:1: the row is a single completion .* on single completions, such as kto"):
        to_row(raw, "a:1")
