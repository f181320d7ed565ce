"""The command line as a whole: quick, and users' mistakes are one line and exit code 2."""

import subprocess
import sys

import pytest

from align.cli.main import COMMANDS, main


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_help_and_version_import_nothing_heavy():
    """What keeps ``align --help`` under half a second: no torch, no numpy, no yaml."""
    code = (
        "import sys; from align.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'yaml', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_import_align_is_lazy():
    code = "import sys, align; assert 'torch' not in sys.modules; align.DPO; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: align {command}")


@pytest.mark.parametrize("words", [["tran"], [], ["train"], ["train", "x.yaml", "--fast"], ["plot"]])
def test_usage_errors_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: align" in capsys.readouterr().err


def test_a_mistake_is_one_line_unless_debugging(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text("model: {pth: x}\n")
    assert main(["validate", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {path}:1: model.pth")
    with pytest.raises(ValueError, match="did you mean 'path'"):
        main(["validate", str(path), "--debug"])


def test_overrides_may_stand_before_and_after_options(tmp_path, model_dir, pairs_file, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    words = ["train", str(path), "objective.beta=0.2", "--print-config", "trainer.max_steps=7"]
    assert main(words) == 0
    printed = {line.split("=")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "0.2" in printed["objective.beta"]
    assert "# command line" in printed["objective.beta"]
    assert "7" in printed["trainer.max_steps"]
    assert "# default" in printed["trainer.weight_decay"]
    assert f"# {path}:1" in printed["model.path"]


def test_what_nobody_foresaw_is_one_line_and_1(tmp_path, monkeypatch, capsys):
    import align.cli.plot as plot

    def fail(arguments):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(plot, "run", fail)
    assert main(["plot", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: RuntimeError: out of cheese (--debug shows where)\n"
    with pytest.raises(RuntimeError):
        main(["plot", str(tmp_path), "--debug"])
