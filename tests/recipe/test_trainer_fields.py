from dataclasses import fields
from typing import Any

import pytest
from transformers import TrainingArguments

from align.recipe.errors import Origin, RecipeError
from align.recipe.trainer_fields import DEFAULTS, OWNED, convert_field, known_fields
from align.recipe.yaml_tree import Node, Scalar

ALL = {field.name for field in fields(TrainingArguments)}


def test_every_field_is_known_or_owned() -> None:
    assert known_fields().keys() | OWNED.keys() == ALL
    assert not known_fields().keys() & OWNED.keys()
    assert DEFAULTS.keys() <= known_fields().keys()


def test_our_defaults_are_of_the_fields_type() -> None:
    for name, value in DEFAULTS.items():
        converted = convert_field(name, Node(value, Origin()))
        assert (converted, type(converted)) == (value, type(value))


@pytest.mark.parametrize("name", sorted(known_fields()))
def test_the_own_default_of_every_field_can_be_written(name: str) -> None:
    default: Any = known_fields()[name].default
    assert convert_field(name, Node(default, Origin())) == default


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_owned_field_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        convert_field(name, Node("x", Origin("r.yaml", 7)))
    assert str(error.value) == f"r.yaml:7: trainer.{name}: not set here: {OWNED[name]}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_stepz", 40, "transformers.TrainingArguments has no field 'max_stepz'; did you mean 'max_steps'?"),
        ("qqqq", 40, "transformers.TrainingArguments has no field 'qqqq'"),
        ("max_steps", 1.5, "expected a whole number, found 1.5 (a number)"),
        ("learning_rate", "fast", "expected a number, found 'fast' (a text)"),
        ("bf16", "yes", "expected true or false, found 'yes' (a text)"),
        ("lr_scheduler_type", "cosin", "'cosin' is none of the choices; did you mean 'cosine'?"),
        ("save_strategy", "stepps", "'stepps' is none of the choices; did you mean 'steps'?"),
        ("log_level", "warnin", "'warnin' is none of the choices; did you mean 'warning'?"),
        ("ddp_backend", "ncl", "'ncl' is none of the choices; did you mean 'nccl'?"),
    ],
)
def test_what_is_refused(name: str, value: Scalar, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        convert_field(name, Node(value, Origin("r.yaml", 7)))
    assert str(error.value) == f"r.yaml:7: trainer.{name}: {message}"


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [("warmup_steps", 10, 10.0), ("lr_scheduler_type", "cosine", "cosine"), ("eval_strategy", "no", "no")],
)
def test_what_is_accepted(name: str, value: Scalar, converted: object) -> None:
    result = convert_field(name, Node(value, Origin()))
    assert (result, type(result)) == (converted, type(converted))
