"""``align logic landscape --html``: one page on which the landscapes are clicked through and losses compared."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from align.logic.circuit import log_ratio, row_weights, text
from align.logic.landscape import Landscape, Node, Which, landscape, reference_name
from align.logic.predict import column_class, leading_ratio, outlook
from align.logic.printing import english, unicode
from align.logic.rows import values as truth_values
from align.logic.structure import PAIR, SIGNS, Mark
from align.report.hasse import HUES, MADE_BY, drawn
from align.report.hasse_picture import MARKS_SAY, compact, region_numbers
from align.report.overwriting import refuse_to_overwrite

Values = Mapping[Which, Mapping[str, str]]
"""A line of text for some nodes of some landscapes."""

LANDSCAPES: Mapping[Which, tuple[str, str]] = {
    "sixteen": (
        "Sixteen",
        "All sixteen losses of the model's probabilities alone in which a pair in the right order counts for the "
        "winner and one in the wrong order against it.",
    ),
    "twelve": ("Twelve", "Without l3, l5, l14 and bCPO, as in the paper's figure of losses without a reference."),
    "reference": (
        "Reference forms",
        "The same sixteen with the log-ratio of a reference model taken off: CPO becomes DPO. Names are those of what "
        "the forms are made of.",
    ),
}
"""What the switch calls each landscape, and what is in it."""

FALSE_ROW: Mapping[Mark, str] = {
    "win": "counts for the winner",
    "lose": "counts against the winner",
    "both": "counts on both sides",
    "neither": "does not count",
}
"""What is said of the row in which the model deems neither response valid."""


def write_landscape_page(path: Path, values: Values | None = None) -> Path:
    """Write the page.

    Args:
        path: of the file; its folder is made.
        values: a line of text for some nodes, such as scores of a study.

    Returns:
        The path.

    Raises:
        ValueError: a folder is in the way, or a file that this did not write.
    """
    refuse_to_overwrite(path, MADE_BY)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(render(values).encode("utf-8", "replace"))
    partial.replace(path)
    return path


def render(values: Values | None = None) -> str:
    """Return the page, which loads nothing and whose policy allows its own script alone.

    Args:
        values: a line of text for some nodes, such as scores of a study.
    """
    environment = Environment(loader=PackageLoader("align.report"), autoescape=True, undefined=StrictUndefined)
    scripts = (environment.get_template(name).render().strip() for name in ("page.js", "landscape.js"))
    script = "\n".join(scripts)
    said = values or {}
    views = [_view(which, said.get(which, {})) for which in LANDSCAPES]
    context = {
        "made_by": MADE_BY,
        "version": version("align"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "views": views,
        "hues": HUES,
        "marks": [(mark, SIGNS[mark], meaning) for mark, meaning in MARKS_SAY.items()],
        "data": {view["which"]: view["data"] for view in views},
    }
    return environment.get_template("landscape.html").render(context) + "\n"


def address(which: str, name: str) -> str:
    """Return the part of the page's address that shows a node."""
    return f"#{which}/{name}"


def _view(which: Which, values: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page shows of a landscape."""
    whole = landscape(which)
    small = compact(whole, values)
    title, about = LANDSCAPES[which]
    numbers = region_numbers(whole)
    return {
        "which": which,
        "title": title,
        "about": about,
        "picture": small,
        "svg": drawn(small, lambda name: address(which, name)),
        "marked": whole.nodes[0].structure.atoms == PAIR,
        "regions": [(number, core, names) for number, (core, names) in enumerate(whole.regions().items(), 1)],
        "panels": [_panel(which, whole, node, numbers[node.name], values.get(node.name)) for node in whole.nodes],
        "data": _data(which, whole),
    }


def _title(which: Which, name: str) -> str:
    return reference_name(name) if which == "reference" else name


def _data(which: Which, whole: Landscape) -> dict[str, Any]:
    """Return what the script computes with: rows that count for and against the winner, as sets of bits."""
    nodes = {
        node.name: {"title": _title(which, node.name), "top": node.structure.top, "bottom": node.structure.bottom}
        for node in whole.nodes
    }
    return {"atoms": [atom.name for atom in whole.nodes[0].structure.atoms], "nodes": nodes}


def _panel(which: Which, whole: Landscape, node: Node, region: int, value: str | None) -> dict[str, Any]:
    """Return what the page says of a node."""
    structure = node.structure
    return {
        "name": node.name,
        "title": _title(which, node.name),
        "known": node.known,
        "value": value,
        "region": region,
        "log_ratio": log_ratio(structure),
        "weakest": node.region,
        "simplest": unicode(structure.simplest_core().formula),
        "strongest": unicode(structure.strongest_core().formula),
        "reading": _sentence(english(node.core)),
        "condition": unicode(structure.condition()),
        "additive": unicode(structure.additive()),
        "atoms": [atom.name for atom in structure.atoms],
        "rows": _rows(node),
        "small": _small_probabilities(node),
        "looser": whole.looser(node.name),
        "tighter": whole.tighter(node.name),
    }


def _rows(node: Node) -> list[dict[str, Any]]:
    structure = node.structure
    return [
        {
            "values": truth_values(row, structure.n),
            "mark": structure.mark(row),
            "sign": SIGNS[structure.mark(row)],
            "weight": text(weight),
        }
        for row, weight in row_weights(structure)
    ]


def _small_probabilities(node: Node) -> dict[str, str]:
    """Return what becomes of a loss when the model's probabilities are small."""
    mark, foretold = column_class(node.structure), outlook(node.structure)
    assert mark is not None  # every node reads the model's pair
    assert foretold is not None
    ratio = foretold.ratio if node.structure.atoms == PAIR else leading_ratio(node.structure)
    return {
        "mark": mark,
        "row": FALSE_ROW[mark],
        "ratio": ratio.replace("-", "−"),
        "title": foretold.title,
        "consequence": _sentence(foretold.consequence),
    }


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."
