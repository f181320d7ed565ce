import pytest

from align.diagnostics.advice import PREFIX, wrong_way


def said(**figures):
    return wrong_way({PREFIX + name: value for name, value in figures.items()})


GEOMETRY = {"norm_ratio": 1.4, "cosine": 0.86, "ratio": 1.0}


def test_both_down_in_words():
    text = said(share_both_down=0.81, share_both_up=0.0, **GEOMETRY)
    assert text.startswith(
        "both log-probabilities are pulled down in 81 % of pairs: s_l is 1.4 x s_w and the cosine 0.86"
    )
    assert "above 1.20; it is 1.00" in text
    assert "disentangle: normalise" in text


def test_both_up_in_words():
    text = said(share_both_down=0.0, share_both_up=0.6, norm_ratio=0.5, cosine=0.8, ratio=1.2)
    assert "pulled up in 60 % of pairs" in text
    assert "the rejected falls only where d_w/d_l is below 0.62; it is 1.20" in text


def test_what_the_optimiser_does_counts_where_it_is_known():
    assert said(share_both_down=0.9, step_share_both_down=0.1, **GEOMETRY) is None
    text = said(share_both_down=0.0, step_share_both_down=0.7, norm_ratio=1.0, cosine=0.5, ratio=1.0)
    assert "moved down in 70 % of pairs" in text
    assert "the other pairs of the batch and the optimiser's momentum decide" in text
    assert "normalise" not in text  # of a pair's own step, which is right already


def test_a_remedy_that_is_on_is_not_recommended_again():
    figures = {PREFIX + name: value for name, value in {"share_both_down": 0.9, **GEOMETRY}.items()}
    text = wrong_way(figures, "normalise")
    assert "disentangle: normalise is on and does not bring the mean pair there" in text
    assert "brings each pair" not in text


def test_the_worst_case_is_warned_of():
    text = said(step_share_both_down=0.1, step_share_reversed=0.8, **GEOMETRY)
    assert text.startswith("the chosen is moved down and the rejected up in 80 % of pairs")


@pytest.mark.parametrize("figures", [{}, {"share_both_down": 0.49}, {"share_ideal": 1.0}])
def test_nothing_is_said_of_runs_that_go_well(figures):
    assert said(**figures) is None


def test_few_figures_make_a_short_warning():
    assert said(share_both_down=0.9).startswith("both log-probabilities are pulled down in 90 % of pairs. disentangle")
