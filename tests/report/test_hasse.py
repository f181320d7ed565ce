import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from matplotlib.image import imread

from align.logic.landscape import landscape
from align.report.hasse import HUES, LOOKS, dot, drawn, mermaid, png, region_colour, svg, tint
from align.report.hasse_picture import compact, picture
from tests.report.conftest import HOSTILE

SIZES = {"sixteen": (16, 32, 4), "twelve": (12, 18, 4), "reference": (16, 32, 9)}
each = pytest.mark.parametrize("which", SIZES)
SVG = "{http://www.w3.org/2000/svg}"


def groups(root):
    return [group for group in root.iter(f"{SVG}g") if group.get("class") == "node"]


# ---- DOT and Mermaid ------------------------------------------------------------------------------------------------


@each
def test_dot(which):
    whole, (nodes, edges, regions) = landscape(which), SIZES[which]
    text = dot(whole)
    assert "rankdir=BT" in text
    assert re.findall(r'^  "(\w+)" \[label=', text, re.MULTILINE) == [node.name for node in whole.nodes]
    assert re.findall(r'^  "(\w+)" -> "(\w+)";$', text, re.MULTILINE) == list(whole.edges)
    assert len(whole.nodes) == nodes
    assert len(whole.edges) == edges
    assert text.count("<td bgcolor=") == regions
    assert text.count("penwidth=2.6") == sum(bool(node.known) for node in whole.nodes)
    assert text.count("{") == text.count("}") == 1


def test_dot_quotes_what_is_in_quotes():
    text = dot(landscape(), {"CPO": 'a "b" \\ c\nd'})
    assert r"CPO, SLiC, RRHF, SimPO" in text
    assert r'\na \"b\" \\ c\nd"' in text
    line = next(line for line in text.splitlines() if line.startswith('  "CPO" ['))
    assert len(re.findall(r'(?<!\\)"', line)) == 6  # round name, label and colour


def test_dot_escapes_the_legend():
    node = landscape().nodes[0]
    assert "<" not in node.region  # formulas hold none today; were one to, it would be markup
    table = re.search(r"label=<(.*)>\];", dot(landscape()))[1]
    assert [cell.text for cell in ET.fromstring(table).iter("td")] == ["weakest core", *landscape().regions()]


@each
def test_mermaid(which):
    whole, (nodes, edges, regions) = landscape(which), SIZES[which]
    lines = mermaid(whole).splitlines()
    assert lines[1] == "flowchart BT"
    assert sum(bool(re.fullmatch(r'  \w+\[".*"\]:::region\d', line)) for line in lines) == nodes
    assert sum(" --- " in line for line in lines) == edges
    assert sum(bool(re.fullmatch(r'    core\d\[".*"\]:::region\d', line)) for line in lines) == regions
    assert sum(line.startswith("  classDef region") for line in lines) == regions
    known = next(line for line in lines if line.endswith(" known")).split()[1].split(",")
    assert known == [node.name for node in whole.nodes if node.known]


def test_mermaid_reads_no_sign_of_a_value_as_its_own():
    text = mermaid(landscape(), {"CPO": '"<b>` #1; *x*\n[a]'})
    (line,) = [line for line in text.splitlines() if line.startswith('  CPO["')]
    assert line.endswith('<br/>#34;#60;b#62;#96; #35;1#59; #42;x#42; #91;a#93;"]:::region4')


# ---- SVG ------------------------------------------------------------------------------------------------------------


@each
def test_svg_is_xml_with_every_node_and_line(which):
    whole, (nodes, edges, regions) = landscape(which), SIZES[which]
    root = ET.fromstring(svg(whole).encode())
    assert root.tag == f"{SVG}svg"
    assert [group.get("data-node") for group in groups(root)] == [node.name for node in whole.nodes]
    assert len(groups(root)) == nodes
    lines = [(line.get("data-below"), line.get("data-above")) for line in root.iter(f"{SVG}polyline")]
    assert [line for line in lines if line[0]] == list(whole.edges)
    assert sum(line[0] is not None for line in lines) == edges
    assert root[0].tag == f"{SVG}title"
    assert all(group[0].tag == f"{SVG}title" and group[0].text for group in groups(root))
    style = root.find(f"{SVG}style").text
    assert len(re.findall(r"rect\.region-\d", style)) == regions
    used = {name for element in root.iter() for name in (element.get("class") or "").split()} - {"node"}
    assert all(re.search(rf"\.{name}\b", style) for name in used)


