import math

import pytest

from align.wings.claim import Claim, Relation, Tuning
from align.wings.verdict import UNEVEN, effect_of, interval, verdict

SEEDS = [1, 2, 3]


def claim(*relations, **more):
    more = {"untuned": "nothing to tune", **more}
    return Claim(says="s", seeds=SEEDS, arms={"new": {}, "old": {}}, relations=list(relations), **more)


def effect(relation, new, old):
    return effect_of(relation, claim(relation), {"new": {"f": new}, "old": {"f": old}})


def test_interval_is_students():
    # of 1, 2, 3: standard deviation 1, standard error 1/sqrt 3, t(0.975, 2) = 4.302653
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert interval([0.5]) == (0.5, 0.5, 0.5)


def test_arms_are_paired_by_seed():
    # each pair differs by one, though the arms overlap wholly
    found = effect(Relation(figure="f", over="old", by=0.5), [11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    assert (found.value, found.low, found.high, found.word) == (1.0, 1.0, 1.0, "holds")


@pytest.mark.parametrize(
    ("relation", "new", "old", "value", "word"),
    [
        (Relation(figure="f", over="old", by=2.0), [3.0] * 3, [2.0] * 3, 1.0, "does not hold"),
        (Relation(figure="f", under="old", by=0.5), [1.0] * 3, [2.0] * 3, 1.0, "holds"),
        (Relation(figure="f", under="old", by=0.4, relative=True), [1.0] * 3, [2.0] * 3, 0.5, "holds"),
        (Relation(figure="f", over="old", by=0.0), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], 0.0, "inconclusive"),
        (Relation(figure="f", at_least=0.5), [0.6] * 3, [0.0] * 3, 0.6, "holds"),
        (Relation(figure="f", at_least=0.7), [0.6] * 3, [0.0] * 3, 0.6, "does not hold"),
        (Relation(figure="f", at_most=0.7), [0.6] * 3, [0.0] * 3, 0.6, "holds"),
        (Relation(figure="f", at_most=0.5), [0.6] * 3, [0.0] * 3, 0.6, "does not hold"),
        (Relation(figure="f", at_most=0.5), [0.4, 0.5, 0.6], [0.0] * 3, 0.5, "inconclusive"),
        (Relation(figure="f", arm="old", at_least=1.0), [0.0] * 3, [1.0] * 3, 1.0, "holds"),
    ],
)
def test_relations(relation, new, old, value, word):
    found = effect(relation, new, old)
    assert found.value == pytest.approx(value)
    assert found.word == word


def test_arms_that_do_the_same_are_not_told_apart():
    assert effect(Relation(figure="f", over="old"), [1.0] * 3, [1.0] * 3).word == "inconclusive"
    assert effect(Relation(figure="f", at_least=1.0), [1.0] * 3, [1.0] * 3).word == "holds"
    with pytest.raises(ValueError, match="a share of 'old', which is 0 for some seed"):
        effect(Relation(figure="f", over="old", relative=True), [1.0] * 3, [1.0, 0.0, 1.0])


def test_a_claim_needs_all_that_it_asserts():
    good, bad = Relation(figure="f", at_least=0.0), Relation(figure="f", at_least=9.0)
    values = {"new": {"f": [1.0] * 3}, "old": {"f": [0.0] * 3}}
    both = claim(good, bad)
    assert verdict(both, [effect_of(r, both, values) for r in both.relations])[0] == "does not hold"
    only_told = claim(good, Relation(figure="f", at_least=9.0, asserted=False))
    assert verdict(only_told, [effect_of(r, only_told, values) for r in only_told.relations]) == ("holds", "")


def test_a_claim_that_was_not_tuned_alike_is_open_whatever_came_out():
    relation = Relation(figure="f", at_least=0.0)
    uneven = claim(relation, untuned=None)
    effects = [effect_of(relation, uneven, {"new": {"f": [1.0] * 3}, "old": {}})]
    assert verdict(uneven, effects) == ("inconclusive", UNEVEN)
    tuned = claim(relation, untuned=None, tuning=Tuning(figure="v", seeds=[9], trials=[{"a": 1}, {"a": 2}]))
    assert verdict(tuned, effects)[0] == "holds"


def test_a_figure_that_no_run_has():
    with pytest.raises(ValueError, match="runs of 'new' have no figure 'g'; they have f"):
        effect_of(Relation(figure="g", at_least=0.0), claim(Relation(figure="g", at_least=0.0)), {"new": {"f": [1.0]}})
