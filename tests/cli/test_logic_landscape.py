import json

import pytest

from align.cli.main import main


def run(capsys, *words):
    code = main(["logic", "landscape", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(("words", "nodes", "edges"), [([], 16, 32), (["--twelve"], 12, 18), (["--reference"], 16, 32)])
def test_landscapes_as_json(words, nodes, edges, capsys):
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0
    assert (len(found["nodes"]), len(found["edges"])) == (nodes, edges)
    assert {"name", "marks", "region"} <= set(found["nodes"][0])
    assert ["CPO", "cCPO"] in found["edges"]


def test_text_says_regions_marks_and_arrows(capsys):
    _, out, _ = run(capsys)
    assert "M(l) → M(w)   (9)" in out
    assert "→ cCPO, l14   known: CPO" in out
    _, out, _ = run(capsys, "--core", "M(w)")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == ["sCE", "l3", "CE"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("l.svg", b"<?xml"), ("l.dot", b"// Made"), ("l.mmd", b"%% Made"), ("l.png", b"\x89PNG"), ("l.txt", b"Made by")],
)
def test_pictures_go_to_files_by_their_ending(name, start, tmp_path, capsys):
    file = tmp_path / "new" / name
    for _ in range(2):  # what was made here may be made anew
        code, out, _ = run(capsys, "--reference", "--out", file)
        assert code == 0
        assert str(file) in out
        assert file.read_bytes().startswith(start)


def test_the_page_is_written(tmp_path, capsys):
    file = tmp_path / "landscape.html"
    assert run(capsys, "--html", file)[0] == 0
    assert "unCPO" in file.read_text()


def test_what_others_made_is_not_overwritten(tmp_path, capsys):
    for words in (["--out"], ["--html"], ["--format", "png", "--out"]):
        file = tmp_path / "mine.svg"
        file.write_text("mine")
        code, _, err = run(capsys, *words, file)
        assert code == 2
        assert "was not made by align logic landscape" in err
        assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--core", "M(q)"], "reads M(q)"),
        (["--core", "M(w) | M(l)"], "no loss has this weakest core"),
        (["--format", "png"], "a PNG goes to a file"),
        (["--out", "landscape.gif"], "no format is called 'gif'"),
        (["--json", "--out", "x.json"], "redirect"),
        (["--out", "."], "is a folder"),
    ],
)
def test_mistakes_are_exit_code_2(words, said, capsys):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
