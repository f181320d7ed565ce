"""Objectives from a user's own file."""

import sys

import pytest
import torch

from align.objectives.custom import FunctionObjective, load_objective
from align.objectives.logps import PairLogps

ONES = torch.ones(3, dtype=torch.long)
POLICY = PairLogps(
    chosen=torch.tensor([-1.0, -2.0, -3.0]),
    rejected=torch.tensor([-2.0, -2.0, -2.0]),
    chosen_lengths=ONES,
    rejected_lengths=ONES,
)

SOURCE = """
import torch
from dataclasses import dataclass
from align import PairObjective

def hinge(policy, *, delta=1.0):
    return torch.relu(delta - (policy.chosen - policy.rejected))

def with_reference(policy, reference, beta=0.5):
    return -beta * (policy.chosen - reference.chosen)

def scalar(policy):
    return policy.chosen.mean()

@dataclass(frozen=True, kw_only=True)
class Gap(PairObjective):
    target: float = 1.0
    needs_reference = False

    def score(self, policy, reference):
        return policy.chosen - policy.rejected

    def link(self, score):
        return (score - self.target) ** 2

number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_loss.py"
    path.write_text(SOURCE)
    yield path
    for key in [k for k in sys.modules if k.startswith("align_user_")]:
        del sys.modules[key]


def test_a_function_without_reference(file):
    objective = load_objective(file, "hinge", {"delta": 2.0})
    assert not objective.needs_reference
    torch.testing.assert_close(objective(POLICY, None), torch.tensor([1.0, 2.0, 3.0]))


def test_a_function_with_reference_says_its_reward_scale(file):
    objective = load_objective(file, "with_reference", {})
    assert objective.needs_reference
    assert objective.reward_scale == 0.5
    torch.testing.assert_close(objective(POLICY, POLICY), torch.zeros(3))
    assert load_objective(file, "with_reference", {"beta": 2}).reward_scale == 2.0


def test_a_settings_class(file):
    objective = load_objective(file, "Gap", {"target": 0.0})
    torch.testing.assert_close(objective(POLICY, None), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hing", {}, r"defines no 'hing'; did you mean 'hinge'\?"),
        ("hinge", {"detla": 1}, r"hinge has no setting 'detla'; did you mean 'delta'\?"),
        ("Gap", {"tarjet": 1}, r"has no setting 'tarjet'; did you mean 'target'\?"),
        ("number", {}, "neither a function nor a dataclass"),
    ],
)
def test_mistakes(file, name, settings, message):
    with pytest.raises(ValueError, match=message):
        load_objective(file, name, settings)


def test_a_loss_of_the_wrong_shape_says_so(file):
    with pytest.raises(ValueError, match=r"one loss for each pair, shape \(3,\); got \(\)"):
        load_objective(file, "scalar", {})(POLICY, None)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match="no Python file"):
        load_objective(tmp_path / "absent.py", "f", {})
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(ValueError, match="failed while it was imported: ModuleNotFoundError"):
        load_objective(broken, "f", {})


def test_a_function_takes_policy_and_numbers_where_its_defaults_are_numbers():
    with pytest.raises(ValueError, match="must take 'policy' first"):
        FunctionObjective(function=lambda pi, ref: pi)
    with pytest.raises(ValueError, match=r"beta must be a number, as its default 0.1 is; got 'x'"):
        FunctionObjective(function=lambda policy, beta=0.1: policy.chosen, settings={"beta": "x"})
    anything = FunctionObjective(function=lambda policy, **more: more["x"] * policy.chosen, settings={"x": 2})
    assert anything(POLICY, None).tolist() == [-2.0, -4.0, -6.0]
