"""The actions of ``align data`` are found, and say what they do."""

import pytest

from align.cli.data import ACTIONS
from align.cli.main import main


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help(action, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", action, "--help"])
    assert stop.value.code == 0
    assert f"align data {action}" in capsys.readouterr().out
