"""Where the boxes and lines of a Hasse diagram go: a level a row, the most constrained at the bottom, few crossings."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import mean

from align.logic.landscape import Landscape

Stop = tuple[str, str, int]
"""Where the line from one node to another crosses a level between theirs."""

Key = str | Stop
Rows = list[list[Key]]
Point = tuple[float, float]

STARTS, SWEEPS = 6, 8
"""Orders to begin with, and passes up and down from each."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, with the vertical axis downward.

    Attributes:
        x: of its left side.
        y: of its top.
        width: of it.
        height: of it.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Where its vertical axis stands."""
        return self.x + self.width / 2

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share more than a border."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes and lines.

    Attributes:
        boxes: by the name of the node.
        lines: by the edge, each from the top of the lower box to the bottom of the upper one.
        width: of the whole.
        height: of the whole.
    """

    boxes: Mapping[str, Box]
    lines: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Spacing:
    """Sizes.

    Attributes:
        width: of a box.
        across: between two boxes of a level.
        up: between two levels.
    """

    width: float
    across: float
    up: float


def layout(landscape: Landscape, heights: Mapping[str, float], spacing: Spacing) -> Layout:
    """Return where everything goes.

    Args:
        landscape: what is drawn; no nodes make an empty layout.
        heights: of the boxes' content, by node; all boxes of a level are as high as the highest, so that a line that
            leaves one runs into no other.
        spacing: of boxes and levels.
    """
    rows, levels = ordered(landscape), landscape.levels()
    middles = _middles(rows, spacing)
    width = max((middles[key] + spacing.width / 2 for row in rows for key in row), default=0.0)
    boxes: dict[str, Box] = {}
    bands: list[tuple[float, float]] = [(0.0, 0.0)] * len(rows)
    y = 0.0
    for level in reversed(range(len(rows))):
        high = max((heights[key] for key in rows[level] if isinstance(key, str)), default=0.0)
        bands[level] = (y, y + high)
        for key in rows[level]:
            if isinstance(key, str):
                boxes[key] = Box(middles[key] - spacing.width / 2, y, spacing.width, high)
        y += high + spacing.up
    lines = {edge: tuple(_line(edge, levels, middles, bands)) for edge in landscape.edges}
    return Layout(boxes, lines, width, max(y - spacing.up, 0.0))


def _line(
    edge: tuple[str, str],
    levels: Mapping[str, int],
    middles: Mapping[Key, float],
    bands: Sequence[tuple[float, float]],
) -> Iterator[Point]:
    below, above = edge
    yield middles[below], bands[levels[below]][0]
    for level in range(levels[below] + 1, levels[above]):
        top, bottom = bands[level]
        yield middles[below, above, level], bottom
        yield middles[below, above, level], top
    yield middles[above], bands[levels[above]][1]


def _middles(rows: Rows, spacing: Spacing) -> dict[Key, float]:
    """Return where each box's axis stands: levels about one axis, short ones spread out by half of what they lack."""
    natural = [sum(_width(key, spacing) for key in row) + spacing.across * (len(row) - 1) for row in rows]
    widest = max(natural, default=0.0)
    middles: dict[Key, float] = {}
    for row, width in zip(rows, natural, strict=True):
        gap = spacing.across + (0.5 * (widest - width) / (len(row) - 1) if len(row) > 1 else 0)
        x = (widest - width - (gap - spacing.across) * (len(row) - 1)) / 2
        for key in row:
            middles[key] = x + _width(key, spacing) / 2
            x += _width(key, spacing) + gap
    return middles


def _width(key: Key, spacing: Spacing) -> float:
    return spacing.width if isinstance(key, str) else 0.0


# ---- the order inside a level ---------------------------------------------------------------------------------------


