import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from align.report.page import write_report
from tests.report.conftest import HOSTILE, RECIPE, evaluation, metrics, sample, training, whole_summary

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--hide-scrollbars", "--virtual-time-budget=3000"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what the browser asks for of its own accord reaches nobody either
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Outline(HTMLParser):
    """Tags, their attributes, and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.ids = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(*folders, **options):
    page = write_report(folders, **options)[0]
    return page, Outline(page.read_text())


@pytest.fixture
def three(make_run, tmp_path):
    def one(place):
        changed = RECIPE | {"objective": {"name": "dpo", "beta": 0.1 * (place + 1)}}
        samples = [sample(f"prompt {i}", f"answer {i} of run {place}") for i in range(8)]
        result = whole_summary()
        return make_run(
            f"{'abc'[place]}/dpo", rows=metrics(-8.0 + 5 * place), recipe=changed, result=result, samples=samples
        )

    return [one(place) for place in range(3)]


def test_a_page_of_one_run(whole):
    page, outline = written(whole)
    assert page == whole / "report.html"
    sections = [attributes["id"] for attributes in outline.all("section")]
    assert sections == ["what-happened", "key-figures", "curves", "samples", "data"]
    assert "held out: chosen -8.0 nats, rejected -24.0 (both fell)" in outline.text
    assert "Both answers became less likely" in outline.text
    for text in ("dpo (beta 0.1)", "some/model", "4 min 47 s", "3.48 GiB", "weights are quantised", "90% bootstrap"):
        assert text in outline.text
    for text in ("0.700", "[0.620, 0.770]", "base text", "aligned text", "reward +0.75", "learning_rate: 1.0e-05"):
        assert text in outline.text
    assert "8,000 pairs; 3.5 % truncated" in outline.text


def test_a_page_of_single_completions(unpaired):
    _, outline = written(unpaired)
    assert "held out: desirable -3.0 nats, undesirable -30.0 (both fell)" in outline.text
    for text in (
        "desirable, nats",
        "undesirable, nats",
        "AUC",
        "0.800",
        "[0.700, 0.900]",
        "16 + 8",
        "completions trained",
    ):
        assert text in outline.text
    assert "bootstrap intervals; of AUC, DeLong's." in outline.text
    assert "Accuracy" not in outline.text
    assert "chosen, nats" not in outline.text


def test_a_page_of_a_run_that_reads_one_side(one_sided, unpaired, tmp_path):
    _, outline = written(one_sided)
    assert "training: chosen -2.9 nats" in outline.text
    assert "Accuracy" in outline.text
    _, both = written(one_sided, unpaired, out=tmp_path / "both.html")
    assert "Chosen or desirable, change" in both.text


def test_nothing_is_loaded_and_the_policy_says_so(whole):
    page, outline = written(whole)
    (policy,) = (m["content"] for m in outline.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    loaded = [a for _, a in outline.tags if {"src", "srcset", "data", "action"} & a.keys()]
    links = [a["href"] for _, a in outline.tags if "href" in a]
    assert not loaded
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)|@import", page.read_text())
    assert {"link", "iframe", "img", "object", "base"}.isdisjoint(tag for tag, _ in outline.tags)


def test_every_id_is_there_once_and_every_link_leads_somewhere(three):
    _, outline = written(*three, out=three[0].parent / "c.html")
    assert len(outline.ids) == len(set(outline.ids))
    assert {a["href"][1:] for _, a in outline.tags if "href" in a} <= set(outline.ids)


def test_every_chart_has_a_name_and_its_values(whole):
    _, outline = written(whole)
    figures = outline.all("figure")
    assert len(figures) == 8
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in outline.all("svg"))
    assert len([d for d in outline.all("details") if d.get("class") == "values"]) == len(figures)


def test_what_a_run_holds_is_text(make_run):
    rows = [row | {HOSTILE: 1.0} for row in metrics()]
    recipe = RECIPE | {"model": {"path": HOSTILE}, HOSTILE: HOSTILE}
    result = whole_summary(notes=[HOSTILE], objective=HOSTILE, versions={HOSTILE: HOSTILE}, preparation={"x": HOSTILE})
    samples = [sample(HOSTILE, HOSTILE, base=HOSTILE)]
    runs = [
        make_run(f"{HOSTILE.replace('/', '')}{end}", rows=rows, recipe=recipe, result=result, samples=samples)
        for end in "ab"
    ]
    for folders in ([runs[0]], runs):
        _, outline = written(*folders, out=runs[0].parent / "page.html")
        assert len(outline.all("script")) == 1
        assert len(outline.all("style")) == 1
        assert outline.text.count(HOSTILE) >= 6
        assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)


def test_whitespace_and_other_scripts_are_kept(make_run):
    text = "  two\n\n   lines\t\u05e9\u05dc\u05d5\u05dd \U0001f327\x1b[31m"
    page, outline = written(make_run(result=whole_summary(), samples=[sample("p", text)]))
    assert text.replace("\x1b", "\ufffd") in outline.text
    assert "\x1b" not in page.read_text()
    assert any(a.get("dir") == "auto" and "text" in a.get("class", "") for a in outline.all("p"))


def test_half_a_surrogate_does_not_stop_the_page(make_run):
    folder = make_run(result=whole_summary())
    (folder / "samples.jsonl").write_text(json.dumps(sample("p", "half \ud83c!")) + "\n")
    assert "half ?!" in written(folder)[1].text


def test_missing_parts_are_sentences(make_run):
    _, outline = written(make_run("cut", rows=[training(10), training(40)]))
    sections = [attributes["id"] for attributes in outline.all("section")]
    assert "samples" not in sections
    assert "has not finished" in outline.text
    assert "unfinished: last logged step 40 of 300" in outline.text
    _, outline = written(make_run("new", rows=None))
    assert "Nothing was logged yet" in outline.text
    assert [attributes["id"] for attributes in outline.all("section")] == ["data"]


def test_several_runs(three, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    page, outline = written(*three)
    assert page == Path("report.html")
    assert "3 runs compared" in outline.text
    assert all(name in outline.text for name in ("a/dpo", "b/dpo", "c/dpo"))
    differences = outline.text.split("How the recipes differ")[1].split("settings that all share")[0]
    assert "objective.beta" in differences
    assert "trainer.max_steps" not in differences
    assert "runs/x" not in differences
    assert all(f"answer 0 of run {place}" in outline.text for place in range(3))
    assert outline.text.count("base text") == 8


def test_runs_alike_say_so(make_run):
    _, outline = written(make_run("a"), make_run("b"), out=make_run("c") / "page.html")
    assert "every setting is the same" in outline.text
    assert outline.text.count("The run has not finished") == 1


def test_only_a_page_of_its_own_is_written_over(whole, tmp_path):
    out = tmp_path / "deep" / "mine.html"
    assert write_report([whole], out) == [out] == write_report([whole], out)
    out.write_text("<p>my notes</p>")
    with pytest.raises(ValueError, match=r"mine.html exists and was not made by align report"):
        write_report([whole], out)
    assert out.read_text() == "<p>my notes</p>"
    with pytest.raises(ValueError, match="is a folder"):
        write_report([whole], tmp_path)


def test_plots_go_beside(whole, tmp_path):
    _, *plots = write_report([whole], plots=tmp_path / "plots")
    assert {path.suffix for path in plots} == {".png", ".svg"}
    assert len(plots) == 16
    assert all(path.stat().st_size for path in plots)


def test_the_same_run_gives_the_same_page(whole, tmp_path):
    first, second = (write_report([whole], tmp_path / name)[0].read_bytes() for name in ("1.html", "2.html"))
    assert first == second


def test_a_long_run_stays_small(make_run):
    rows = [training(step) for step in range(20_000)] + [evaluation(step, -60, -61) for step in range(0, 20_000, 50)]
    page, _ = written(make_run(rows=rows))
    assert page.stat().st_size < 3_000_000


def browse(url, folder, *more):
    """Open a page with an empty profile; return its DOM and what the console said."""
    shutil.rmtree(folder / "profile", ignore_errors=True)
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([CHROMIUM, *flags, *more, "--dump-dom", url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@needs_chromium
def test_in_a_browser_the_script_runs_and_nothing_is_asked_for(whole, tmp_path):
    page, _ = written(whole)
    dom, console = browse(page.as_uri(), tmp_path)
    assert console == []
    shown = Outline(dom)
    (button,) = shown.all("button")
    assert "hidden" not in button
    assert [a["id"] for a in shown.all("section")] == ["what-happened", "key-figures", "curves", "samples", "data"]


@needs_chromium
def test_in_a_browser_what_slipped_in_is_refused(whole, tmp_path):
    """Were escaping ever to fail, the page's policy keeps scripts and requests out; and the console would tell."""
    page, _ = written(whole)
    slipped = '<script>document.title = "changed"</script><img src="https://example.invalid/x.png">'
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</main>", f"{slipped}</main>"))
    dom, console = browse(broken.as_uri(), tmp_path)
    assert "<title>whole</title>" in dom
    assert sum("Content Security Policy" in line for line in console) == 2


