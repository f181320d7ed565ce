"""A landscape as a picture: rectangles, lines and text at their places, which SVG and PNG are both made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from align.logic.circuit import ONE, log_ratio, ratio, text
from align.logic.landscape import Landscape, Node
from align.logic.structure import PAIR, SIGNS, Mark
from align.report.hasse_layout import Box, Spacing, layout
from align.report.hasse_shapes import Rectangle, Shape, Stroke, Words, width_of

MARGIN, PADDING = 24.0, 10.0
TITLE, NAME, FIGURES, SMALL, TINY = 20.0, 16.0, 13.0, 11.5, 10.5
"""Sizes of text."""

CORNER = 10.0
"""Room beside a name for the number in the corner of its box."""

MARKS_SAY: Mapping[Mark, str] = {
    "win": "counts for the winner",
    "lose": "against it",
    "both": "on both sides",
    "neither": "not at all",
}
"""What a row with a mark does, in a legend."""


@dataclass(frozen=True, slots=True)
class Group:
    """What is drawn of a node.

    Attributes:
        node: it.
        region: its number.
        said: all that the box says, as a line of text.
        shapes: the box first.
    """

    node: Node
    region: int
    said: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn, in this order.

    Attributes:
        width: of the whole.
        height: of the whole.
        title: of the whole.
        lines: between nodes.
        nodes: in the order of the landscape.
        around: the title and the legend.
    """

    width: float
    height: float
    title: str
    lines: tuple[Stroke, ...]
    nodes: tuple[Group, ...]
    around: tuple[Shape, ...] = ()

    def shapes(self) -> Iterator[Shape]:
        """Yield all shapes, those behind first."""
        yield from self.lines
        for node in self.nodes:
            yield from node.shapes
        yield from self.around


@dataclass(frozen=True, slots=True)
class Part:
    """One of the things that stand under each other in a box.

    Attributes:
        height: of it.
        width: room that it needs, half of it on each side of the middle.
        shapes: about the middle of its upper side.
    """

    height: float
    width: float
    shapes: tuple[Shape, ...]


Parts = Callable[[Node, str | None], list[Part]]


def region_numbers(landscape: Landscape) -> dict[str, int]:
    """Return the number of each node's region in the legend, from 1."""
    numbers = {region: k for k, region in enumerate(landscape.regions(), 1)}
    return {node.name: numbers[node.region] for node in landscape.nodes}


def said_of(node: Node, value: str | None = None) -> str:
    """Return what a box says, as a line of text.

    Examples:
        >>> from align.logic.landscape import landscape
        >>> said_of(landscape().node("CE"))
        'CE (cross-entropy of the winner): log [ w / (1−w) ]; marks ✓ ✓ ✗ ✗; weakest core M(w)'
    """
    known = f" ({node.known})" if node.known else ""
    marks = f"; marks {' '.join(SIGNS[mark] for mark in node.structure.marks())}" if node.structure.n == 2 else ""
    score = "" if value is None else f"; {value}"
    return f"{node.name}{known}: {log_ratio(node.structure)}{marks}; weakest core {node.region}{score}"


# ---- pictures -------------------------------------------------------------------------------------------------------


def picture(landscape: Landscape, values: Mapping[str, str] | None = None) -> Picture:
    """Return a picture that stands by itself: boxes that say all they can, a title above, a legend below.

    Args:
        landscape: what is drawn.
        values: a line of text for some nodes, by name.
    """
    inside = _diagram(landscape, values or {}, _full, Spacing(0, 22, 84))
    head = _head(landscape)
    legend = _legend(landscape, max(inside.width, 600))
    below = _right_and_bottom(head)[1] + 30
    width = max(inside.width, _right_and_bottom(head)[0], _right_and_bottom(legend)[0])
    foot = below + inside.height + 40
    shift = (MARGIN + (width - inside.width) / 2, MARGIN + below)
    around = _moved(head, MARGIN, MARGIN) + _moved(legend, MARGIN, MARGIN + foot)
    return replace(
        inside,
        width=width + 2 * MARGIN,
        height=foot + _right_and_bottom(legend)[1] + 2 * MARGIN,
        lines=tuple(line.moved(*shift) for line in inside.lines),
        nodes=tuple(replace(node, shapes=_moved(node.shapes, *shift)) for node in inside.nodes),
        around=around,
    )


