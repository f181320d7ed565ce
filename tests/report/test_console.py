"""Lines and stages come from the main process only."""

import pytest

from align.report.console import is_main, say, stage


def test_stages_say_how_long_they_took(capsys):
    with stage("loading something"):
        pass
    assert capsys.readouterr().out.startswith("loading something: 0.")


def test_a_stage_lets_errors_through(capsys):
    with pytest.raises(KeyError), stage("failing"):
        raise KeyError("x")
    assert capsys.readouterr().out == ""


def test_other_processes_are_silent(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert not is_main()
    say("hello")
    with stage("loading"):
        pass
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
