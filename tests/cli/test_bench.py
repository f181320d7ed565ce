"""``align bench``: options and output."""

import json

import pytest

from align.cli.main import main


def test_json_is_one_object(tmp_path, model_dir, pairs_file, monkeypatch, capsys):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, max_length: 200}}\nobjective: simpo\n"
        f"trainer: {{use_cpu: true}}\noutput: {{dir: {tmp_path / 'run'}}}\n"
    )
    assert main(["bench", str(path), "--steps", "1", "--alone", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arms"]["as the recipe says"]["tokens_per_second"] > 0


def test_no_steps(tmp_path, capsys):
    assert main(["bench", "r.yaml", "--steps", "0"]) == 2
    assert "--steps must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "precompute"])
def test_help_names_the_recipe(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "RECIPE" in capsys.readouterr().out.upper()
