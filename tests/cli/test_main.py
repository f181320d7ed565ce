"""The command line as a whole: quick, and users' mistakes are one line and exit code 2."""

import errno
import os
import shutil
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
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "starting" not in line]
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


def ran(command, **more):
    """Run a shell command line in which $ALIGN is align; return its output, errors and exit code."""
    environment = {**os.environ, "ALIGN": f"{sys.executable} -m align", **more}
    bash = [shutil.which("bash") or "bash", "-o", "pipefail", "-c", command]
    return subprocess.run(bash, env=environment, capture_output=True, text=True, errors="replace", timeout=120)


def test_a_reader_that_goes_is_no_error():
    done = ran("$ALIGN recipes show quickstart | true")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_of_few_characters_shows_escapes(tmp_path):
    (tmp_path / "Müller.yaml").write_text("base_model: m\nrl: dpo\nhub_model_id: ü/π\n", encoding="utf-8")
    done = ran(f"$ALIGN recipes convert '{tmp_path}/Müller.yaml'", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "M\\xfcller.yaml" in done.stdout
    assert "\\u03c0" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_said_in_a_line():
    done = ran("$ALIGN recipes show quickstart > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: no space is left on the disk; free some, then give the same command again\n"


@pytest.mark.parametrize("text", ["[" * 20000, "a: " + "[" * 2000 + "]" * 2000])
def test_what_stands_too_deep_is_a_mistake(tmp_path, capsys, text):
    file = tmp_path / "deep.yaml"
    file.write_text(text)
    assert main(["recipes", "convert", str(file)]) == 2
    assert "stand too deep in one another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("r.yaml:3: no"), 2, "r.yaml:3: no"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), 2, "runs/a: permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), 2, "a: no such file or directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"a"), 2, "a: is a directory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            1,
            "a: no space is left on the disk; free some, then give the same command again",
        ),
        (
            ModuleNotFoundError("No module named 'peft'", name="peft.x"),
            1,
            "the package 'peft' is missing or broken: No module named 'peft' (--debug shows where)",
        ),
        (KeyError("x"), 1, "KeyError: 'x' (--debug shows where)"),
        (ConnectionError("no route"), 1, "ConnectionError: no route (--debug shows where)"),
        (RecursionError("deep"), 1, "RecursionError: deep (--debug shows where)"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, error, code, text):
    """Whatever a command raises; with --debug it goes on to Python, which shows the traceback."""
    import align.cli.plot as plot

    def fail(arguments):
        raise error

    monkeypatch.setattr(plot, "run", fail)
    assert main(["plot", "x"]) == code
    assert capsys.readouterr().err == f"error: {text}\n"
    with pytest.raises(type(error)):
        main(["plot", "x", "--debug"])


def test_an_interruption_is_a_line_wherever_it_comes(monkeypatch, capsys):
    import align.cli.main as module

    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "import_module", interrupt)
    assert main(["plot", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert main(["train", "x"]) == 130
    assert "continues from the last checkpoint" in capsys.readouterr().err


def test_a_command_that_does_not_import_is_a_line(monkeypatch, capsys):
    import align.cli.main as module

    def broken(name):
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr(module, "import_module", broken)
    assert main(["plot", "x"]) == 1
    assert capsys.readouterr().err.startswith("error: the package 'yaml' is missing or broken")


def test_of_several_processes_each_says_which_it_is(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "3")
    assert main(["plot", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("[process 3] error: ")


def test_scripts_train_shows_no_traceback(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("model: {pth: x}\n")
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = ran(f"cd '{root}' && '{sys.executable}' scripts/train.py '{file}'")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "did you mean 'path'?" in done.stderr
