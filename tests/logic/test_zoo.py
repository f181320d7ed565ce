import json

from align.logic.known import structure_of
from align.logic.landscape import name_in_landscape
from align.logic.zoo import entry, table, traced, write, written
from align.objectives.registry import OBJECTIVES


def test_the_kept_table_is_what_tracing_gives_now():
    assert traced() == list(table().values()), "run: align logic zoo --write"


def test_every_objective_is_in_it():
    assert list(table()) == list(OBJECTIVES)


def test_it_is_written_where_asked_and_reads_back(tmp_path):
    file = write(tmp_path / "zoo.json")
    assert json.loads(file.read_text()) == traced()
    assert file.read_text() == written(traced())


def test_settings_make_another_entry():
    core = entry("simpo", gamma=0.25)["parts"][0]
    assert core["margin"] == "0.25"
    assert name_in_landscape(structure_of(core)) == ("CPO", "sixteen")