def compact(landscape: Landscape, values: Mapping[str, str] | None = None) -> Picture:
    """Return a small picture, for a page that says the rest beside it."""
    return _diagram(landscape, values or {}, _small, Spacing(92, 10, 62))


def title(landscape: Landscape) -> str:
    """Return what the picture is of."""
    number = len(landscape.nodes)
    reference = any(atom.model == "Ref" for node in landscape.nodes for atom in node.structure.atoms)
    losses = f"{number} preference loss{'es' if number != 1 else ''}"
    return f"{losses}{', as reference forms,' if reference else ''} in the order of entailment"


def _diagram(landscape: Landscape, values: Mapping[str, str], parts_of: Parts, spacing: Spacing) -> Picture:
    """Return the boxes and lines; boxes are wide enough for what is in them."""
    parts = {node.name: parts_of(node, values.get(node.name)) for node in landscape.nodes}
    wide = max((part.width for stack in parts.values() for part in stack), default=0) + 1.6 * PADDING
    heights = {name: sum(part.height for part in stack) + PADDING for name, stack in parts.items()}
    plan = layout(landscape, heights, replace(spacing, width=max(spacing.width, wide)))
    numbers = region_numbers(landscape)
    nodes = []
    for node in landscape.nodes:
        shapes = _stacked(node, plan.boxes[node.name], numbers[node.name], parts[node.name])
        nodes.append(Group(node, numbers[node.name], said_of(node, values.get(node.name)), tuple(shapes)))
    lines = tuple(Stroke(points, "edge", edge) for edge, points in plan.lines.items())
    return Picture(plan.width, plan.height, title(landscape), lines, tuple(nodes))


def _stacked(node: Node, box: Box, region: int, parts: Sequence[Part]) -> Iterator[Shape]:
    yield Rectangle(box, "known-box" if node.known else "box", region, 7)
    yield Words(box.x + box.width - 9, box.y + 14, str(region), TINY - 0.5, "faint")
    y = box.y + PADDING / 2
    for part in parts:
        yield from _moved(part.shapes, box.middle, y)
        y += part.height


def _moved(shapes: Iterable[Shape], x: float, y: float) -> tuple[Shape, ...]:
    return tuple(shape.moved(x, y) for shape in shapes)


def _right_and_bottom(shapes: Iterable[Shape]) -> tuple[float, float]:
    reaches = [shape.reach() for shape in shapes]
    return max(r.x + r.width for r in reaches), max(r.y + r.height for r in reaches)


# ---- what is in a box -----------------------------------------------------------------------------------------------


def _full(node: Node, value: str | None) -> list[Part]:
    marks = [_marks(node, 24, 20, FIGURES)] if node.structure.atoms == PAIR else []
    return [_name(node, NAME), _log_ratio(node), *marks, *_lines(node.known, 150, SMALL, "known"), *_value(value)]


def _small(node: Node, value: str | None) -> list[Part]:
    marks = [_marks(node, 19, 17, SMALL)] if node.structure.atoms == PAIR else []
    return [_name(node, NAME - 1), *marks, *_lines(node.known, 80, TINY, "known"), *_value(value)]


def _name(node: Node, size: float) -> Part:
    words = Words(0, size, node.name, size, "name")
    return Part(size + 8, words.reach().width + 2 * CORNER, (words,))


def _value(value: str | None) -> list[Part]:
    return [] if value is None else [_line(value, FIGURES, "value")]


def _lines(said: str, width: float, size: float, look: str) -> list[Part]:
    """Return a text as lines of this width; a word that is wider stands by itself."""
    lines: list[str] = []
    for word in said.split():
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [_line(line, size, look) for line in lines]


def _line(said: str, size: float, look: str) -> Part:
    words = Words(0, size, said, size, look)
    return Part(size + 3.5, words.reach().width, (words,))


