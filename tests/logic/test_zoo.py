import json
from pathlib import Path

import pytest

from align.logic import decompile, zoo
from align.logic.known import structure_of
from align.logic.landscape import name_in_landscape
from align.logic.trace import TraceError
from align.logic.zoo import entry, table, traced, write, written
from align.objectives.registry import OBJECTIVES


@pytest.fixture(scope="module")
def now():
    return traced()


def test_the_kept_table_is_what_tracing_gives_now(now):
    assert now == list(table().values()), "run: align logic zoo --write"


def test_every_objective_is_in_it():
    assert list(table()) == list(OBJECTIVES)


def test_it_is_written_where_asked_and_reads_back(now, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "traced", lambda: now)
    file = write(tmp_path / "zoo.json")
    assert json.loads(file.read_text()) == now
    assert file.read_text() == written(now)
    kept = Path(zoo.__file__).with_name("zoo.json")
    assert kept.read_text(encoding="utf-8") == written(now)


def test_settings_make_another_entry():
    core = entry("simpo", gamma=0.25)["parts"][0]
    assert core["margin"] == "0.25"
    assert name_in_landscape(structure_of(core)) == ("CPO", "sixteen")


def test_whole_numbers_are_taken_for_the_numbers_that_settings_are():
    assert entry("dpo", beta=1) == entry("dpo", beta=1.0)


def test_code_that_cannot_be_traced_is_an_entry_that_says_why(monkeypatch):
    def refused(objective):
        raise TraceError("no expression is known for torch's 'erf'")

    monkeypatch.setattr(decompile, "decompile", refused)
    found = entry("dpo")
    assert (found["outcome"], found["stripped"]) == ("refused", [])
    assert found["parts"][0]["refusal"] == "no expression is known for torch's 'erf'"