def ordered(landscape: Landscape) -> Rows:
    """Return the levels from below, each from left to right, with few crossings and regions together.

    From several orders, each level is sorted by the mean place of its neighbours, up and down in turn; then pairs are
    exchanged as long as that helps. The same landscape always gives the same order.
    """
    rows, links = _with_stops(landscape)
    regions = {node.name: node.region for node in landscape.nodes}
    draw = random.Random(0)
    best, least = rows, _cost(rows, links, regions)
    for _ in range(STARTS):
        found = _exchanged(_swept(rows, links), links, regions)
        cost = _cost(found, links, regions)
        if cost < least:
            best, least = found, cost
        rows = [draw.sample(row, len(row)) for row in rows]
    return best


def _with_stops(landscape: Landscape) -> tuple[Rows, list[tuple[Key, Key]]]:
    """Return the levels, with a stop wherever a line crosses one, and the pairs that are linked between neighbours."""
    levels = landscape.levels()
    rows: Rows = [[] for _ in range(max(levels.values(), default=-1) + 1)]
    for name, level in levels.items():
        rows[level].append(name)
    links: list[tuple[Key, Key]] = []
    for below, above in landscape.edges:
        stops: list[Key] = [(below, above, level) for level in range(levels[below] + 1, levels[above])]
        for stop, level in zip(stops, range(levels[below] + 1, levels[above]), strict=True):
            rows[level].append(stop)
        links += pairwise([below, *stops, above])
    return rows, links


def _swept(rows: Rows, links: list[tuple[Key, Key]]) -> Rows:
    rows = [list(row) for row in rows]
    down = [(above, below) for below, above in links]
    for sweep in range(SWEEPS):
        upward = sweep % 2 == 0
        order = range(1, len(rows)) if upward else range(len(rows) - 2, -1, -1)
        for level in order:
            beside = rows[level - 1] if upward else rows[level + 1]
            rows[level].sort(key=_barycentres(rows[level], beside, links if upward else down).__getitem__)
    return rows


def _barycentres(row: list[Key], beside: list[Key], links: list[tuple[Key, Key]]) -> dict[Key, float]:
    """Return the mean place of each one's neighbours in the level beside; of one without any, its own."""
    places = {key: (k + 0.5) / len(beside) for k, key in enumerate(beside)}
    near: dict[Key, list[float]] = {key: [] for key in row}
    for there, here in links:
        if here in near and there in places:
            near[here].append(places[there])
    return {key: mean(near[key]) if near[key] else (k + 0.5) / len(row) for k, key in enumerate(row)}


def _exchanged(rows: Rows, links: list[tuple[Key, Key]], regions: Mapping[str, str]) -> Rows:
    least = _cost(rows, links, regions)
    better = True
    while better:
        better = False
        for row in rows:
            for a, b in combinations(range(len(row)), 2):
                row[a], row[b] = row[b], row[a]
                cost = _cost(rows, links, regions)
                if cost < least:
                    least, better = cost, True
                else:
                    row[a], row[b] = row[b], row[a]
    return rows


def _cost(rows: Rows, links: list[tuple[Key, Key]], regions: Mapping[str, str]) -> tuple[int, int, float]:
    """Return what is to be small, the first the most: crossings, neighbours of two regions, lines across."""
    splits = sum(
        regions[a] != regions[b] for row in rows for a, b in pairwise(row) if isinstance(a, str) and isinstance(b, str)
    )
    places = {key: (k + 0.5) / len(row) for row in rows for k, key in enumerate(row)}
    return crossings(rows, links), splits, round(sum(abs(places[a] - places[b]) for a, b in links), 9)


def crossings(rows: Rows, links: list[tuple[Key, Key]]) -> int:
    """Return how many pairs of lines cross."""
    places = {key: (level, k) for level, row in enumerate(rows) for k, key in enumerate(row)}
    found = 0
    for level in range(len(rows) - 1):
        ends = [(places[a][1], places[b][1]) for a, b in links if places[a][0] == level]
        found += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(ends, 2))
    return found
