from itertools import combinations

import pytest

from align.logic.landscape import Landscape, filtered, landscape
from align.logic.structure import SIGNS
from align.report.hasse_picture import compact, picture, region_numbers, said_of, title
from align.report.hasse_shapes import Rectangle, Stroke, Words

WHICH = ("sixteen", "twelve", "reference")
SCORES = {"CPO": "51.3 ± 0.8 % of pairs", "ORPO": "52"}
DRAWN = [(make, which, values) for make in (picture, compact) for which in WHICH for values in (None, SCORES)]
every_picture = pytest.mark.parametrize(("make", "which", "values"), DRAWN)


def texts(shapes):
    return [shape for shape in shapes if isinstance(shape, Words)]


def of(whole, name):
    return next(group for group in whole.nodes if group.node.name == name)


@every_picture
def test_text_stays_in_its_box_and_meets_no_other(make, which, values):
    drawn = make(landscape(which), values)
    for group in drawn.nodes:
        box = group.shapes[0].box
        for shape in group.shapes[1:]:
            room = shape.reach()
            assert box.x <= room.x
            assert room.x + room.width <= box.x + box.width
            assert box.y <= room.y
            assert room.y + room.height <= box.y + box.height
    rooms = [text.reach() for text in texts(drawn.shapes())]
    assert not [pair for pair in combinations(rooms, 2) if pair[0].overlaps(pair[1])]


@every_picture
def test_everything_is_inside_and_no_two_boxes_meet(make, which, values):
    drawn = make(landscape(which), values)
    for shape in drawn.shapes():
        room = shape.reach()
        assert 0 <= room.x <= room.x + room.width <= drawn.width
        assert 0 <= room.y <= room.y + room.height <= drawn.height
    boxes = [group.shapes[0].box for group in drawn.nodes]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    for group in drawn.nodes:
        assert not [s for s in drawn.around if s.reach().overlaps(group.shapes[0].box)]


@every_picture
def test_nodes_lines_and_values(make, which, values):
    whole = landscape(which)
    drawn = make(whole, values)
    assert [group.node for group in drawn.nodes] == list(whole.nodes)
    assert [line.edge for line in drawn.lines] == list(whole.edges)
    said = {group.node.name: [text.text for text in texts(group.shapes)] for group in drawn.nodes}
    for node in whole.nodes:
        assert node.name in said[node.name]
        assert str(region_numbers(whole)[node.name]) in said[node.name]
        assert not values or (values.get(node.name) in said[node.name]) == (node.name in values)


def test_a_box_says_log_ratio_and_marks():
    group = of(picture(landscape()), "CPO")
    said = [text.text for text in texts(group.shapes)]
    assert said[said.index("log") :][:3] == ["log", "l", "w"]
    assert [text for text in said if text in SIGNS.values()] == ["✓✗", "✓", "✗", "·"]
    assert "CPO, SLiC, RRHF," in said
    assert said[-1] == "SimPO's margin"
    (bar,) = [shape for shape in group.shapes if isinstance(shape, Stroke)]
    above, below = (next(text for text in texts(group.shapes) if text.text == letter) for letter in "wl")
    assert above.y < bar.points[0][1] < below.y


def test_known_losses_have_another_border():
    whole = landscape()
    for group in (*picture(whole).nodes, *compact(whole).nodes):
        assert group.shapes[0].look == ("known-box" if group.node.known else "box")
        assert group.shapes[0].region == group.region == region_numbers(whole)[group.node.name]


def test_the_legend_names_every_region():
    for which in WHICH:
        whole = landscape(which)
        drawn = picture(whole)
        said = [text.text for text in texts(drawn.around)]
        assert set(whole.regions()) <= set(said)
        grounds = [s.region for s in drawn.around if isinstance(s, Rectangle) and s.region]
        assert grounds == list(range(1, len(whole.regions()) + 1))
    assert any("rw, rl" in text for text in said)


def test_regions_are_numbered_from_the_most_constrained():
    numbers = region_numbers(landscape())
    assert (numbers["CEUnl"], numbers["CE"], numbers["unCPO"]) == (1, 2, 4)
    assert max(region_numbers(landscape("reference")).values()) == 9


def test_titles():
    assert title(landscape("twelve")) == "12 preference losses in the order of entailment"
    assert "as reference forms" in title(landscape("reference"))
    assert title(filtered(landscape(), lambda node: node.name == "CE")).startswith("1 preference loss in")


def test_a_line_says_what_a_box_does():
    assert said_of(landscape("reference").node("CPO"), "51 %") == (
        "CPO (DPO, IPO): log [ (w·rl) / (l·rw) ]; weakest core M(l) ∧ Ref(w) → M(w) ∧ Ref(l); 51 %"
    )


def test_a_long_value_widens_the_boxes():
    long = {"CE": "a value that is much longer than any other text"}
    assert of(compact(landscape(), long), "CE").shapes[0].box.width > 300


def test_one_node_and_none():
    drawn = picture(filtered(landscape(), lambda node: node.name == "CE"))
    assert len(drawn.nodes) == 1
    assert drawn.lines == ()
    assert picture(Landscape((), ())).nodes == ()
