import pytest
import sympy

from align.logic.expression import read_expression
from align.logic.landscape import name_in_landscape
from align.logic.model_count import NoModelCountError, read_likelihood, read_score
from align.logic.symbols import spelled


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("log(w/l)", ("CPO", "sixteen")),
        ("log(w) - log(l)", ("CPO", "sixteen")),
        ("logit(w) - logit(l)", ("ORPO", "sixteen")),
        ("log(w*ref_l/(ref_w*l))", ("CPO", "reference")),
        ("log((w*l + 1 - l)/(l*(1 - w)))", ("unCPO", "sixteen")),
        ("log(w*rl*(1-l)/(l*rw*(1-w)))", ("ORPO", "reference")),
        ("log(w*l/(l*l))", ("CPO", "sixteen")),
        ("log(w*(1-l)/(w*l + 1 - w))", ("CEUnl", "sixteen")),
        ("log1mexp(log(l)) - log(l)", ("fUnl", "sixteen")),
    ],
)
def test_ratios_are_read_as_structures(text, name):
    assert name_in_landscape(read_score(read_expression(text)).structure) == name


@pytest.mark.parametrize(
    ("text", "scale", "margin"),
    [
        ("log(w/l) - gamma", "1", "gamma"),
        ("beta*log(w/l) - gamma", "beta", "gamma"),
        ("log(w*exp(-gamma)/l)", "1", "gamma"),
        ("log(2*w/l)", "1", "-log(2)"),
        ("0.5*log(w/l) + 3", "0.5", "-3"),
        ("log(w/l) - log(q_w - q_l)", "1", "log(-q_l + q_w)"),
        ("log(w/l) + 0.05*(n_w - n_l)", "1", "0.05*n_l - 0.05*n_w"),
    ],
)
def test_constants_become_scales_and_margins(text, scale, margin):
    found = read_score(read_expression(text))
    assert (spelled(found.scale), spelled(found.margin)) == (scale, margin)
    assert not found.normalised


def test_lengths_make_geometric_means():
    found = read_score(read_expression("log(w)/n_w - log(l)/n_l"))
    assert found.normalised
    assert name_in_landscape(found.structure) == ("CPO", "sixteen")
    mixed = "log(w)/n_w - log(l)"
    with pytest.raises(NoModelCountError, match=r"no multiples of one of them|no multiple of a logarithm"):
        read_score(read_expression(mixed))


def test_powers_become_copies_or_atoms_of_their_own():
    twice = read_score(read_expression("log(w^2*ref_l/(ref_w^2*l))"))
    assert [atom.name for atom in twice.structure.atoms] == ["M(w)", "M(l)", "M(w_2)", "Ref(w)", "Ref(l)", "Ref(w_2)"]
    assert any("2 copies" in note for note in twice.notes)
    often = read_score(read_expression("log(w^9/l)"))
    assert any("weighs w^9" in note for note in often.notes)
    weaker = read_score(read_expression("log(w) - 0.9*log(l)"))
    assert any("power 0.9" in note for note in weaker.notes)
    assert name_in_landscape(weaker.structure) == ("CPO", "sixteen")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("log(w*(1-l)/(l + 1 - w))", r"it is 2 in the row M\(w\) = F, M\(l\) = T, and 1 in others: the row is counted"),
        ("log((0.5*l + 0.5*ref_l)/w)", r"Const\(0.5\)"),
        ("log((w^2 + w)/l)", "more than once in a product"),
        ("w - l", "w is no multiple of a logarithm"),
        ("gamma", "does not depend on any probability"),
        ("log(w^2 - w)", "is negative"),
        ("log((w - l)^2)", "changes its sign"),
        ("log(sqrt(w) + l)", "no ratio of polynomials"),
    ],
)
def test_what_counts_nothing_is_refused(text, says):
    with pytest.raises(NoModelCountError, match=says):
        read_score(read_expression(text))


def test_likelihoods_are_read_by_their_odds():
    found = read_likelihood(read_expression("0.3*log(w)"))
    assert name_in_landscape(found.structure) == ("CE", "sixteen")
    assert any("0.3 times" in note for note in found.notes)
    assert read_likelihood(read_expression("log(w)/n_w")).normalised
    for text in ("log(w) + 1", "-log(w)"):
        with pytest.raises(NoModelCountError):
            read_likelihood(read_expression(text))
    assert sympy.log(1) == 0
