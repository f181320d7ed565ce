from collections.abc import Callable
from pathlib import Path

from align.recipe.load import build_recipe, load_recipe, load_tree
from align.recipe.show import print_config
from align.recipe.trainer_fields import OWNED, known_fields

Write = Callable[..., str]


def shown(path: str, *overrides: str) -> list[str]:
    tree = load_tree(path, overrides)
    return print_config(build_recipe(tree), tree).splitlines()


def test_every_value_and_where_it_was_written(small: str) -> None:
    lines = shown(small, "trainer.learning_rate=1e-6", "model.lora.r=8")
    values = {key: (value, origin) for key, value, origin in map(parts, lines)}
    assert values["model.path"] == ("org/tiny", "r.yaml:1")
    assert values["data.train.0.path"] == ("org/pairs", "r.yaml:3")
    assert values["data.eval"] == ("[]", "default")
    assert values["data.train.0.columns"] == ("{}", "default")
    assert values["objective.name"] == ("dpo", "r.yaml:5")
    assert values["trainer.learning_rate"] == ("1.0e-06", "command line")
    assert values["trainer.max_steps"] == ("20", "r.yaml:7")
    assert values["trainer.save_total_limit"] == ("2", "default")
    assert values["trainer.weight_decay"] == ("0.0", "default")
    assert values["model.lora.r"] == ("8", "command line")
    assert values["model.lora.lora_alpha"] == ("32.0", "default")
    assert values["evaluation.generation"] == ("null", "default")
    trainer = {key.removeprefix("trainer.") for key in values if key.startswith("trainer.")}
    assert trainer == known_fields().keys()
    assert not trainer & OWNED.keys()


def parts(line: str) -> tuple[str, str, str]:
    setting, _, origin = line.rpartition("   # ")
    key, _, value = setting.partition(" = ")
    return key.strip(), value.strip(), origin


def test_the_columns_are_aligned_and_a_long_value_does_not_move_them(small: str) -> None:
    lines = shown(small, f"model.path={'x' * 300}")
    assert len({line.index(" = ") for line in lines}) == 1
    assert len({line.index("   # ") for line in lines if len(line) < 200}) == 1
    assert max(len(line) for line in lines if "x" * 300 not in line) < 130


def test_each_line_is_an_override_that_changes_nothing(write: Write, small: str) -> None:
    write("{}", "a.jsonl")
    overrides = ["data.train=[a.jsonl, {path: b, columns: {prompt: 'no'}}]", "model.lora.target_modules=[q, v]"]
    recipe = load_recipe(small, overrides)
    settings = ["=".join(parts(line)[:2]) for line in shown(small, *overrides)]
    again = load_recipe(small, overrides + settings)
    sections = ("model", "data", "objective", "evaluation", "output")
    assert all(getattr(again, name) == getattr(recipe, name) for name in sections)
    assert {name: again.trainer[name] for name in recipe.trainer} == recipe.trainer
    assert Path("a.jsonl").exists()
