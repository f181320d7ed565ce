"""``align report`` says which files it wrote, and where it cannot, why."""

import json

from align.cli.main import main


def make_run(folder):
    folder.mkdir()
    rows = [
        {"step": s, "loss": 0.7 - s / 100, "logps/chosen": -30.0 - s, "logps/rejected": -31.0 - s} for s in range(5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_it_names_the_page_and_the_plots(tmp_path, capsys):
    assert main(["report", make_run(tmp_path / "a"), "--plots", str(tmp_path / "plots")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "a" / "report.html") in printed
    assert str(tmp_path / "plots" / "loss.svg") in printed


def test_several_runs_go_where_one_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", make_run(tmp_path / "a"), make_run(tmp_path / "b")]) == 0
    assert "report.html" in capsys.readouterr().out.splitlines()
    assert (tmp_path / "report.html").is_file()


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
