"""The section ``speed``: words for all of it, single settings, and what cannot be."""

import pytest

from align import load_recipe
from align.recipe.errors import RecipeError
from align.recipe.resolve import digest
from align.recipe.speed import OFF, SpeedSettings


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ("auto", SpeedSettings()),
        ("off", OFF),
        ("null", SpeedSettings()),
        ("{packing: false}", SpeedSettings(packing=False)),
        ("{sharing: true, token_budget: 4096}", SpeedSettings(sharing=True, token_budget=4096)),
    ],
)
def test_what_is_read(small, written, settings):
    assert load_recipe(small, [f"speed={written}"]).speed == settings
    assert digest(load_recipe(small, [f"speed={written}"])) == digest(load_recipe(small))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("fast", "expected auto, off, or a mapping"),
        ("0", "expected auto, off, or a mapping"),
        ("[auto]", "expected auto, off, or a mapping"),
        ("{pakcing: true}", "no setting 'pakcing'.*packing"),
        ("{packing: sometimes}", "sometimes"),
        ("{token_budget: 1}", "at least 2"),
        ("{token_budget: 100, packing: false}", "packing is off"),
    ],
)
def test_what_is_refused(small, written, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(small, [f"speed={written}"])
