import os
from pathlib import Path

import pytest

from align.data.formats import to_row
from align.data.rows import DataError
from align.data.sources import read_rows
from align.data.template import transcript
from align.data.turns import is_transcript, read_transcript, read_turns, split_completion
from align.recipe.schema import SourceSettings

HH_FILE = os.environ.get("ALIGN_HH_FILE", "")


def test_a_transcript_keeps_its_words():
    text = "\n\nHuman: Hi \n there\n\nAssistant:  Oh.\n\nAssistant: \n\nHuman: no\nHuman: same turn\n\nAssistant: "
    turns = read_transcript(text, "a:1", "chosen")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in turns] == ["Hi \n there", " Oh.", "", "no\nHuman: same turn", ""]
    assert transcript(turns) == text


def test_text_before_the_first_marker_is_the_systems():
    turns = read_transcript("Be brief.\n\nHuman: Hi\n\nAssistant: Yo", "a:1", "chosen")
    assert turns[0] == {"role": "system", "content": "Be brief."}
    assert transcript(turns) == "Be brief.\n\nHuman: Hi\n\nAssistant: Yo"


def test_what_counts_as_a_transcript():
    assert is_transcript("\n\nHuman: a\n\nAssistant: b")
    assert not is_transcript("Human: a\n\nAssistant: b")
    assert not is_transcript([{"role": "user", "content": "\n\nHuman:"}])
    assert read_transcript("Human: a\n\nAssistant: b", "a:1", "chosen")[0]["content"] == "a"


def test_a_dict_of_lists_must_have_lists_of_one_length():
    with pytest.raises(DataError, match="lists of roles and of contents must be equally long"):
        read_turns({"role": ["user", "assistant"], "content": ["a"]}, "a:1", "chosen")


def test_a_single_completion_begins_behind_the_last_turn_that_is_the_prompt():
    asks, says = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    whole = [asks, says, asks, says]
    assert split_completion(None, whole, "a:1") == (whole[:3], [says])
    assert split_completion("Why?", whole, "a:1") == (whole[:3], [says])
    assert split_completion("Why?", [says], "a:1") == ([asks], [says])
    assert split_completion([asks], whole, "a:1") == ([asks], whole[1:])
    with pytest.raises(DataError, match="is no user turn of the completion"):
        split_completion("What?", whole, "a:1")


@pytest.mark.skipif(not Path(HH_FILE).is_file(), reason="ALIGN_HH_FILE names no file")
def test_published_transcripts_come_back_to_the_letter():
    rows = silent = 0
    for where, raw in read_rows(SourceSettings(path=HH_FILE)):
        row = to_row(raw, where)
        rows += 1
        silent += row.says_nothing
        assert transcript([*row.prompt, *row.chosen]) == raw["chosen"], where
        assert transcript([*row.prompt, *row.rejected]) == raw["rejected"], where
        assert len(row.chosen) == len(row.rejected) == 1, where
    assert (rows, silent) == (1156, 4)
