import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from align.report.look import BLUE, COLOURS, look
from align.report.svg import inline_svg
from tests.report.conftest import HOSTILE


def drawn(prefix="a-", label="what it shows", title="title", colour=BLUE):
    with look(9, svg__fonttype="none"):
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=colour, marker="o")
        axes.set_title(title)
        return inline_svg(figure, prefix, label)


def test_it_is_an_image_with_a_name_and_no_size_of_its_own():
    root = ET.fromstring(drawn())
    assert root.tag == "svg"
    assert root.attrib.keys() == {"viewBox", "role", "aria-label"}
    assert (root.get("role"), root.get("aria-label")) == ("img", "what it shows")


def test_ids_of_two_figures_never_meet_and_every_reference_leads_somewhere():
    first, second = drawn("a-"), drawn("b-")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used == known


@pytest.mark.parametrize(("name", "colour"), COLOURS.items())
def test_every_colour_becomes_a_variable_of_the_page(name, colour):
    svg = drawn(colour=colour)
    assert f"stroke: var(--{name})" in svg
    assert colour.lower() not in svg.lower()


def test_nothing_has_a_colour_that_a_dark_page_would_not_change():
    assert not re.search(r"(fill|stroke): ?(#|black|white|rgb)", drawn())
    for text in ET.fromstring(drawn()).iter("text"):
        assert "fill: var(--" in text.get("style")


def test_text_is_text_is_escaped_and_is_no_formula():
    svg = drawn(title=HOSTILE, label=HOSTILE)
    root = ET.fromstring(svg)
    assert HOSTILE in ["".join(text.itertext()).strip() for text in root.iter("text")]
    assert root.get("aria-label") == HOSTILE
    assert "<script" not in svg
    assert "</style" not in svg


def test_a_label_that_speaks_of_colours_is_left_alone():
    assert f"fill: {BLUE}" in drawn(title=f"fill: {BLUE}")


def test_no_style_sheet_reaches_the_page():
    assert "<style" not in drawn()
    assert "DejaVu" not in drawn()
