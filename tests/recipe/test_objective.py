import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from align.logic.compiled import FormulaObjective
from align.logic.landscape import sixteen
from align.objectives.custom import FunctionObjective
from align.objectives.dpo import DPO
from align.objectives.logps import PairLogps
from align.objectives.mixture import Mixture, Smoothed, name_of
from align.objectives.registry import OBJECTIVES
from align.recipe.errors import Origin, RecipeError
from align.recipe.objective import build_objective
from align.recipe.yaml_tree import Node, read_yaml

Write = Callable[..., str]

LOSSES = """
    from __future__ import annotations
    from dataclasses import dataclass
    from typing import TYPE_CHECKING
    from align.objectives.dpo import DPO
    if TYPE_CHECKING:
        from somewhere import Odd

    def plain(policy, reference, beta=0.1):
        return policy.chosen

    def typed(policy, *, gamma: float, hard: bool = False):
        return policy.chosen

    def odd(policy, x: Odd = 1):
        return policy.chosen

    @dataclass(frozen=True, kw_only=True)
    class Mine(DPO):
        gamma: float = 1.0
        def __post_init__(self):
            if self.gamma < 0:
                raise ValueError("gamma must be at least 0")

    answer = 42
"""


def section(text: str) -> Node:
    node = read_yaml(text, lambda line: Origin("r.yaml", line))
    assert node is not None
    return node


def built(text: str) -> object:
    return build_objective(section(text), Node({}, Origin("r.yaml")))


def refusal(node: Node) -> str:
    with pytest.raises(RecipeError) as error:
        build_objective(node, Node({}, Origin("r.yaml")))
    return str(error.value)


