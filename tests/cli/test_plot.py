"""``align plot`` says which files it drew, and where it cannot, why."""

import json

from align.cli.main import main


def test_it_names_the_pictures(tmp_path, capsys):
    rows = [
        {"step": s, "loss": 0.7 - s / 100, "logps/chosen": -30.0 - s, "logps/rejected": -31.0 - s} for s in range(5)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["plot", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "curves.png"), str(tmp_path / "curves.svg")]


def test_a_folder_without_metrics(tmp_path, capsys):
    assert main(["plot", str(tmp_path)]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err
