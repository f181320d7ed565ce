"""Losses of TRL's ``DPOTrainer``; that they train the same is tests/test_losses_from_trl.py."""

import re
from pathlib import Path

import pytest
import trl.trainer.dpo_trainer

from align.recipe.errors import Origin, RecipeError
from align.recipe.foreign.asked import Asked
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.losses import LOSSES, dpo_parts
from align.recipe.yaml_tree import Node, read_yaml
from tests.recipe.foreign.conftest import unfolded

SOURCE = Path(trl.trainer.dpo_trainer.__file__).read_text()


def parts(text):
    root = read_yaml(unfolded(text) + "x: 1\n", lambda line: Origin("f", line))
    asked = Asked(Given(Node(root.value, Origin("f"))), Draft())
    made = [{key: setting.value for key, setting in part.items()} for part in dpo_parts(asked)]
    return made, [d.key for d in asked.draft.decisions], [key for key, _ in asked.draft.left]


def test_every_loss_of_the_installed_trl_is_known():
    theirs = set(re.findall(r'loss_type == "(\w+)"', SOURCE))
    assert len(theirs) == 15
    assert LOSSES.keys() - {"aot_pair"} == theirs


def test_losses_that_smooth_and_diverge_are_those_of_the_installed_trl():
    branches = re.findall(r'loss_type == "(\w+)":\n(.*?)(?=\n            el)', SOURCE, flags=re.DOTALL)
    smooths = {name for name, body in branches if "self.label_smoothing" in body}
    assert {name for name, loss in LOSSES.items() if loss.smooths} - {"aot_pair"} == smooths
    diverges = re.search(r"f_divergence_loss_types = \{(.*?)\}", SOURCE, flags=re.DOTALL)
    assert {name for name, loss in LOSSES.items() if loss.diverges} == set(re.findall(r'"(\w+)"', diverges[1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [{"name": "dpo", "beta": 0.1}]),
        ("{loss_type: ipo, beta: 0.3}", [{"name": "ipo", "tau": 0.3}]),
        ("{loss_type: [sft]}", [{"name": "sft", "nll": "batch_mean"}]),
        ("{loss_type: robust}", [{"name": "robust", "beta": 0.1, "label_smoothing": 0.0}]),
        ("{loss_type: aot_pair}", [{"name": "aot_unpaired", "beta": 0.1, "label_smoothing": 0.0}]),
        ("{loss_type: discopop, discopop_tau: 0.2}", [{"name": "discopop", "beta": 0.1, "tau": 0.2}]),
        ("{loss_weights: [2.0]}", [{"name": "dpo", "beta": 0.1, "weight": 2.0}]),
        ("{ld_alpha: 0.5}", [{"name": "ld_dpo", "beta": 0.1, "alpha": 0.5}]),
        ("{use_weighting: true}", [{"name": "wpo", "beta": 0.1, "bounded": False}]),
        (
            "{loss_type: [sigmoid, hinge, sft], loss_weights: [1, 0, 0.2], ld_alpha: 0.5}",
            [
                {"name": "ld_dpo", "beta": 0.1, "alpha": 0.5, "weight": 1},
                {"name": "sft", "nll": "batch_mean", "weight": 0.2},
            ],
        ),
        ("{rpo_alpha: 0.5}", [{"name": "dpo", "beta": 0.1}, {"name": "sft", "nll": "batch_mean", "weight": 0.5}]),
        (
            "{loss_type: hinge, f_divergence_type: alpha_divergence}",
            [{"name": "hinge", "beta": 0.1, "f_divergence": "alpha_divergence", "f_alpha": 0.5}],
        ),
        (
            "{loss_type: [ipo, sft], f_divergence_type: js_divergence}",
            [{"name": "ipo", "tau": 0.1, "f_divergence": "js_divergence"}, {"name": "sft", "nll": "batch_mean"}],
        ),
        (
            "{loss_type: ipo, reference_free: true}",
            [{"name": "cpo", "beta": 0.1, "loss_type": "ipo", "nll_weight": 0.0}],
        ),
    ],
)
def test_what_a_loss_becomes(text, expected):
    made, decisions, _ = parts(text)
    assert (made, decisions) == (expected, [])


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("{loss_type: exo_pair, label_smoothing: 0.0}", "label_smoothing"),
        ("{loss_type: [sigmoid, bco_pair], f_divergence_type: js_divergence}", "f_divergence_type"),
        ("{ld_alpha: 0.5, f_divergence_type: forward_kl}", "ld_alpha"),
        ("{ld_alpha: 0.5, use_weighting: true}", "use_weighting"),
        ("{loss_type: hinge, use_weighting: true}", "use_weighting"),
        ("{loss_type: [sigmoid, sft], use_weighting: true}", "use_weighting"),
        ("{loss_type: apo_down, reference_free: true}", "reference_free"),
        ("{reference_free: true, f_divergence_type: forward_kl}", "f_divergence_type"),
    ],
)
def test_what_cannot_be_combined_here_is_a_decision(text, decision):
    made, decisions, _ = parts(text)
    assert decisions == [decision]
    assert made


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("{loss_type: sft, beta: 0.3}", "beta"),
        ("{label_smoothing: 0.1}", "label_smoothing"),
        ("{f_divergence_type: alpha_divergence, f_alpha_divergence_coef: 1.0}", "f_divergence_type"),
        ("{ld_alpha: 1}", "ld_alpha"),
        ("{discopop_tau: 0.1}", "discopop_tau"),
    ],
)
def test_what_trl_does_not_read_is_left_out(text, left):
    _, decisions, found = parts(text)
    assert (found, decisions) == ([left], [])


def test_weights_that_fit_no_losses_stop():
    with pytest.raises(RecipeError, match=r"2 weights for 1 losses"):
        parts("{loss_weights: [1, 2]}")
    with pytest.raises(RecipeError, match=r"one of them more"):
        parts("{loss_type: [sigmoid, sft], loss_weights: [0, 0]}")
