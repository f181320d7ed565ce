"""How formulas are shown."""

import pytest

from align.objectives.cards import pretty


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("-log_sigma(beta*D)", "-log σ(β·Δ)"),
        ("(beta/n_w)*sigma(gamma - beta*(a_bar - b_bar))", "(β/n_w)·σ(γ − β·(ā − b̄))"),
        ("2*(1/(2*tau) - D_bar)/n_w", "2·(1/(2·τ) − Δ̄)/n_w"),
        ("(h_w - 1/(2*beta))**2", "(h_w − 1/(2·β))²"),
        ("beta*step(1 - beta*D)", "β·1[1 > β·Δ]"),
        ("a_bar - log1mexp(a_bar)", "ā − log(1 − e^ā)"),
    ],
)
def test_formulas_in_the_signs_of_papers(plain, shown):
    assert pretty(plain) == shown
