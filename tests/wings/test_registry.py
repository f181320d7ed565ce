import subprocess
import sys
from pathlib import Path

import pytest

from align.wings import registry
from align.wings.method import WINGS, Method

ROOT = Path(__file__).parents[2]


def test_every_file_of_a_room_is_a_method_with_recipe_and_test():
    assert "clip" in registry.modules()
    for name, module in registry.modules().items():
        cls = registry.load(name)
        assert issubclass(cls, Method)
        wing, room = cls.about.wing, cls.about.room
        assert module == f"align.{wing}.{room}.{name}"
        assert (ROOT / "recipes" / wing / f"{name}.yaml").is_file()
        assert (ROOT / "tests" / wing / room / f"test_{name}.py").is_file()


def test_every_recipe_of_a_wing_has_its_method():
    recipes = [path.stem for wing in WINGS for path in (ROOT / "recipes" / wing).glob("*.yaml")]
    assert sorted(recipes) == sorted(registry.modules())


def test_no_room_is_larger_than_twelve_files():
    for wing in WINGS:
        for room in (ROOT / "align" / wing).iterdir():
            assert not room.is_dir() or len(list(room.glob("[!_]*.py"))) <= 12


def test_a_method_that_is_not_there():
    with pytest.raises(ValueError, match="no method 'clipp'; did you mean 'clip'"):
        registry.load("clipp")


def test_two_methods_of_one_name(tmp_path, monkeypatch):
    for room in ("dense", "masked"):
        (tmp_path / "vision" / room).mkdir(parents=True)
        (tmp_path / "vision" / room / "same.py").touch()
    monkeypatch.setattr(registry.align, "__file__", str(tmp_path / "__init__.py"))
    registry.modules.cache_clear()
    try:
        with pytest.raises(ValueError, match="two methods are called 'same'"):
            registry.modules()
    finally:
        registry.modules.cache_clear()


def test_listing_loads_no_wing_and_preference_training_none_either():
    code = (
        "import sys; from align.wings.registry import modules; modules(); import align.cli.train, align.trainers.run;"
        "print([m for m in sys.modules if m.startswith(('align.vision', 'align.contrastive', 'align.learning'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip().splitlines()[-1] == "[]"
