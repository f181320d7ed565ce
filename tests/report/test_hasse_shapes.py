import pytest
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font, LoadFlags

from align.report.hasse_layout import Box
from align.report.hasse_shapes import Rectangle, Stroke, Words, width_of

SIGNS = [chr(code) for code in range(32, 127)] + list("−→¬∧∨↔⊕⊤⊥✓✗·")


@pytest.mark.parametrize(("weight", "look"), [("normal", "plain"), ("bold", "name")])
def test_text_is_never_wider_than_it_is_taken_to_be(weight, look):
    """Measured in DejaVu Sans, the widest of the usual fonts and the one of PNG files."""
    font = FT2Font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(1000, 72)

    def real(line):
        font.set_text(line, 0, flags=LoadFlags.NO_HINTING)
        return font.get_width_height()[0] / 64 / 1000

    for said in (
        "qfUnl",
        "CPO, SLiC, RRHF, SimPO's margin",
        "rw(wl + 1−w)",
        "M(l) ∧ Ref(w) → M(w)",
        "✓✗",
        "51.3 ± 0.8",
    ):
        assert real(said) <= Words(0, 0, said, 1, look).reach().width
    if weight == "normal":
        assert not [sign for sign in SIGNS if real(sign) > width_of(sign, 1)]


def test_wide_scripts_are_wide():
    assert width_of("漢字", 10) == 20


def test_text_takes_room_about_its_middle_or_from_its_start():
    middle, start = Words(50, 20, "CPO", 10), Words(50, 20, "CPO", 10, anchor="start")
    assert middle.reach().middle == pytest.approx(50)
    assert start.reach().x == 50
    assert middle.reach().y < 20 < middle.reach().y + middle.reach().height
    assert Words(0, 0, "CPO", 10, "name").reach().width > middle.reach().width


@pytest.mark.parametrize(
    "shape",
    [Rectangle(Box(1, 2, 30, 40), "box", 3, 5), Words(1, 2, "w", 10), Stroke(((0, 5), (10, 1)), "edge", ("a", "b"))],
)
def test_a_shape_is_moved_as_a_whole(shape):
    before, after = shape.reach(), shape.moved(7, -3).reach()
    assert (after.x, after.y) == pytest.approx((before.x + 7, before.y - 3))
    assert (after.width, after.height) == pytest.approx((before.width, before.height))
    assert shape.moved(7, -3).moved(-7, 3) == shape


def test_a_stroke_takes_the_room_between_its_points():
    assert Stroke(((10, 5), (0, 1), (4, 9)), "edge").reach() == Box(0, 1, 10, 8)
