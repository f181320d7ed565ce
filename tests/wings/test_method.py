from dataclasses import dataclass

import pytest

from align.wings.method import Method, method
from align.wings.registry import load

WORDS = {"title": "T", "arxiv": "0000.00000", "venue": "V", "equation": "e"}


def made(module, settings):
    return type("Made", (Method,), {"__module__": module, "Settings": settings, "__doc__": "One.\nLine.\n\nMore."})


@dataclass(frozen=True)
class Frozen:
    size: int = 1


@dataclass
class Loose:
    size: int = 1


def test_what_a_method_declares_of_itself():
    cls = method(**WORDS, departures=("d",))(made("align.vision.dense.made", Frozen))
    about = cls.about
    assert (about.name, about.wing, about.room) == ("made", "vision", "dense")
    assert about.summary == "One. Line."
    assert about.paper == "T (arXiv 0000.00000)"
    assert about.departures == ("d",)


@pytest.mark.parametrize("module", ["align.vision.made", "align.objectives.dense.made", "other.vision.dense.made"])
def test_a_method_stands_in_a_room_of_a_wing(module):
    with pytest.raises(TypeError, match="no module align"):
        method(**WORDS)(made(module, Frozen))


def test_settings_are_frozen_and_its_own():
    with pytest.raises(TypeError, match="frozen dataclass of its own"):
        method(**WORDS)(made("align.vision.dense.made", Loose))
    parent = made("align.vision.dense.made", Frozen)
    with pytest.raises(TypeError, match="of its own"):
        method(**WORDS)(type("Child", (parent,), {"__module__": "align.vision.dense.child"}))


def test_a_declared_method_reads_like_its_paper():
    about = load("clip").about
    assert about.arxiv == "2103.00020"
    assert about.room == "multimodal"
    assert about.summary
