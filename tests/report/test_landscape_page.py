import base64
import hashlib
import html
import json
import re
import subprocess
import sys

import pytest

from align.logic.landscape import landscape
from align.report.hasse import MADE_BY
from align.report.landscape_page import LANDSCAPES, render, write_landscape_page
from tests.report.conftest import HOSTILE
from tests.report.test_page import Outline, browse, needs_chromium

NODES = {"sixteen": 16, "twelve": 12, "reference": 16}


@pytest.fixture(scope="module")
def page():
    return render()


def panel(page, name):
    """The text of a panel, spaced out."""
    inside = page.split(f'id="{name}"')[1].split("</article>")[0]
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", inside).split()))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="landscapes">(.*?)</script>', page)[1])


def test_every_landscape_has_its_nodes_lines_and_panels(page):
    outline = Outline(page)
    sections = [section["data-landscape"] for section in outline.all("section")]
    assert sections == list(LANDSCAPES) == list(NODES)
    assert len(outline.all("article")) == sum(NODES.values())
    links = [link for link in outline.all("a") if link.get("class") == "node"]
    assert len(links) == sum(NODES.values())
    assert sum("data-below" in line[1] for line in outline.tags if line[0] == "polyline") == 32 + 18 + 32
    assert len(outline.all("option")) == sum(NODES.values()) + len(NODES)


def test_every_link_leads_to_something_on_the_page(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.all("a"):
        assert link["href"].removeprefix("#") in outline.ids


def test_a_panel_says_all_that_is_known(page):
    text = panel(page, "sixteen/CPO")
    for said in (
        *("Known as CPO, SLiC, RRHF, SimPO's margin", "log [ w / l ]", "Core, the weakest M(l) → M(w)"),
        *("the simplest M(w)", "the strongest M(w) ∧ ¬M(l)", "Condition M(w) ∨ M(l)", "Additive M(w) ∧ M(l)"),
        *("Whenever the model deems the loser valid, the model deems the winner valid.", "Looser cCPO , l14"),
        *("Tighter sCE , cUnl", "ratio log w − log l", "does not count", "T T ✓✗ wl", "T F ✓ w(1−l)", "F T ✗ (1−w)l"),
    ):
        assert said in text
    assert panel(page, "sixteen/unCPO").count("none") == 1
    assert "Additive ⊥ no row counts on both sides" in panel(page, "sixteen/unCPO")


def test_a_panel_of_a_reference_form(page):
    text = panel(page, "reference/CPO")
    for said in ("6 DPO The reference form of CPO.", "Known as DPO, IPO", "log [ (w·rl) / (l·rw) ]", "T T T T ✓✗"):
        assert said in text
    assert "CE with reference" in panel(page, "reference/CE")
    table = page.split('id="reference/CPO"')[1].split("</article>")[0].split("<tbody>")[1]
    assert table.count("<tr>") == 16


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ORPO", "ratio log w − log l"),
        ("CE", "winner-anchored log w The winner"),
        ("unCPO", "loser only −log l"),
        ("l5", "stuck about 0"),
    ],
)
def test_what_small_probabilities_do(page, name, said):
    assert said in panel(page, f"sixteen/{name}")


def test_data_are_the_structures(page):
    data = data_of(page)
    for which in NODES:
        nodes = landscape(which).nodes
        assert data[which]["atoms"] == [atom.name for atom in nodes[0].structure.atoms]
        sides = {name: (node["top"], node["bottom"]) for name, node in data[which]["nodes"].items()}
        assert sides == {node.name: (node.structure.top, node.structure.bottom) for node in nodes}
    assert data["reference"]["nodes"]["CPO"]["title"] == "DPO"


