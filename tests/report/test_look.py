import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from align.report.look import COLOURS, RUN_COLOURS, _apart, look, number_ends, reach_of, save


def test_every_colour_means_one_thing():
    assert len({colour.lower() for colour in COLOURS.values()}) == len(COLOURS)
    assert set(RUN_COLOURS) <= COLOURS.keys()


def test_settings_hold_inside_the_block_only():
    before = mpl.rcParams["font.size"], mpl.rcParams["svg.fonttype"]
    with look(7, svg__fonttype="none"):
        assert (mpl.rcParams["font.size"], mpl.rcParams["svg.fonttype"]) == (7, "none")
    assert (mpl.rcParams["font.size"], mpl.rcParams["svg.fonttype"]) == before


def test_names_without_a_glyph_and_with_dollars_are_drawn(tmp_path):
    with look():
        figure = Figure()
        figure.suptitle("\U0001f327 $x^{ \u05e9\u05dc\u05d5\u05dd")
        png, svg = save(figure, [tmp_path / "new" / "a.png", tmp_path / "new" / "a.svg"])
    assert png.stat().st_size
    assert b"align report" in svg.read_bytes()[:2000]
    assert b"align report" in png.read_bytes()[:2000]


def test_reach_has_room_even_for_one_step():
    assert reach_of([7]) == (6.5, 7.5)
    assert reach_of([0, 1000, 300]) == (-30, 1030)


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(1, 20))
def test_ends_are_moved_apart_and_keep_order_and_mean(heights, least):
    heights = np.array(sorted(heights))
    moved = _apart(heights, least)
    assert (np.diff(moved) >= least - 1e-6).all()
    if len(heights):
        assert moved.mean() == pytest.approx(heights.mean(), abs=1e-6)


def test_ends_far_apart_stay():
    assert _apart(np.array([0.0, 50.0, 100.0]), 10).tolist() == [0, 50, 100]


def test_numbers_stand_beside_the_ends():
    axes = Figure(layout="constrained").subplots()
    axes.plot([0, 1], [0, 1])
    number_ends(axes, [(1, 1, "1", "#0072B2"), (1, 1, "2", "#D55E00")])
    texts = axes.texts
    assert [text.get_text() for text in texts] == ["1", "2"]
    assert {text.xy for text in texts} == {(1, 1)}
    assert texts[0].xyann[1] < texts[1].xyann[1]
