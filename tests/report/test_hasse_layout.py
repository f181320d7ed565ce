import random
from itertools import combinations, pairwise

import pytest

from align.logic.landscape import Landscape, filtered, landscape
from align.report.hasse_layout import Box, Spacing, crossings, layout, ordered

SPACING = Spacing(width=100, across=20, up=60)
SHORTCUT = ("CEUnl", "sCE", "CPO", "cCPO", "unCPO", "fUnl")
"""A choice in which fUnl stands three levels under unCPO, and nothing between."""


def chosen(*names):
    return filtered(landscape(), lambda node: node.name in names)


def choices():
    draw = random.Random(1)
    names = [node.name for node in landscape().nodes]
    return [chosen(*draw.sample(names, draw.randint(1, 16))) for _ in range(25)]


ALL = [landscape("sixteen"), landscape("twelve"), landscape("reference"), chosen(*SHORTCUT), *choices()]


def placed(whole):
    heights = {node.name: 30.0 + 5 * len(node.known) for node in whole.nodes}
    return layout(whole, heights, SPACING)


def passes_through(start, end, box):
    """Whether a line has more than its ends in a box: the part of it that is left and right, above and below."""
    enters, leaves = 0.0, 1.0
    for a, b, low, high in zip(start, end, (box.x, box.y), (box.x + box.width, box.y + box.height), strict=True):
        low, high = low + 0.5, high - 0.5
        if a == b:
            if not low <= a <= high:
                return False
            continue
        first, last = sorted(((low - a) / (b - a), (high - a) / (b - a)))
        enters, leaves = max(enters, first), min(leaves, last)
    return enters < leaves


def test_passing_through():
    box = Box(0, 0, 10, 10)
    assert passes_through((-5, 5), (15, 6), box)
    assert passes_through((5, -5), (5, 15), box)
    assert not passes_through((5, 10), (5, 20), box)
    assert not passes_through((-5, 0), (0, -5), box)
    assert not passes_through((11, -5), (11, 15), box)


@pytest.mark.parametrize("whole", ALL)
def test_nothing_overlaps_and_no_line_runs_into_a_box(whole):
    plan = placed(whole)
    assert plan.boxes.keys() == {node.name for node in whole.nodes}
    assert plan.lines.keys() == set(whole.edges)
    assert not [pair for pair in combinations(plan.boxes.values(), 2) if pair[0].overlaps(pair[1])]
    for points in plan.lines.values():
        for start, end in pairwise(points):
            assert not [name for name, box in plan.boxes.items() if passes_through(start, end, box)]


@pytest.mark.parametrize("whole", ALL)
def test_levels_are_rows_the_most_constrained_at_the_bottom(whole):
    plan, levels = placed(whole), whole.levels()
    for (a, box), (b, other) in combinations(plan.boxes.items(), 2):
        assert (box.y == other.y) == (levels[a] == levels[b])
    for below, above in whole.edges:
        points = plan.lines[below, above]
        assert points[0] == (plan.boxes[below].middle, plan.boxes[below].y)
        assert points[-1] == (plan.boxes[above].middle, plan.boxes[above].y + plan.boxes[above].height)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


@pytest.mark.parametrize("whole", ALL)
def test_everything_is_inside(whole):
    plan = placed(whole)
    for box in plan.boxes.values():
        assert box.x >= 0
        assert box.x + box.width <= plan.width + 1e-9
        assert box.y >= 0
        assert box.y + box.height <= plan.height + 1e-9
    for points in plan.lines.values():
        assert all(0 <= x <= plan.width and 0 <= y <= plan.height for x, y in points)


def test_the_lattice_has_levels_1_4_6_4_1_and_as_few_crossings_as_any_order_of_them():
    whole = landscape()
    rows = ordered(whole)
    assert list(map(len, rows)) == [1, 4, 6, 4, 1]
    assert crossings(rows, list(whole.edges)) == 22  # the least over all orders, by trying them


def test_the_twelve_need_no_crossing():
    whole = landscape("twelve")
    assert crossings(ordered(whole), list(whole.edges)) == 0


def test_two_lines_cross_or_do_not():
    rows = [["a", "b"], ["c", "d"]]
    assert crossings(rows, [("a", "d"), ("b", "c")]) == 1
    assert crossings(rows, [("a", "c"), ("b", "d"), ("a", "d")]) == 0


def test_a_line_over_several_levels_stops_at_each():
    plan = placed(chosen(*SHORTCUT))
    points = plan.lines["fUnl", "unCPO"]
    assert len(points) == 6  # two ends, and both sides of two levels
    assert points[1][0] == points[2][0]
    assert len(plan.lines["CEUnl", "fUnl"]) == 2


def test_a_level_is_as_high_as_its_highest_box():
    plan = placed(landscape())
    assert plan.boxes["l5"].height == plan.boxes["CPO"].height == 30 + 5 * len(landscape().node("CPO").known)


def test_the_same_landscape_is_laid_out_alike_each_time():
    assert placed(landscape()) == placed(landscape())


def test_none_and_one():
    assert layout(Landscape((), ()), {}, SPACING).boxes == {}
    plan = placed(chosen("ORPO"))
    assert plan.boxes["ORPO"].x == plan.boxes["ORPO"].y == 0
    assert (plan.width, plan.lines) == (100, {})