MEASURE = """<!doctype html><iframe id="f" src="{page}" style="width:{width}px;height:900px;border:0"></iframe><script>
onload = () => {{
  const inside = document.getElementById("f").contentDocument, root = inside.documentElement;
  const ground = () => getComputedStyle(inside.body).backgroundColor;
  const line = () => getComputedStyle(inside.querySelector("svg path[style*='--blue']")).stroke;
  const asked = inside.defaultView.performance.getEntriesByType("resource").map(entry => entry.name);
  const found = {{asked, client: root.clientWidth, scroll: root.scrollWidth, ground: ground(), line: line()}};
  const drawn = [...inside.querySelectorAll("svg text")].filter(text => text.getClientRects().length);
  const size = text => text.ownerSVGElement.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize);
  found.smallest = Math.min(...drawn.map(size));
  inside.getElementById("theme").click();
  document.body.textContent = JSON.stringify({{...found, toggled: ground()}});
}};
</script>"""


def measured(page, folder, width, *more):
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.format(page=page.as_uri(), width=width))
    dom, _ = browse(wrapper.as_uri(), folder, "--allow-file-access-from-files", *more)
    return json.loads(re.search(r"<body>(\{.*\})", dom)[1])


@needs_chromium
@pytest.mark.parametrize("several", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(three, tmp_path, several):
    page, _ = written(*(three if several else three[:1]), out=tmp_path / "page.html")
    found = measured(page, tmp_path, 390)
    assert found["client"] == 390
    assert found["asked"] == []
    assert found["scroll"] <= 390
    assert found["smallest"] >= 9


@needs_chromium
def test_dark_and_light_differ_and_the_button_changes_them(whole, tmp_path):
    page, _ = written(whole)
    light = measured(page, tmp_path, 1000)
    dark = measured(page, tmp_path, 1000, "--blink-settings=preferredColorScheme=0", "--force-dark-mode")
    assert light["ground"] != dark["ground"]
    assert light["line"] != dark["line"]
    assert (light["toggled"], dark["toggled"]) == (dark["ground"], light["ground"])
