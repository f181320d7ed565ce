"""``align data preview``: marks, JSON, data that tries to speak to the terminal."""

import json
from dataclasses import replace

from align.cli.data_preview import drawn
from align.cli.main import main
from align.data.preview import Piece, PreviewedPair

PAIR = PreviewedPair(
    where="a.jsonl:1",
    prompt=[Piece("cut", "Hello ", 2), Piece("prompt", "there\nfriend", 3)],
    chosen=[Piece("completion", "yes\x1b[31m", 2), Piece("closing", "<eos>", 1)],
    rejected=[Piece("completion", "no", 1), Piece("cut", " no", 1)],
    dropped=False,
)


def test_marks_by_hand():
    assert drawn(PAIR, colour=False).split("\n") == [
        "── a.jsonl:1 ── tokens: prompt 3, chosen 3, rejected 1 ── cut to length",
        "  prompt │ ⟦cut 2 tokens: Hello ⟧there",
        "         │ friend",
        "  chosen │ yes\\x1b[31m⟪<eos>⟫",
        "rejected │ no⟦cut 1 tokens:  no⟧",
    ]
    coloured = drawn(PAIR, colour=True)
    assert "\x1b[7m⟪<eos>⟫\x1b[0m" in coloured
    assert "yes\\x1b[31m" in coloured


def test_of_a_long_cut_the_ends_are_shown():
    long = replace(PAIR, rejected=[Piece("completion", "no", 1), Piece("cut", "a" * 100 + "b" * 100, 200)])
    assert drawn(long, colour=False).endswith(f"no⟦cut 200 tokens: {'a' * 80} [...] {'b' * 80}⟧")


def test_rows_of_a_file(tmp_path, model_dir, capsys):
    rows = [{"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": c}]} for c in "ab"]
    file = tmp_path / "pairs.jsonl"
    whole = [{"chosen": rows[0]["chosen"], "rejected": rows[1]["chosen"]}, {"chosen": "x"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in whole))
    words = ["data", "preview", str(file), "--model", str(model_dir)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "  prompt │ <|im_start|>user" in out
    assert "chosen │ a⟪" in out
    assert "pairs.jsonl:2: there is no column 'rejected'" in out
    assert main([*words, "--start", "9"]) == 2
    assert "there is no row 9" in capsys.readouterr().err
    assert main([*words, "--rows", "0"]) == 2
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown[0]["chosen"][0] == {"kind": "completion", "text": "a", "tokens": 1}
    assert "rejected" in shown[1]["error"]


def test_a_single_completion_stands_under_its_label(tmp_path, model_dir, capsys):
    rows = [{"prompt": "Hi", "completion": text, "label": text == "yes"} for text in ("yes", "no")]
    file = tmp_path / "singles.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data", "preview", str(file), "--model", str(model_dir)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "  desirable │ " not in out
    assert "desirable │ yes⟪" in out
    assert "undesirable │ no⟪" in out
    assert "chosen" not in out
    assert main([*words, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["desirable"], second["desirable"]) == (True, False)
    assert second["completion"][0]["text"] == "no"
    assert "chosen" not in first