def test_a_registered_objective_by_name_and_alias() -> None:
    assert built("name: dpo\nbeta: 1") == (DPO(beta=1.0), ({},))
    assert built("name: sigmoid") == (DPO(), ({},))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: dpo\nbetta: 1",
            "r.yaml:2: objective.betta: objective 'dpo' has no setting 'betta'; did you mean 'beta'?",
        ),
        ("name: dpo\nbeta: abc", "r.yaml:2: objective.beta: expected a number, found 'abc' (a text)"),
        ("name: dpo\nbeta: -1", "r.yaml:2: objective.beta: beta must be greater than 0 and finite, got -1.0"),
        ("beta: 1\nname: dpoo", "r.yaml:2: objective.name: unknown objective 'dpoo'; did you mean 'dpo'?"),
        (
            "name: 3",
            "r.yaml:1: objective.name: expected a text, found 3 (a whole number); a text that looks "
            "like this needs quotes",
        ),
        ("beta: 1", "r.yaml:1: missing: objective.name"),
        ("[]", "r.yaml:1: objective: an empty list of objectives; give one at least"),
        ("- 3", "r.yaml:1: objective.0: expected a name, or a mapping with a name"),
        (
            "- {name: dpo}\n- {name: sfft}",
            "r.yaml:2: objective.1.name: unknown objective 'sfft'; did you mean 'sft'?",
        ),
        (
            "- {name: dpo}\n- {name: sft, weight: 0}",
            "r.yaml:2: objective.1.weight: weight must be greater than 0 and finite, got 0.0",
        ),
        (
            "- {name: dpo}\n- {name: sft, weight: x}",
            "r.yaml:2: objective.1.weight: expected a number, found 'x' (a text)",
        ),
        (
            "- {name: dpo, betta: 1}",
            "r.yaml:1: objective.0.betta: objective 'dpo' has no setting 'betta'; did you mean 'beta'?",
        ),
        (
            "name: dpo\nweight: 2",
            "r.yaml:2: objective.weight: a weight belongs to a list of objectives: "
            "objective: [{name: dpo, weight: ...}, ...]",
        ),
        (
            "name: dpo\nlabel_smoothing: 0.6",
            "r.yaml:2: objective.label_smoothing: label_smoothing must lie in [0, 0.5), got 0.6",
        ),
        (
            "name: cdpo\nlabel_smoothing: 0.6",
            "r.yaml:2: objective.label_smoothing: label_smoothing must lie in [0, 0.5), got 0.6",
        ),
        ("3", "r.yaml:1: objective: expected a name, or a mapping with a name"),
        (
            "name: ipo\nlabel_smooting: 0.1",
            "r.yaml:2: objective.label_smooting: no setting 'label_smooting'; did you mean 'label_smoothing'?",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert refusal(section(text)) == message


def test_a_missing_section_and_an_unknown_bare_name() -> None:
    missing = Node(None, Origin("r.yaml", 9))
    assert refusal(missing) == "r.yaml: missing: objective, for example {name: dpo, beta: 0.1}"
    bare = Node({"name": Node("dpoo", Origin("r.yaml", 4))}, Origin("r.yaml", 4), implied=True)
    assert refusal(bare) == "r.yaml:4: objective: unknown objective 'dpoo'; did you mean 'dpo'?"


def test_a_function_of_the_users_own(write: Write) -> None:
    write(LOSSES, "losses.py")
    objective, spec = build_objective(section("{file: losses.py, name: plain, beta: 3}"), Node({}, Origin()))
    assert isinstance(objective, FunctionObjective)
    assert objective.settings == {"beta": 3}
    assert objective.needs_reference
    assert spec == ({"file": str(Path.cwd() / "losses.py"), "name": "plain"},)
    typed, _ = build_objective(section("{file: losses.py, name: typed, gamma: 3}"), Node({}, Origin()))
    assert isinstance(typed, FunctionObjective)
    assert type(typed.settings["gamma"]) is float  # the function's annotations are read where it has any
    odd, _ = build_objective(section("{file: losses.py, name: odd, x: y}"), Node({}, Origin()))
    assert isinstance(odd, FunctionObjective)
    assert odd.settings == {"x": "y"}


def test_a_settings_class_of_the_users_own(write: Write) -> None:
    write(LOSSES, "losses.py")
    objective, spec = build_objective(section("{file: losses.py, name: Mine, gamma: 3}"), Node({}, Origin()))
    assert isinstance(objective, DPO)
    assert objective.gamma == 3.0  # type: ignore[attr-defined]
    assert spec[0]["name"] == "Mine"


def test_a_list_is_a_weighted_sum(write: Write) -> None:
    write(LOSSES, "losses.py")
    mixture, specs = build_objective(
        section("- {name: dpo, beta: 0.3}\n- {name: sft, weight: 0.2}\n- {file: losses.py, name: plain, weight: 2}"),
        Node({}, Origin()),
    )
    assert isinstance(mixture, Mixture)
    assert [part.weight for part in mixture.parts] == [1.0, 0.2, 2.0]
    assert mixture.parts[0].objective == DPO(beta=0.3)
    assert isinstance(mixture.parts[2].objective, FunctionObjective)
    assert [dict(spec).get("name") for spec in specs] == [None, None, "plain"]


def test_label_smoothing_is_laid_around_objectives_that_have_none() -> None:
    smoothed, _ = build_objective(section("{name: ipo, tau: 0.2, label_smoothing: 0.1}"), Node({}, Origin()))
    assert isinstance(smoothed, Smoothed)
    assert smoothed.objective == OBJECTIVES.build("ipo", tau=0.2)
    own, _ = build_objective(section("{name: robust, label_smoothing: 0.1}"), Node({}, Origin()))
    assert own == OBJECTIVES.build("robust", label_smoothing=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: plain\nfile: loses.py", "r.yaml:2: objective.file: no Python file"),
        (
            "name: x\nfile: broken.py",
            "r.yaml:2: objective.file: {cwd}/broken.py failed while it was imported: ZeroDivision",
        ),
        (
            "file: losses.py\nname: plan",
            "r.yaml:2: objective.name: {cwd}/losses.py defines no 'plan'; did you mean 'plain'?",
        ),
        (
            "file: losses.py\nname: answer",
            "r.yaml:2: objective.name: 'answer' of {cwd}/losses.py is neither a function",
        ),
        ("file: losses.py", "r.yaml:1: missing: objective.name"),
        ("file: 3\nname: plain", "r.yaml:1: objective.file: expected a text"),
        (
            "file: losses.py\nname: plain\nbetta: 1",
            "r.yaml:3: objective.betta: plain has no setting 'betta'; did you mean 'beta'?",
        ),
        ("file: losses.py\nname: typed", "r.yaml:1: missing: objective.gamma"),
        (
            "file: losses.py\nname: Mine\ngama: 1",
            "r.yaml:3: objective.gama: objective 'Mine' has no setting 'gama'; did you",
        ),
        ("file: losses.py\nname: Mine\ngamma: x", "r.yaml:3: objective.gamma: expected a number, found 'x' (a text)"),
        ("file: losses.py\nname: Mine\ngamma: -1", "r.yaml:3: objective.gamma: gamma must be at least 0"),
    ],
)
def test_what_is_refused_of_the_users_own(write: Write, text: str, message: str) -> None:
    write(LOSSES, "losses.py")
    write("1 / 0", "broken.py")
    assert refusal(section(text)).startswith(message.replace("{cwd}", str(Path.cwd())))


def test_a_wrong_type_for_an_annotated_parameter(write: Write) -> None:
    write(LOSSES, "losses.py")
    message = refusal(section("file: losses.py\nname: typed\ngamma: 1\nhard: maybe"))
    assert message == "r.yaml:4: objective.hard: expected true or false, found 'maybe' (a text)"


def test_the_loss_of_a_formula() -> None:
    objective, spec = built('{formula: "M(l) -> M(w)", condition: "M(w) | M(l)", link: hinge, beta: 0.5}')  # type: ignore[misc]
    assert isinstance(objective, FormulaObjective)
    assert objective.structure == sixteen()["cCPO"]
    assert (objective.link, objective.beta, objective.additive) == ("hinge", 0.5, "false")
    assert spec == ({},)
    plain, _ = built('{formula: "M(w)"}')  # type: ignore[misc]
    assert plain == FormulaObjective(
        formula="M(w)",
        condition="true",
        additive="false",
        link="logistic",
        beta=1.0,
        margin=0.0,
        length_normalised=False,
    )
    cpo = '{formula: "M(l) -> M(w)", condition: "M(w) | M(l)", additive: "M(w) & M(l)", margin: 0.5}'
    whole, _ = built(cpo)  # type: ignore[misc]
    assert (whole.structure, whole.margin) == (sixteen()["CPO"], 0.5)


