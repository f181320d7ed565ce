import pytest

from align.logic.decompile import facts
from align.logic.landscape import name_in_landscape
from align.logic.own_code import decompile_function
from align.logic.trace import TraceError

CODE = """
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from align import PairObjective


def anchored(policy, reference, beta=0.2, anchor=0.1):
    h = (policy.chosen - policy.rejected) - (reference.chosen - reference.rejected)
    return -F.logsigmoid(beta * h) - anchor * policy.chosen


def odds(chosen, rejected, gamma=0.5):
    def log_odds(x):
        return x - torch.log1p(-x.exp())

    return -F.logsigmoid(log_odds(chosen) - log_odds(rejected) - gamma)


def hinge(chosen, rejected, ref_chosen, ref_rejected):
    return torch.clamp(1 - (chosen - rejected - ref_chosen + ref_rejected), min=0)


def score(chosen, rejected):
    return chosen - rejected


def hinge_by_maximum(chosen, rejected):
    return torch.maximum(torch.zeros_like(chosen), 1 - (chosen - rejected))


def hinge_by_minimum(chosen, rejected):
    return -torch.minimum(chosen - rejected - 1, torch.zeros_like(chosen))


def hinge_by_clamp_max(chosen, rejected):
    return -(chosen - rejected - 1).clamp_max(0)


def hinge_by_relu(chosen, rejected):
    return F.relu(1 - (chosen - rejected))


def sharp(chosen, rejected, beta=0.5):
    return F.softplus(rejected - chosen, beta=beta)


def probability(chosen, rejected):
    return 1 - torch.sigmoid(chosen - rejected)


def hinge_by_where(chosen, rejected):
    margin = chosen - rejected
    return torch.where(margin < 1, 1 - margin, torch.zeros_like(margin))


def far_branch(chosen, rejected):
    return -F.logsigmoid((chosen - rejected).clamp(max=5))


def unseen(chosen, rejected):
    with torch.no_grad():
        weight = torch.sigmoid(chosen - rejected)
    return -weight * chosen


def branching(chosen, rejected):
    return -(chosen - rejected) if chosen.item() > rejected.item() else rejected - 2 * chosen


def odd(chosen, rejected):
    return torch.erf(chosen - rejected)


def clamped(chosen, rejected):
    return -F.logsigmoid(chosen.clamp(min=-5) - rejected)


def held(chosen, rejected):
    return -F.logsigmoid(chosen - rejected.detach())


def peeping(chosen, rejected):
    return -F.logsigmoid(chosen - rejected) if float(chosen) < -0.01 else -chosen


def failing(chosen, rejected):
    return chosen / (1 // 0)


def three(chosen, rejected, other):
    return chosen


def number(chosen, rejected):
    return 3.0


@dataclass(frozen=True)
class Own(PairObjective):
    needs_reference = False
    slope: float = 2.0

    def score(self, policy, reference):
        return policy.mean_chosen - policy.mean_rejected

    def link(self, score):
        return F.softplus(-self.slope * score)
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(CODE)
    return file


@pytest.mark.parametrize(
    ("name", "settings", "structures", "said"),
    [
        ("anchored", {"beta": 0.3}, [("CPO", "reference"), ("CE", "sixteen")], "scale (beta): 0.3"),
        ("odds", {"gamma": 0.25}, [("ORPO", "sixteen")], "margin: 0.25"),
        ("hinge", {}, [("CPO", "reference")], "link: hinge"),
        ("score", {}, [("CPO", "sixteen")], "link: logistic"),
        ("hinge_by_maximum", {}, [("CPO", "sixteen")], "link: hinge"),
        ("hinge_by_minimum", {}, [("CPO", "sixteen")], "link: hinge"),
        ("hinge_by_clamp_max", {}, [("CPO", "sixteen")], "link: hinge"),
        ("hinge_by_relu", {}, [("CPO", "sixteen")], "margin: 1"),
        ("sharp", {"beta": 0.25}, [("CPO", "sixteen")], "link: logistic, times 4"),
        ("sharp", {"beta": 0.25}, [("CPO", "sixteen")], "scale (beta): 0.25"),
        ("probability", {}, [("CPO", "sixteen")], "link: sigmoid"),
        ("Own", {"slope": 4.0}, [("CPO", "sixteen")], "scale (beta): 4"),
    ],
)
def test_functions_and_classes_of_a_file_are_read(path, name, settings, structures, said):
    found = decompile_function(path, name, settings)
    assert [name_in_landscape(part.reading.structure) for part in found.parts] == structures
    assert said in facts(found.core)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("none", {}, "defines no 'none'"),
        ("three", {}, r"takes 3 arguments \(chosen, rejected, other\)"),
        ("number", {}, "must return one number for each pair"),
        ("odds", {"gama": 1}, "no setting 'gama'"),
        ("anchored", {"bet": 1}, "no setting 'bet'"),
        ("branching", {}, "branches on its values"),
        ("odd", {}, "'erf'"),
        ("clamped", {}, "branches on its values"),
        ("peeping", {}, "branches on its values"),
        ("hinge_by_where", {}, "branches on its values"),
        ("far_branch", {}, "branches on its values"),
        ("failing", {}, "failed: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_read_is_said(path, name, settings, says):
    with pytest.raises(ValueError, match=says):
        decompile_function(path, name, settings)
    assert issubclass(TraceError, ValueError)


def test_what_has_no_gradient_is_not_read_as_if_it_had(path):
    found = decompile_function(path, "held", {})
    assert found.outcome == "refused"
    assert "no gradient" in found.core.refusal
    unseen = decompile_function(path, "unseen", {})
    assert unseen.outcome == "refused"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no Python file"):
        decompile_function(tmp_path / "none.py", "loss", {})