def test_nothing_is_loaded_and_only_its_own_script_runs(page):
    assert set(re.findall(r"(?:https?:)?//[a-z][^\s\"'<]*", page)) <= {"http://www.w3.org/2000/svg"}
    outline = Outline(page)
    names = {name for _, attributes in outline.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | {"src"} & names
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    policy = next(a["content"] for a in outline.all("meta") if "http-equiv" in a)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert page.count("<script") == 2


def test_values_are_shown_and_escaped():
    page = render({"twelve": {"CPO": HOSTILE}, "reference": {"CE": "51 %"}})
    outline = Outline(page)
    assert HOSTILE in outline.text
    assert len(outline.all("script")) == 2
    assert "alert(1)" not in re.search(r"<script>(.*)</script>", page.split("<main>")[1], re.DOTALL)[1]
    assert "51 %" in panel(page, "reference/CE")
    assert "51 %" not in panel(page, "sixteen/CE")


def test_the_page_is_written_over_its_own_kind_only(tmp_path):
    path = tmp_path / "deep" / "landscape.html"
    assert write_landscape_page(path) == path
    first = path.read_bytes()
    assert write_landscape_page(path).read_bytes() == first
    assert MADE_BY.encode() in first[:4096]
    assert [file.name for file in path.parent.iterdir()] == ["landscape.html"]
    path.write_text("<h1>mine</h1>")
    with pytest.raises(ValueError, match="not made by"):
        write_landscape_page(path)
    with pytest.raises(ValueError, match="is a folder"):
        write_landscape_page(tmp_path)


def test_importing_it_needs_neither_torch_nor_matplotlib():
    code = "import sys, align.report.landscape_page; print({'torch', 'matplotlib', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- in a browser ---------------------------------------------------------------------------------------------------

DRIVE = """<!doctype html><iframe id="f" src="{page}{hash}" style="width:{width}px;height:900px;border:0"></iframe>
<script>
const later = () => new Promise(done => setTimeout(done, 60));
onload = async () => {{
  const frame = document.getElementById("f"), inside = frame.contentDocument, root = inside.documentElement;
  const section = () => inside.querySelector("section:not([hidden])");
  const click = async (to, more) => {{
    to.dispatchEvent(new frame.contentWindow.MouseEvent("click", {{bubbles: true, cancelable: true, ...more}}));
    await later();
  }};
  const node = name => section().querySelector(`a.node[data-node=${{name}}]`);
  const seen = () => ({{
    hash: frame.contentWindow.location.hash,
    sections: [...inside.querySelectorAll("section:not([hidden])")].map(one => one.dataset.landscape),
    panels: [...section().querySelectorAll("[data-panel]:not([hidden])")].map(one => one.dataset.panel),
    marked: [...section().querySelectorAll(".node[aria-current]")].map(one => one.dataset.node),
    near: section().querySelectorAll("polyline.near").length,
    compared: section().querySelector(".verdict-of").innerText,
    ground: frame.contentWindow.getComputedStyle(inside.body).backgroundColor,
    box: frame.contentWindow.getComputedStyle(node("CE").querySelector("rect")).fill,
    client: root.clientWidth, scroll: root.scrollWidth,
    asked: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  }});
  const smallest = () => Math.min(...[...section().querySelectorAll("svg text")].map(text =>
    text.ownerSVGElement.getScreenCTM().a * parseFloat(frame.contentWindow.getComputedStyle(text).fontSize)));
  const outside = () => [...section().querySelectorAll("a.node")].filter(one => {{
    const box = one.querySelector("rect").getBoundingClientRect();
    return [...one.querySelectorAll("text")].some(text => {{
      const room = text.getBoundingClientRect();
      return room.left < box.left || room.right > box.right || room.bottom > box.bottom + 1;
    }});
  }}).map(one => one.dataset.node);
  const found = [seen()];
  {steps}
  const pre = document.createElement("pre");
  pre.textContent = JSON.stringify(found);
  document.body.replaceChildren(pre);
}};
</script>"""


def driven(folder, steps, *flags, start="", width=1280):
    """Open the page, take some steps on it in JavaScript, and return what was seen at first and pushed since."""
    path = write_landscape_page(folder / "landscape.html")
    wrapper = folder / "wrapper.html"
    wrapper.write_text(DRIVE.format(page=path.as_uri(), hash=start, width=width, steps=steps))
    dom, console = browse(wrapper.as_uri(), folder, "--allow-file-access-from-files", *flags)
    assert console == []
    return json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL)[1]))