def _log_ratio(node: Node) -> Part:
    """Return the log-ratio with one side over the other."""
    top, bottom = ratio(node.structure)
    above, below = text(top), "" if bottom == ONE else text(bottom)
    log, wide = width_of("log", FIGURES) + 3, max(width_of(above, FIGURES), width_of(below, FIGURES))
    middle = log / 2
    shapes: list[Shape] = [Words(-(log + wide) / 2, 22, "log", FIGURES, anchor="start")]
    if below:
        shapes.append(Stroke(((middle - wide / 2, 18), (middle + wide / 2, 18)), "bar"))
        shapes.append(Words(middle, 31, below, FIGURES))
    shapes.append(Words(middle, 13 if below else 22, above, FIGURES))
    return Part(40, log + wide, tuple(shapes))


def _marks(node: Node, width: float, height: float, size: float) -> Part:
    marks = node.structure.marks()
    shapes: list[Shape] = []
    for k, mark in enumerate(marks):
        shapes += _mark(mark, width * (k - len(marks) / 2) + 1, 0, Box(0, 0, width - 2, height), size)
    return Part(height + 5, width * len(marks), tuple(shapes))


def _mark(mark: Mark, x: float, y: float, cell: Box, size: float) -> tuple[Shape, ...]:
    rectangle = Rectangle(Box(x, y, cell.width, cell.height), f"mark {mark}")
    letters = size - (1.6 if mark == "both" else 0)
    return rectangle, Words(
        rectangle.box.middle, y + cell.height / 2 + 0.36 * size, SIGNS[mark], letters, f"sign {mark}"
    )


# ---- what stands around ---------------------------------------------------------------------------------------------


def _head(landscape: Landscape) -> list[Shape]:
    order = (
        "Most constrained at the bottom. A line leads up to a loss that is entailed: it is the less constrained one."
    )
    return [
        Words(0, TITLE, title(landscape), TITLE, "title", "start"),
        Words(0, TITLE + 24, order, FIGURES, "muted", "start"),
    ]


def _legend(landscape: Landscape, width: float) -> list[Shape]:
    shapes: list[Shape] = [Words(0, 12, "Ground and number: the weakest core", SMALL, "muted", "start")]
    regions = landscape.regions()
    across = max((width_of(core, FIGURES) for core in regions), default=0) + 56
    columns = max(1, min(int((width + 20) // across), 3))
    rows = -(-len(regions) // columns)
    for k, core in enumerate(regions):
        x, y = across * (k // rows), 24 + 26 * (k % rows)
        shapes.append(Rectangle(Box(x, y, 26, 19), "box", k + 1, 4))
        shapes.append(Words(x + 13, y + 13.5, str(k + 1), SMALL, "plain"))
        shapes.append(Words(x + 36, y + 14, core, FIGURES, "plain", "start"))
    y = 24 + 26 * rows + 14
    for line in _notes(landscape):
        moved = _moved(line, 0, y)
        shapes += moved
        y += 26
    return shapes


def _notes(landscape: Landscape) -> Iterator[list[Shape]]:
    """Yield the lines of the legend that say how boxes are to be read."""
    if any(node.structure.atoms == PAIR for node in landscape.nodes):
        yield _marks_note()
        rows = "Marks, from the left: where both are valid, only the winner, only the loser, neither"
        yield [Words(0, 13, rows, FIGURES, "plain", "start")]
    letters = "w, l: the model's probabilities of winner and loser"
    if any(atom.model == "Ref" for node in landscape.nodes for atom in node.structure.atoms):
        letters += "; rw, rl: the reference's"
    yield [Words(0, 13, letters, FIGURES, "plain", "start")]
    if any(node.known for node in landscape.nodes):
        known = "a known loss, named in the box"
        yield [Rectangle(Box(1, 0, 24, 17), "known-box", 0, 4), Words(36, 13.5, known, FIGURES, "plain", "start")]


def _marks_note() -> list[Shape]:
    shapes: list[Shape] = []
    x = 0.0
    for mark, said in MARKS_SAY.items():
        shapes += _mark(mark, x, 0, Box(0, 0, 26, 19), FIGURES)
        shapes.append(Words(x + 36, 14, said, FIGURES, "plain", "start"))
        x += 36 + width_of(said, FIGURES) + 14
    return shapes
