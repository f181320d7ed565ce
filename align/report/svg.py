"""Figures as SVG inside a page: its font, its colours, and names that no other figure on it has."""

import io
import re
import xml.etree.ElementTree as ET

from matplotlib.figure import Figure

from align.report.look import COLOURS

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_VARIABLES = {colour.lower(): f"var(--{name})" for name, colour in COLOURS.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)
_FONT = re.compile(r"font:\s*(?:[^;]*?)([0-9.]+)px[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_INK = "fill: var(--ink)"


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element for an HTML page.

    Colours of :data:`~align.report.look.COLOURS` become the page's variables (``var(--blue)``), so that one figure
    serves a light and a dark page. Text stays text. What is not needed on a page (size in points, metadata, style
    sheet, which would reach the whole page) is left out.

    Args:
        figure: drawn with ``svg.fonttype: none``, on a transparent ground.
        prefix: put before every id; matplotlib's own are alike in figures of one make.
        label: what the figure shows, for those who do not see it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    used = {name for element in root.iter() for name in _references(element)}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(_SVG) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, prefix, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def _references(element: ET.Element) -> list[str]:
    links = [value[1:] for key, value in element.attrib.items() if key.endswith("href") and value.startswith("#")]
    return links + [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]


def _adapt(element: ET.Element, prefix: str, used: set[str]) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    kept = {}
    for key, value in element.attrib.items():
        name = key.removeprefix(_XLINK)
        if name == "id":
            if value not in used:
                continue
            value = prefix + value
        elif name == "href":
            value = "#" + prefix + value.removeprefix("#")
        elif name == "style":
            value = _style(value)
        kept[name] = _REFERENCE.sub(rf"url(#{prefix}\1)", value)
    element.attrib = kept
    if element.tag == "text" and "fill" not in element.get("style", ""):
        element.set("style", "; ".join(part for part in (element.get("style", ""), _INK) if part))


def _style(style: str) -> str:
    coloured = _COLOUR.sub(lambda found: _VARIABLES.get(found[0].lower(), found[0]), style)
    return _FAMILY.sub("", _FONT.sub(r"font-size: \1px", coloured))
