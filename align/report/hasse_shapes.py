"""What a picture is made of: rectangles, lines of text, strokes; each can be moved and knows the room that it takes.

The vertical axis points downward, and lengths are pixels.
"""

from dataclasses import dataclass, replace
from typing import Literal

from align.report.hasse_layout import Box, Point

_NARROW, _WIDE = set(" .,:;'|!()[]ijltfrIJ/·-"), set("mwMWQ@%&#^~+=<>")
_HEAVY = ("name", "title", "value")


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle with round corners.

    Attributes:
        box: where it is.
        look: name of its colours.
        region: number of its region, for its ground; 0 for none.
        radius: of its corners.
    """

    box: Box
    look: str
    region: int = 0
    radius: float = 3.0

    def moved(self, x: float, y: float) -> "Rectangle":
        """Return it elsewhere."""
        return replace(self, box=Box(self.box.x + x, self.box.y + y, self.box.width, self.box.height))

    def reach(self) -> Box:
        """Return the room that it takes."""
        return self.box


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text.

    Attributes:
        x: of its start, or of its middle.
        y: of its base line.
        text: what it says.
        size: of the letters.
        look: name of its colour and weight.
        anchor: what x is of.
    """

    x: float
    y: float
    text: str
    size: float
    look: str = "plain"
    anchor: Literal["start", "middle"] = "middle"

    def moved(self, x: float, y: float) -> "Words":
        """Return it elsewhere."""
        return replace(self, x=self.x + x, y=self.y + y)

    def reach(self) -> Box:
        """Return the room that it takes, in any usual font."""
        width = width_of(self.text, self.size) * (1.08 if self.look in _HEAVY else 1)
        start = self.x if self.anchor == "start" else self.x - width / 2
        return Box(start, self.y - 0.8 * self.size, width, self.size)


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through some points.

    Attributes:
        points: from one end to the other.
        look: name of its colour and width.
        edge: names of the nodes that it joins, the more constrained first; None for other lines.
    """

    points: tuple[Point, ...]
    look: str
    edge: tuple[str, str] | None = None

    def moved(self, x: float, y: float) -> "Stroke":
        """Return it elsewhere."""
        return replace(self, points=tuple((a + x, b + y) for a, b in self.points))

    def reach(self) -> Box:
        """Return the room that it takes."""
        (left, right), (top, bottom) = ((min(side), max(side)) for side in zip(*self.points, strict=True))
        return Box(left, top, right - left, bottom - top)


Shape = Rectangle | Words | Stroke


def width_of(line: str, size: float) -> float:
    """Return the width of a line of text: an upper bound for usual fonts without serifs.

    Examples:
        >>> round(width_of("CPO", 10), 1), width_of("", 10)
        (23.7, 0)
    """
    return size * sum(map(_ems, line))


def _ems(sign: str) -> float:
    if sign in _NARROW:
        return 0.42
    if sign in _WIDE or not sign.isascii():
        return 1.0
    return 0.79 if sign.isupper() else 0.66
