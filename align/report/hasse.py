"""Landscapes of losses as Hasse diagrams: DOT, Mermaid, SVG and PNG.

The most constrained loss is at the bottom. Drawing needs neither graphviz nor, but for PNG, matplotlib.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from align.logic.circuit import log_ratio
from align.logic.landscape import Landscape, Node
from align.report.hasse_picture import Picture, picture, region_numbers, title
from align.report.hasse_shapes import Rectangle, Shape, Stroke, Words

MADE_BY = "align logic landscape"
"""Stands in every file made here."""

HUES = ("#0072B2", "#E69F00", "#009E73", "#CC5C9C", "#8A8A8A", "#E3D000", "#D55E00", "#7B5CC4", "#86B300")
"""Colours of regions, in their order and then again from the first; a box bears its region's number too."""

INK, MUTED, PAPER = "#222222", "#5B626D", "#FFFFFF"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'


def tint(hue: str, share: float = 0.24) -> str:
    """Return a colour on white paper, this share of it.

    Examples:
        >>> tint("#000000", 0.5), tint("#0072B2", 1.0)
        ('#808080', '#0072B2')
    """
    parts = (int(hue[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


LOOKS: Mapping[str, Mapping[str, str]] = {
    "box": {"stroke": "#8A9099", "stroke-width": "1"},
    "known-box": {"stroke": INK, "stroke-width": "2.6"},
    "edge": {"stroke": "#8A9099", "stroke-width": "1.3"},
    "bar": {"stroke": INK, "stroke-width": "1"},
    "plain": {"fill": INK},
    "name": {"fill": INK, "font-weight": "bold"},
    "title": {"fill": INK, "font-weight": "bold"},
    "muted": {"fill": MUTED},
    "faint": {"fill": "#464D57"},
    "known": {"fill": INK, "font-style": "italic"},
    "value": {"fill": "#005A8D", "font-weight": "bold"},
    "mark win": {"fill": tint("#009E73", 0.35)},
    "mark lose": {"fill": tint("#D55E00", 0.35)},
    "mark both": {"fill": tint("#8A8A8A", 0.45)},
    "mark neither": {"fill": PAPER, "stroke": "#C8C8C8", "stroke-width": "0.8"},
    "sign win": {"fill": "#00513B"},
    "sign lose": {"fill": "#7A3600"},
    "sign both": {"fill": INK},
    "sign neither": {"fill": INK},
}
"""What shapes look like, by the name of their look, in the words of SVG."""


def region_colour(region: int) -> str:
    """Return the ground of a region's boxes on white paper."""
    return tint(HUES[(region - 1) % len(HUES)]) if region else PAPER


# ---- DOT and Mermaid ------------------------------------------------------------------------------------------------


def dot(landscape: Landscape, values: Mapping[str, str] | None = None) -> str:
    """Return the diagram for graphviz.

    Args:
        landscape: what is drawn.
        values: a line of text for some nodes, by name.

    Examples:
        >>> from align.logic.landscape import landscape
        >>> dot(landscape()).count(" -> ")
        32
    """
    return "\n".join(_dot(landscape, values or {})) + "\n"


def _dot(landscape: Landscape, values: Mapping[str, str]) -> Iterator[str]:
    numbers = region_numbers(landscape)
    yield f"// Made by {MADE_BY}."
    yield "digraph landscape {"
    yield f"  graph [rankdir=BT, label={_dot_text(title(landscape))}, labelloc=t, nodesep=0.3, ranksep=0.7];"
    yield '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=12];'
    yield '  edge [dir=none, color="#8A9099"];'
    for node in landscape.nodes:
        label = _dot_text("\n".join(_label(node, values.get(node.name))))
        width = ", penwidth=2.6" if node.known else ""
        yield f'  {_dot_text(node.name)} [label={label}, fillcolor="{region_colour(numbers[node.name])}"{width}];'
    for below, above in landscape.edges:
        yield f"  {_dot_text(below)} -> {_dot_text(above)};"
    rows = "".join(
        f'<tr><td bgcolor="{region_colour(number)}">{_escaped(core)}</td></tr>'
        for number, core in enumerate(landscape.regions(), 1)
    )
    table = f'<table border="0" cellborder="1" cellspacing="4"><tr><td border="0">weakest core</td></tr>{rows}</table>'
    yield f'  regions [shape=plain, style="", label=<{table}>];'
    yield "}"


def _dot_text(said: str) -> str:
    clean = said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{clean}"'


def _label(node: Node, value: str | None) -> Iterator[str]:
    yield node.name
    yield log_ratio(node.structure)
    if node.known:
        yield node.known
    if value is not None:
        yield value


def mermaid(landscape: Landscape, values: Mapping[str, str] | None = None) -> str:
    """Return the diagram for Mermaid, which GitHub shows in Markdown.

    Args:
        landscape: what is drawn.
        values: a line of text for some nodes, by name.

    Examples:
        >>> from align.logic.landscape import landscape
        >>> mermaid(landscape("twelve")).count(" --- ")
        18
    """
    return "\n".join(_mermaid(landscape, values or {})) + "\n"


def _mermaid(landscape: Landscape, values: Mapping[str, str]) -> Iterator[str]:
    numbers = region_numbers(landscape)
    known = [node.name for node in landscape.nodes if node.known]
    yield f"%% Made by {MADE_BY}: {title(landscape)}."
    yield "flowchart BT"
    for node in landscape.nodes:
        label = "<br/>".join(map(_mermaid_text, _label(node, values.get(node.name))))
        yield f'  {node.name}["{label}"]:::region{numbers[node.name]}'
    for below, above in landscape.edges:
        yield f"  {below} --- {above}"
    yield '  subgraph regions["weakest core"]'
    for number, core in enumerate(landscape.regions(), 1):
        yield f'    core{number}["{_mermaid_text(core)}"]:::region{number}'
    yield "  end"
    if landscape.nodes:  # invisible links put the regions under the whole, three in a row
        over = [landscape.nodes[0].name] * 3 + [f"core{number}" for number, _ in enumerate(landscape.regions(), 1)]
        for number, _ in enumerate(landscape.regions(), 1):
            yield f"  core{number} ~~~ {over[number - 1]}"
    for number, _ in enumerate(landscape.regions(), 1):
        yield f"  classDef region{number} fill:{region_colour(number)},stroke:#8A9099,color:{INK}"
    if known:
        yield f"  classDef known stroke:{INK},stroke-width:3px"
        yield f"  class {','.join(known)} known"


def _mermaid_text(said: str) -> str:
    """Return text with the signs that Mermaid or Markdown in it would read as theirs as entities."""
    return "".join(f"#{ord(sign)};" if sign in '"#&<>`*_\\[]{}|%;~$' else sign for sign in " ".join(said.split()))


# ---- SVG ------------------------------------------------------------------------------------------------------------


def svg(landscape: Landscape, values: Mapping[str, str] | None = None) -> str:
    """Return the diagram as a file of its own, with a legend.

    Args:
        landscape: what is drawn.
        values: a line of text for some nodes, by name.
    """
    whole = picture(landscape, values)
    size = f'width="{whole.width:.0f}" height="{whole.height:.0f}" viewBox="0 0 {whole.width:.0f} {whole.height:.0f}"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<!-- Made by {MADE_BY}. -->",
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{_escaped(whole.title)}</title>",
            f"<style>{_style(len(landscape.regions()))}</style>",
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            drawn(whole),
            "</svg>\n",
        ]
    )


def drawn(whole: Picture, address: Callable[[str], str] | None = None) -> str:
    """Return the elements of a picture; a style sheet elsewhere says what their classes look like.

    Args:
        whole: the picture.
        address: where a node leads, by its name; without it, nodes are no links.
    """
    found = [_element(line) for line in whole.lines]
    for group in whole.nodes:
        name, said = quoteattr(_clean(group.node.name)), f"<title>{_escaped(group.said)}</title>"
        tag = "g" if address is None else "a"
        link = "" if address is None else f" href={quoteattr(address(group.node.name))}"
        label = "" if address is None else f" aria-label={quoteattr(_clean(group.said))}"
        inside = "".join(_element(shape) for shape in group.shapes)
        found.append(f'<{tag} class="node" data-node={name}{link}{label}>{said}{inside}</{tag}>')
    return "\n".join([*found, *(_element(shape) for shape in whole.around)])


def _element(shape: Shape) -> str:
    if isinstance(shape, Words):
        place = f'x="{shape.x:.5g}" y="{shape.y:.5g}" font-size="{shape.size:g}" text-anchor="{shape.anchor}"'
        return f'<text class="{shape.look}" {place}>{_escaped(shape.text)}</text>'
    if isinstance(shape, Stroke):
        edge = f" data-below={quoteattr(shape.edge[0])} data-above={quoteattr(shape.edge[1])}" if shape.edge else ""
        points = " ".join(f"{x:.5g},{y:.5g}" for x, y in shape.points)
        return f'<polyline class="{shape.look}" points="{points}"{edge}/>'
    box = shape.box
    place = f'x="{box.x:.5g}" y="{box.y:.5g}" width="{box.width:.5g}" height="{box.height:.5g}" rx="{shape.radius:g}"'
    ground = f" region-{shape.region}" if shape.region else ""
    return f'<rect class="{shape.look}{ground}" {place}/>'


def _style(regions: int) -> str:
    rules = [f"text {{ font-family: {FONT}; }}", "polyline, rect.box, rect.known-box { fill: none; }"]
    for look, words in LOOKS.items():
        rules.append(f".{look.replace(' ', '.')} {{ {' '.join(f'{key}: {value};' for key, value in words.items())} }}")
    rules += [f"rect.region-{k} {{ fill: {region_colour(k)}; }}" for k in range(1, regions + 1)]
    return "\n".join(rules)


def _escaped(said: str) -> str:
    return escape(_clean(said))


def _clean(said: str) -> str:
    """Return text without the control characters and halves of characters that no XML may hold."""
    allowed = (
        sign if (sign >= " " or sign in "\n\t") and not "\ud800" <= sign <= "\udfff" else "\ufffd" for sign in said
    )
    return "".join(allowed)


# ---- PNG ------------------------------------------------------------------------------------------------------------

PIXELS_PER_INCH, SHARPNESS = 100, 2
"""Units of the picture in an inch, and pixels in a unit."""


def png(landscape: Landscape, path: Path, values: Mapping[str, str] | None = None) -> None:
    """Write the diagram as a PNG file, the same picture as the SVG.

    Args:
        landscape: what is drawn.
        path: of the file.
        values: a line of text for some nodes, by name.
    """
    from matplotlib.figure import Figure

    from align.report.look import look

    whole = picture(landscape, values)
    size = (whole.width / PIXELS_PER_INCH, whole.height / PIXELS_PER_INCH)
    with look(font__family="DejaVu Sans"):
        figure = Figure(figsize=size, dpi=PIXELS_PER_INCH * SHARPNESS)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, whole.width), ylim=(whole.height, 0))
        axes.set_axis_off()
        for level, shape in enumerate(whole.shapes()):
            _paint(axes, shape, level)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", metadata={"Software": MADE_BY})


def _paint(axes: Any, shape: Shape, level: int) -> None:
    """Draw a shape on matplotlib's axes; lengths there are in points."""
    from matplotlib.patches import FancyBboxPatch

    style, points = LOOKS[shape.look], 72 / PIXELS_PER_INCH
    if isinstance(shape, Words):
        letters = {"weight": style.get("font-weight", "normal"), "style": style.get("font-style", "normal")}
        align = "left" if shape.anchor == "start" else "center"
        where = {"ha": align, "va": "baseline", "zorder": level}
        axes.text(shape.x, shape.y, shape.text, size=shape.size * points, color=style["fill"], **letters, **where)
        return
    width = float(style.get("stroke-width", 0)) * points
    if isinstance(shape, Stroke):
        axes.plot(*zip(*shape.points, strict=True), color=style["stroke"], linewidth=width, zorder=level)
        return
    assert isinstance(shape, Rectangle)
    box, ground = shape.box, style.get("fill") or region_colour(shape.region)
    rounded = f"round,pad=0,rounding_size={shape.radius}"
    patch = FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=rounded, linewidth=width, zorder=level)
    patch.set(facecolor=ground, edgecolor=style.get("stroke", "none"))
    axes.add_patch(patch)
