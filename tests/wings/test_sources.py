"""Data by name: which sources there are, how a recipe names one, and what it cannot say."""

import pytest
import torch

from align.recipe.errors import Origin, RecipeError
from align.recipe.yaml_tree import Node
from align.wings.data import digits, images
from align.wings.sources import build_data, load_data, names


def node(value):
    """A recipe's section as it is read: a mapping of nodes, or a text."""
    if isinstance(value, dict):
        return Node({key: node(one) for key, one in value.items()}, Origin())
    return Node(value, Origin())


def test_sources_are_the_modules_of_the_package():
    assert {"coloured_digits", "digits", "images", "mnist", "patches"} <= set(names())
    assert names() == sorted(names())
    assert not [name for name in names() if name.startswith("_")]


def test_a_name_alone_is_enough():
    assert build_data(node("digits")) == ("digits", digits.Settings())


def test_settings_are_those_of_the_source():
    assert build_data(node({"name": "digits", "seed": 3})) == ("digits", digits.Settings(seed=3))


def test_a_path_is_ones_own_pictures():
    assert build_data(node({"path": "flowers", "size": 16})) == ("images", images.Settings(path="flowers", size=16))


@pytest.mark.parametrize("given", [3, [], {}, {"size": 14}, None])
def test_neither_name_nor_path(given):
    with pytest.raises(RecipeError, match="expected name: SOURCE or path: FOLDER") as raised:
        build_data(node(given))
    assert raised.value.key == "data"


def test_an_unknown_source_has_a_neighbour():
    with pytest.raises(RecipeError, match=r"no data 'digit'.*digits") as raised:
        build_data(node("digit"))
    assert raised.value.key == "data.name"


def test_a_name_that_is_no_text():
    with pytest.raises(RecipeError, match="expected a text") as raised:
        build_data(node({"name": 3}))
    assert raised.value.key == "data.name"


def test_an_unknown_setting_has_a_neighbour():
    with pytest.raises(RecipeError, match=r"no setting 'test_shar'.*test_share") as raised:
        build_data(node({"name": "digits", "test_shar": 0.5}))
    assert raised.value.key == "data.test_shar"


def test_a_value_out_of_range_is_blamed_on_its_key():
    with pytest.raises(RecipeError, match="test_share must lie in") as raised:
        build_data(node({"name": "digits", "test_share": 2.0}))
    assert raised.value.key == "data.test_share"


def test_path_goes_with_ones_own_pictures_alone():
    with pytest.raises(RecipeError, match="no setting 'path'"):
        build_data(node({"name": "digits", "path": "flowers"}))


def test_what_is_loaded_is_the_sources():
    found = load_data("digits", digits.Settings(test_share=0.5))
    again = digits.load(digits.Settings(test_share=0.5))
    assert torch.equal(found.test.images, again.test.images)
    assert torch.equal(found.train.labels, again.train.labels)