def test_label_smoothing_of_a_formula_exchanges_the_sides_of_some_labels() -> None:
    smoothed, _ = built('{formula: "M(w) & ~M(l)", label_smoothing: 0.2}')  # type: ignore[misc]
    w, l = 0.3, 0.2  # noqa: E741
    logs = [torch.tensor([p], dtype=torch.float64).log() for p in (w, l)]
    lengths = torch.tensor([3])
    pairs = PairLogps(chosen=logs[0], rejected=logs[1], chosen_lengths=lengths, rejected_lengths=lengths)
    expected = -0.8 * math.log(w * (1 - l)) - 0.2 * math.log(l * (1 - w))
    assert smoothed(pairs).item() == pytest.approx(expected, abs=1e-9)
    assert smoothed.needs == ()
    assert built('{formula: "Ref(w) -> M(w)", label_smoothing: 0.2}')[0].needs == ("reference",)  # type: ignore[index]


def test_a_formula_composes_like_any_objective() -> None:
    smoothed, _ = built('{formula: "M(w)", label_smoothing: 0.2}')  # type: ignore[misc]
    assert isinstance(smoothed, Smoothed)
    assert isinstance(smoothed.objective, FormulaObjective)
    mixture, specs = built('[{formula: "M(l) & Ref(w) -> M(w)", weight: 0.5}, {name: sft}]')  # type: ignore[misc]
    assert isinstance(mixture, Mixture)
    assert (mixture.parts[0].weight, mixture.needs_reference) == (0.5, True)
    assert specs == ({}, {})
    assert name_of(mixture) == "0.5 M(l) & Ref(w) -> M(w) + sft"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{formula: "M(l) ->"}', "objective.formula: formula: the formula ends where a part of it should stand"),
        ('{formula: "M(w)", condition: "M(w"}', "objective.condition: condition: a parenthesis is not closed"),
        (
            '{formula: "M(w)", beat: 2}',
            "no setting 'beat'; did you mean 'beta'?",
        ),
        ('{formula: "M(w)", link: logistc}', "did you mean 'logistic'?"),
        ('{formula: "M(y3) -> M(w)"}', "objective.formula: formula has the atom M(y3)"),
        ("{formula: 3}", "objective.formula: expected a text"),
        ('{formula: "Ref(w) -> Ref(l)"}', "objective.formula: formula depends on no probability of the policy"),
        ('{formula: "M(w)", condition: "false"}', "objective.formula: formula counts nothing for the winner"),
        ('{formula: "M(w)", additive: "true"}', "formula counts the same rows for and against the winner"),
        ('{formula: "M(w)", condition: false}', "objective.condition: expected a text, found false"),
        ('{formula: "M(w)", margin: .inf}', "objective.margin: margin must be finite"),
        ('{formula: "M(w)", beta: 0}', "objective.beta: beta must be greater than 0"),
        ('{formula: "M(w)", label_smoothing: 0.7}', "label_smoothing must lie in [0, 0.5), got 0.7"),
        ('{formula: "M(w)", file: losses.py}', "objective.file: a file holds a function or a class"),
        ('{formula: "M(w)", name: dpo}', "objective.formula: objective 'dpo' has no setting 'formula'"),
        ('{formula: "M(w)", weight: 2}', "a weight belongs to a list of objectives"),
        ('{formula: "M(w)", label_smooting: 0.1}', "did you mean 'label_smoothing'?"),
    ],
)
def test_mistakes_in_a_formula_are_shown_where_they_are(text: str, said: str) -> None:
    message = refusal(section(text))
    assert message.startswith("r.yaml:1: ")
    assert said in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "formula: M(l) ->\nbeta: 2",
            "r.yaml:1: objective.formula: formula: the formula ends where a part of it should stand\n"
            "  M(l) ->\n         ^",
        ),
        (
            "beta: 2\nformula: M(w)\ncondition: (M(w) | M(l)",
            "r.yaml:3: objective.condition: condition: a parenthesis is not closed\n  (M(w) | M(l)\n  ^",
        ),
        (
            "- {name: dpo}\n- formula: M(w)\n  additive: M(w) $ M(l)",
            "r.yaml:3: objective.1.additive: additive: '$' is no part of a formula\n  M(w) $ M(l)\n       ^",
        ),
        (
            "formula: M(w)\ncondition: Safe(w)",
            "r.yaml:2: objective.condition: condition has the atom Safe(w), whose probability training does not know; "
            "it knows M, Ref and Score of w and l, and Const(p)",
        ),
        (
            "formula: M(w)\nadditive: Ref2(l)",
            "r.yaml:2: objective.additive: additive has the atom Ref2(l), whose probability training does not know; "
            "it knows M, Ref and Score of w and l, and Const(p)",
        ),
    ],
)
def test_mistakes_in_a_formula_name_line_and_key_and_have_a_caret(text: str, message: str) -> None:
    assert refusal(section(text)) == message
