"""Published mixtures equal the mixtures they name."""

import pytest
import torch

from align.objectives.mixture import Mixture, Part
from align.objectives.registry import OBJECTIVES
from tests.objectives.batches import pairs


def mixture(**weights):
    return Mixture(
        parts=tuple(Part(objective=OBJECTIVES.build(name), weight=weight) for name, weight in weights.items())
    )


@pytest.mark.parametrize(
    ("name", "settings", "weights"),
    [
        ("iterative_rpo", {"alpha": 0.4}, {"dpo": 1.0, "sft": 0.4}),
        ("mpo", {}, {"dpo": 0.8, "bco_pair": 0.2, "sft": 1.0}),
    ],
)
def test_they_are_what_they_are_made_of(name, settings, weights):
    policy, reference = pairs(0)
    found = OBJECTIVES.build(name, **settings).of_tokens(policy, reference)
    torch.testing.assert_close(found, mixture(**weights).of_tokens(policy, reference))
