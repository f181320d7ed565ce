"""The section ``claim``: everything it refuses, and what each arm tries."""

import math

import pytest

from align.wings.claim import Claim, Relation, Tuning

ABOVE = Relation(figure="accuracy", over="baseline")


def claim(**changes):
    given = {
        "says": "it is better",
        "seeds": [11, 12, 13],
        "arms": {"method": {}, "baseline": {"settings.weight": 0.0}},
        "relations": [ABOVE],
        "untuned": "there is nothing to tune",
    }
    return Claim(**(given | changes))


def tuning(**changes):
    return Tuning(**({"figure": "validation", "seeds": [1], "trials": [{"a": 1}, {"a": 2}]} | changes))


# ---- relations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"over": "b"}, {"under": "b"}, {"at_least": 0.5}, {"at_most": 0.0}])
def test_a_relation_says_one_thing(given):
    relation = Relation(figure="accuracy", **given)
    assert relation.asserted
    assert relation.arm is None
    assert relation.by == 0


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "got none"),
        ({"over": "a", "under": "b"}, "got over, under"),
        ({"over": "a", "at_least": 0.0}, "got over, at_least"),
        ({"at_least": 0.0, "at_most": 1.0}, "got at_least, at_most"),
    ],
)
def test_a_relation_says_neither_nothing_nor_two_things(given, found):
    with pytest.raises(ValueError, match=f"^accuracy: give one of .*{found}$"):
        Relation(figure="accuracy", **given)


@pytest.mark.parametrize("extra", [{"by": 0.1}, {"relative": True}])
@pytest.mark.parametrize("level", [{"at_least": 0.5}, {"at_most": 0.5}])
def test_a_level_has_no_distance(level, extra):
    with pytest.raises(ValueError, match=r"^accuracy: by and relative go with over and under"):
        Relation(figure="accuracy", **level, **extra)
    Relation(figure="accuracy", over="b", **extra)


@pytest.mark.parametrize("by", [math.inf, -math.inf, math.nan])
def test_a_distance_is_finite(by):
    with pytest.raises(ValueError, match=r"^accuracy: by must be finite"):
        Relation(figure="accuracy", over="b", by=by)


# ---- tuning ------------------------------------------------------------------------------------------------------


def test_tuning_needs_seeds():
    with pytest.raises(ValueError, match=r"^seeds needs at least one"):
        tuning(seeds=[])


@pytest.mark.parametrize(
    "given",
    [
        {"trials": []},
        {"trials": [{"a": 1}]},
        {"trials": [], "arms": {"method": [{"a": 1}]}},
        {"trials": [], "arms": {"method": [{"a": 1}, {"a": 2}], "baseline": [{"b": 1}]}},
        {"arms": {"baseline": [{"b": 1}, {"b": 2}, {"b": 3}]}},
    ],
)
def test_every_arm_tries_as_many_settings_and_more_than_one(given):
    with pytest.raises(ValueError, match=r"^trials must be at least two settings, and as many for every arm"):
        tuning(**given)


def test_trials_of_an_arm_are_its_own_or_everyones():
    own = [{"b": 1}, {"b": 2}]
    found = claim(tuning=tuning(arms={"baseline": own}), untuned=None)
    assert found.trials_of("method") == [{"a": 1}, {"a": 2}]
    assert found.trials_of("baseline") == own
    assert claim().trials_of("method") == []


def test_trials_that_are_handed_out_are_a_copy():
    found = claim(tuning=tuning())
    found.trials_of("method").clear()
    assert len(found.trials_of("method")) == 2


# ---- claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [[], [11, 12], [11, 11, 12], [11, 12, 13, 13]])
def test_seeds_are_three_different_ones(seeds):
    with pytest.raises(ValueError, match=r"^seeds must be at least three different ones"):
        claim(seeds=seeds)


@pytest.mark.parametrize("given", [{"arms": {}}, {"relations": []}])
def test_arms_and_relations_are_there(given):
    with pytest.raises(ValueError, match=r"^arms and relations must not be empty"):
        claim(**given)


@pytest.mark.parametrize("where", ["arm", "over", "under"])
def test_relations_are_of_arms_that_there_are(where):
    given = {where: "nobody"} | ({"at_least": 0.5} if where == "arm" else {})
    with pytest.raises(ValueError, match=r"^relations: there is no arm 'nobody'; arms: method, baseline"):
        claim(relations=[ABOVE, Relation(figure="accuracy", **given)])


def test_something_is_asserted():
    only_told = Relation(figure="accuracy", over="baseline", asserted=False)
    with pytest.raises(ValueError, match=r"^relations: at least one must be asserted"):
        claim(relations=[only_told])
    claim(relations=[only_told, ABOVE])


def test_seeds_of_the_comparison_tune_nothing():
    with pytest.raises(ValueError, match=r"^tuning: seeds \[12\] are those of the comparison"):
        claim(tuning=tuning(seeds=[1, 12]))


def test_only_arms_are_tuned():
    with pytest.raises(ValueError, match=r"^tuning: there is no arm 'nobody', 'nothing'"):
        claim(tuning=tuning(arms={"nothing": [{"a": 1}, {"a": 2}], "nobody": [{"a": 1}, {"a": 2}]}))


def test_no_arm_goes_untuned_beside_one_that_is():
    alone = tuning(trials=[], arms={"method": [{"a": 1}, {"a": 2}]})
    with pytest.raises(ValueError, match=r"^tuning: every arm needs trials"):
        claim(tuning=alone)


def test_arms_are_tuned_alike_or_the_claim_says_why_not():
    assert claim().tuned_alike
    assert claim(untuned=None, tuning=tuning()).tuned_alike
    assert not claim(untuned=None).tuned_alike


def test_an_arm_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="an arm is not compared with itself, got 'a' twice"):
        Relation(figure="accuracy", arm="a", over="a")


def test_trials_neither_repeat_nor_undo_what_makes_the_arm():
    with pytest.raises(ValueError, match="the same settings stand there twice"):
        tuning(trials=[{"a": 1}, {"a": 2}, {"a": 1}])
    undoing = tuning(trials=[{"settings.weight": 1.0}, {"settings.weight": 2.0}])
    with pytest.raises(ValueError, match=r"a trial of 'baseline' sets settings.weight, which makes the arm"):
        claim(tuning=undoing, untuned=None)
