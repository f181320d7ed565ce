from align.recipe.errors import Origin
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.mixtures import handbook_sources
from align.recipe.yaml_tree import Node, read_yaml


def sources(text):
    draft = Draft()
    handbook_sources(Given(Node(read_yaml(text, lambda line: Origin("f", line)).value, Origin("f"))), draft)
    return draft


def test_configs_go_with_the_names_of_a_mixer():
    draft = sources("dataset_mixer: {a: 1.0, b: 0.25}\ndataset_configs: [x, y]\ndataset_splits: [train]")
    assert draft.settings["data.train"].value == [
        {"path": "a", "config": "x", "split": "train"},
        {"path": "b", "config": "y", "split": "train", "weight": 0.25},
    ]
    assert "data.eval" not in draft.settings


def test_what_a_mixture_has_beside_is_asked_about():
    draft = sources("dataset_mixture: {datasets: [{id: a, lang: en}], seed: 1, shards: 3}")
    assert [decision.key for decision in draft.decisions] == ["dataset_mixture: lang", "dataset_mixture: shards"]
    assert draft.settings["data.train"].value == [{"path": "a", "split": "train"}]
