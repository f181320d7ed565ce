import numpy as np
import pytest
from matplotlib.figure import Figure

from align.report.rewards import draw_histograms, draw_rewards, gain_in_words, has_rewards
from tests.report.conftest import summary


def bars(axes):
    return [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches if bar.get_height()]


def test_both_models_share_bins_and_every_value_is_counted():
    upper, lower = draw_histograms(Figure(), {"base": [0.0, 0.1, 1.0], "aligned": [0.1, 1.0, 1.0]}, "x")
    assert sum(height for _, height in bars(upper)) == sum(height for _, height in bars(lower)) == 3
    assert len(upper.patches) == len(lower.patches) == 24


def test_a_few_whole_numbers_get_a_bar_each():
    upper, lower = draw_histograms(Figure(), {"base": [3, 3, 5], "aligned": [4, 4, 4]}, "tokens")
    assert bars(upper) == [(pytest.approx(3), 2), (pytest.approx(5), 1)]
    assert bars(lower) == [(pytest.approx(4), 3)]


def test_mean_and_interval_are_marked():
    upper, _ = draw_rewards(Figure(), summary())
    assert upper.get_lines()[0].get_xdata() == [0.1, 0.1]
    assert upper.get_title(loc="left") == "base: mean +0.10 [+0.05, +0.15]"
    assert np.isclose(upper.patches[-1].get_width(), 0.1)


def test_gain_in_words():
    assert gain_in_words(summary()).startswith("Reward +0.10 [+0.05, +0.15] after alignment (90% intervals)\nwin rate")


@pytest.mark.parametrize("broken", [{}, {"scores": 3}, {"scores": {"base": [1.0]}, "reward": {}}])
def test_what_has_no_rewards(broken):
    assert not has_rewards(broken)
    assert has_rewards(summary())
