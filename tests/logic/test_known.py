import pytest

from align.logic.known import UNPAIRED, find, names
from align.logic.landscape import sixteen


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("dpo", "dpo", "objective"),
        ("DPO", "dpo", "objective"),
        ("sigmoid", "dpo", "objective"),
        ("cpo", "cpo", "objective"),
        ("CPO", "CPO", "landscape"),
        ("orpo", "orpo", "objective"),
        ("ORPO", "ORPO", "landscape"),
        ("ccpo", "cCPO", "landscape"),
        ("cCPO-ref", "cCPO with reference", "landscape"),
        ("CPO with reference", "DPO", "landscape"),
        ("bco_pair:2", "bco_pair:2", "objective"),
        ("chain(4)", "chain(4)", "formula"),
        ("chain4", "chain4", "formula"),
        ("unpaired_rejected", "unpaired_rejected", "formula"),
        ("M(l) -> M(w)", "M(l) -> M(w)", "formula"),
    ],
)
def test_losses_are_found_by_what_people_call_them(text, name, kind):
    found = find(text)
    assert (found.name, found.kind) == (name, kind)
    assert found.needed().top


def test_formulas_say_which_node_they_are():
    assert find("M(l) -> M(w)", "M(w) | M(l)").about == "the same as cCPO of the landscape"
    assert find("M(l) -> M(w)", "M(w) | M(l)", "M(w) & M(l)").needed() == sixteen()["CPO"]
    assert find("dpo").needed() == sixteen()["CPO"].reference_form()
    assert find("ipo").decreasing is False
    assert find("unpaired_chosen").needed() == UNPAIRED["unpaired_chosen"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("dp", {}, "no loss 'dp'.*did you mean dpo"),
        ("zzzz", {}, "align logic zoo lists the names"),
        ("M(l) ->", {}, "ends where a part"),
        ("dpo", {"condition": "M(w)"}, "is a name: a condition"),
        ("bco_pair:9", {}, "has 2 parts"),
        ("M(w)", {"additive": "M("}, "the name of a response"),
        ("chain(40)", {}, "from 2 to 16"),
    ],
)
def test_what_is_no_loss_is_refused(text, options, says):
    with pytest.raises(ValueError, match=says):
        find(text, **options)


@pytest.mark.parametrize(
    ("text", "says"),
    [("bco_pair", "2 structures, not one: name bco_pair:1 or bco_pair:2"), ("simper", "has no structure")],
)
def test_losses_without_one_structure_say_so_when_one_is_needed(text, says):
    with pytest.raises(ValueError, match=says):
        find(text).needed()


def test_all_names_are_found():
    for name in names():
        assert find(name).name
