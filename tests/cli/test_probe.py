"""``align probe MODEL --rank``."""

import json

from align.cli.main import main


def test_the_rank_of_a_language_models_embeddings(model_dir, tmp_path, capsys):
    file = tmp_path / "t.txt"
    words = ("good", "bad", "warm", "cold", "rain", "sun", "walk", "day", "night", "bread")
    file.write_text("".join(f"the {word} tea\n" for word in words))
    capsys.readouterr()
    assert main(["probe", str(model_dir), "--rank", "--data", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 10
    assert 1 < found["rankme"] <= 10
    assert 1 <= found["threshold_rank"] <= 10
    assert main(["probe", str(model_dir), "--rank", "--data", str(file)]) == 0
    out = capsys.readouterr().out
    assert "RankMe:" in out
    assert ("fewer than the width" in out) == (found["width"] > 10)


def test_what_is_missing_is_said(model_dir, tmp_path, capsys):
    assert main(["probe", str(model_dir), "--data", str(tmp_path)]) == 2
    assert "say what to measure: --rank" in capsys.readouterr().err
    assert main(["probe", str(model_dir), "--rank", "--data", str(tmp_path / "none")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert main(["probe", str(model_dir), "--rank", "--data", str(tmp_path), "--rows", "1"]) == 2
    assert "--rows must be at least 2" in capsys.readouterr().err