@needs_chromium
def test_in_a_browser_a_click_shows_a_panel(tmp_path):
    steps = """
  await click(node("ORPO")); found.push(seen());
  await click(section().querySelector("article:not([hidden]) a[data-node=cCPO]")); found.push(seen());
  await click(inside.querySelector("[data-switch=reference]")); found.push(seen());
  node("CE").focus(); found.push(inside.activeElement === node("CE"), node("CE").tabIndex);
    """
    at_first, clicked, looser, switched, focused, reached = driven(tmp_path, steps)
    assert (at_first["sections"], at_first["panels"], at_first["marked"]) == (["sixteen"], ["CPO"], ["CPO"])
    assert at_first["asked"] == []
    assert (clicked["hash"], clicked["panels"], clicked["marked"]) == ("#sixteen/ORPO", ["ORPO"], ["ORPO"])
    assert clicked["near"] == 4
    assert (looser["panels"], looser["near"]) == (["cCPO"], 4)
    assert (switched["sections"], switched["panels"]) == (["reference"], ["cCPO"])
    assert (focused, reached) == (True, 0)


@needs_chromium
def test_in_a_browser_two_losses_are_compared(tmp_path):
    steps = """
  await click(node("ORPO"), {shiftKey: true}); found.push(seen());
  const select = section().querySelector("select");
  select.value = "cCPO"; select.dispatchEvent(new frame.contentWindow.Event("change"));
  await later(); found.push(seen());
  await click(node("ORPO")); found.push(seen());
    """
    _, shifted, chosen, moved = driven(tmp_path, steps, start="#CPO")
    assert (shifted["hash"], shifted["panels"]) == ("#sixteen/CPO/ORPO", ["CPO"])
    assert "Neither of CPO and ORPO entails the other." in shifted["compared"]
    assert "Meet, the loosest that entails both: cUnl" in shifted["compared"]
    assert "Join, the tightest that both entail: cCPO" in shifted["compared"]
    assert shifted["compared"].split()[-4:] == ["T", "T", "✓✗", "·"]
    assert "CPO entails cCPO, not the reverse: CPO is the more constrained." in chosen["compared"]
    assert (moved["hash"], moved["panels"]) == ("#sixteen/ORPO/cCPO", ["ORPO"])


@needs_chromium
@pytest.mark.parametrize(
    ("start", "which", "name"),
    [
        ("#DPO", "reference", "CPO"),
        ("#twelve/ORPO", "twelve", "ORPO"),
        ("#twelve/l5", "twelve", "CPO"),
        ("#%ff", "sixteen", "CPO"),
        ("#toString/constructor", "sixteen", "CPO"),
    ],
)
def test_in_a_browser_the_address_chooses(tmp_path, start, which, name):
    (seen,) = driven(tmp_path, "", start=start)
    assert (seen["sections"], seen["panels"]) == ([which], [name])


@needs_chromium
def test_in_a_browser_what_the_twelve_lack_is_named(tmp_path):
    (seen,) = driven(tmp_path, "", start="#twelve/CE/qfUnl")
    assert "entail: bCPO, which is left out here" in seen["compared"]


@needs_chromium
@pytest.mark.parametrize("width", [390, 600, 1280])
def test_in_a_browser_nothing_is_too_wide_or_too_small(tmp_path, width):
    steps = """
  for (const which of ["sixteen", "twelve", "reference"]) {
    frame.contentWindow.location.hash = `#${which}/CPO/CE`; await later();
    found.push({...seen(), smallest: smallest(), outside: outside()});
  }
    """
    _, *found = driven(tmp_path, steps, width=width)
    assert [seen["sections"] for seen in found] == [[which] for which in NODES]
    for seen in found:
        assert seen["client"] == width
        assert seen["scroll"] <= width
        assert seen["smallest"] >= 8
        assert seen["outside"] == []


@needs_chromium
def test_in_a_browser_dark_and_light_differ(tmp_path):
    toggle = 'inside.getElementById("theme").click(); found.push(seen());'
    light, toggled = driven(tmp_path, toggle)
    dark, back = driven(tmp_path, toggle, "--blink-settings=preferredColorScheme=0", "--force-dark-mode")
    for key in ("ground", "box"):
        assert light[key] != dark[key]
        assert (toggled[key], back[key]) == (dark[key], light[key])