@each
def test_svg_is_drawn_upward(which):
    root = ET.fromstring(svg(landscape(which)).encode())
    tops = {group.get("data-node"): float(group[1].get("y")) for group in groups(root)}
    for below, above in landscape(which).edges:
        assert tops[above] < tops[below]
    for line in root.iter(f"{SVG}polyline"):
        if line.get("data-below"):
            first, *_, last = (float(point.split(",")[1]) for point in line.get("points").split())
            assert first > last


def test_svg_needs_nothing_from_elsewhere_and_no_scripts():
    text = svg(landscape())
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in text
    assert "@import" not in text


def test_svg_escapes_values():
    said = HOSTILE + "\x01\ud83c"
    root = ET.fromstring(svg(landscape(), {"CPO": said}).encode())
    shown = HOSTILE + "\ufffd\ufffd"
    assert shown in [text.text for text in root.iter(f"{SVG}text")]
    (group,) = [group for group in groups(root) if group.get("data-node") == "CPO"]
    assert group[0].text.endswith(shown)


def test_nodes_of_a_page_are_links():
    text = drawn(compact(landscape(), {"CE": '"<&>'}), lambda name: f'#"{name}&')
    root = ET.fromstring(f"<svg>{text}</svg>")
    links = list(root.iter("a"))
    assert [link.get("href") for link in links] == [f'#"{node.name}&' for node in landscape().nodes]
    assert all(link.get("aria-label").startswith(link.get("data-node")) for link in links)


def test_the_same_landscape_gives_the_same_file():
    assert svg(landscape()) == svg(landscape())


# ---- colours and PNG ------------------------------------------------------------------------------------------------


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_is_readable_on_every_ground():
    grounds = [region_colour(region) for region in range(len(HUES) + 1)]
    for look, style in LOOKS.items():
        if look in ("plain", "name", "muted", "faint", "known", "value"):
            for ground in grounds if look != "muted" else grounds[:1]:
                high, low = sorted((luminance(style["fill"]), luminance(ground)), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (look, ground)


def test_regions_differ_in_colour():
    assert len({region_colour(region) for region in range(1, 10)}) == 9
    assert region_colour(10) == region_colour(1)
    assert tint("#000000", 0.0) == "#FFFFFF"


def test_every_look_is_known():
    for which in SIZES:
        for shape in (*picture(landscape(which), {"CE": "1"}).shapes(), *compact(landscape(which)).shapes()):
            assert shape.look in LOOKS


def test_png(tmp_path):
    path = tmp_path / "deep" / "landscape.png"
    png(landscape("twelve"), path, {"CPO": "51 % of $x^2$"})
    pixels, whole = imread(path), picture(landscape("twelve"), {"CPO": "51 % of $x^2$"})
    assert pixels.shape[1] == pytest.approx(2 * whole.width, abs=2)
    assert pixels.shape[0] == pytest.approx(2 * whole.height, abs=2)
    box = next(group for group in whole.nodes if group.node.name == "CE").shapes[0].box
    ground = pixels[round(2 * (box.y + box.height - 6)), round(2 * (box.x + 8)), :3]
    assert [round(255 * part) for part in ground] == [int(region_colour(2)[k : k + 2], 16) for k in (1, 3, 5)]
    assert b"align logic landscape" in path.read_bytes()[:4096]


def test_importing_it_is_cheap():
    code = "import sys, align.report.hasse as h; print({'torch', 'matplotlib', 'numpy', 'jinja2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
