"""``align train`` with a method's recipe, and the commands that only preference recipes have."""

import pytest

from align.cli.main import main
from align.cli.method import is_method

SMALL = [
    *("trainer.max_steps=2", "trainer.per_device_train_batch_size=8", "trainer.eval_strategy=no"),
    *("data.train_per_class=10", "settings.width=16", "settings.layers=1", "settings.heads=2"),
]


def test_a_method_is_trained_by_the_same_command(tmp_path, capsys):
    assert main(["train", "contrastive/clip", *SMALL, f"output.dir={tmp_path / 'run'}"]) == 0
    out = capsys.readouterr().out
    assert "held_out_top1:" in out
    assert f"align report {tmp_path / 'run'}" in out
    assert (tmp_path / "run" / "summary.json").is_file()


def test_every_setting_is_printed_with_its_origin(capsys):
    assert main(["train", "contrastive/clip", "settings.width=16", "--print-config"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("settings.width "))
    assert line.split() == ["settings.width", "=", "16", "#", "command", "line"]
    assert any(line.startswith("settings.heads ") and line.endswith("# default") for line in out.splitlines())


@pytest.mark.parametrize("command", ["validate", "bench", "precompute"])
def test_commands_of_preference_recipes_say_so(command, capsys):
    assert main([command, "contrastive/clip"]) == 2
    assert f"`align {command}` is for preference recipes" in capsys.readouterr().err


def test_which_recipe_is_a_methods(tmp_path):
    assert is_method("contrastive/clip")
    assert not is_method("quickstart")
    (tmp_path / "broken.yaml").write_text("a: [")
    assert not is_method(str(tmp_path / "broken.yaml"))
