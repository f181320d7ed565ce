"""A recipe is named by its file, or by the name it has in ``align recipes ls``."""

from pathlib import Path

import pytest

from align.cli.recipe_arguments import recipe_path

ROOT = Path(__file__).parents[2]


def test_a_file_or_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert recipe_path("mine.yaml") == Path("mine.yaml")
    assert recipe_path("quickstart") == ROOT / "recipes" / "quickstart.yaml"
    (tmp_path / "quickstart").touch()
    assert recipe_path("quickstart") == Path("quickstart")


def test_unknown_names():
    with pytest.raises(ValueError, match="did you mean 'quickstart'"):
        recipe_path("quikstart")
