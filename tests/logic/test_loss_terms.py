import pytest

from align.logic.expression import read_expression
from align.logic.loss_terms import oriented, terms_of
from align.logic.symbols import spelled


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("-logsigmoid(beta*log(w/l))", [("logistic", "1", True)]),
        ("softplus(-log(w/l))", [("logistic", "1", True)]),
        ("-log(sigmoid(log(w/l)))", [("logistic", "1", True)]),
        ("-log(1 - sigmoid(log(l/w)))", [("logistic", "1", True)]),
        ("max(0, 1 - log(w/l))", [("hinge", "1", True)]),
        ("3*(log(w/l) - 5)^2", [("squared", "3", False)]),
        ("sigmoid(-log(w/ref_w))", [("sigmoid", "1", True)]),
        ("-log(w)", [("linear", "1", True)]),
        ("-0.9*logsigmoid(log(w/l)) - 0.1*logsigmoid(-log(w/l))", [("smoothed", "1", False)]),
        ("(-0.9*logsigmoid(log(w/l)) + 0.1*logsigmoid(-log(w/l)))/0.8", [("smoothed", "1", True)]),
        ("-logsigmoid(log(w/l)) - 0.2*log(w)", [("logistic", "1", True), ("linear", "1", True)]),
        (
            "-2*(logsigmoid(log(w/ref_w)) + logsigmoid(log(ref_l/l)))",
            [("logistic", "2", True), ("logistic", "2", True)],
        ),
        ("logsigmoid(log(w/l))", [("other", "1", None)]),
        ("w*logsigmoid(log(w/l))", [("other", "1", None)]),
        ("-hinge(log(w/l))", [("other", "1", None)]),
        ("-(log(w/l) - 1)^2", [("other", "1", None)]),
        ("-2*sigmoid(log(w/l))", [("sigmoid", "2", True)]),
        ("1 - sigmoid(log(w/l))", [("sigmoid", "1", True)]),
        ("beta + 3", []),
    ],
)
def test_terms_are_told_by_their_form(text, terms):
    found = terms_of(read_expression(text))
    assert [(term.link, spelled(term.weight), term.decreasing) for term in found] == terms


@pytest.mark.parametrize("text", ["-sigmoid(log(w/l))", "1 - sigmoid(log(w/l))", "sigmoid(log(l/w))"])
def test_sigmoids_compare_the_chosen_with_the_rejected_however_they_are_written(text):
    (term,) = terms_of(read_expression(text))
    assert term.score in (read_expression("log(w/l)"), read_expression("-log(l/w)"))


def test_scores_are_turned_to_grow_with_the_chosen():
    assert oriented(read_expression("log(l/w) + 5")) == read_expression("-log(l/w) - 5")
    assert oriented(read_expression("log(l)")) == read_expression("-log(l)")
    assert oriented(read_expression("log(w)")) == read_expression("log(w)")
    (term,) = terms_of(read_expression("(log(l/ref_l) + 5)^2"))
    assert term.score == read_expression("-(log(l/ref_l) + 5)")


def test_terms_come_with_what_compares_first():
    text = "-logsigmoid(log(ref_l/l)) - logsigmoid(log(w/ref_w)) - logsigmoid(log(w/l))"
    reads = [sorted(s.name for s in term.score.free_symbols) for term in terms_of(read_expression(text))]
    assert reads == [["l", "w"], ["ref_w", "w"], ["l", "ref_l"]]
