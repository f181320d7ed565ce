from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.custom import FunctionObjective
from align.recipe.errors import Origin
from align.recipe.load import load_recipe
from align.recipe.resolve import as_mapping, digest, dump, resolved_yaml
from align.recipe.schema import Recipe
from align.recipe.yaml_tree import plain, read_yaml

Write = Callable[..., str]

OVERRIDES = [
    "model.lora={r: 4, target_modules: [a, b]}",
    "model.revision='12e4'",
    "data.train=[a.jsonl, {synth: {limit: 3, scorer: 'score.py:f'}, weight: 2}]",
    "trainer.learning_rate=1e-5",
    "trainer.lr_scheduler_kwargs={num_cycles: 2}",
    "trainer.report_to=[tensorboard]",
    "evaluation.generation={prompts: 'no', temperature: 0.5}",
    "output.dir=here",
]
OBJECTIVES = [
    "{name: sigmoid, beta: 1}",
    "{file: loss.py, name: function, beta: 2}",
    "{file: loss.py, name: Mine}",
    "[{name: dpo}, {name: ipo, weight: 0.2, label_smoothing: 0.1}, {file: loss.py, name: function, beta: 2}]",
    "{name: simpo, label_smoothing: 0.2}",
    "{formula: 'M(l) -> M(w)', condition: 'M(w) | M(l)', link: squared, beta: 0.5, label_smoothing: 0.1}",
    "[{formula: 'M(w)', weight: 0.3}, {name: dpo}]",
    "{formula: '~(M(l) & Ref(w)) | M(w)', additive: '¬M(w) ∧ ¬M(l)', link: hinge, margin: 0.25}",
    "{formula: 'Implies(And(M(x,yl), Score(w)), M(x,yw))', condition: 'Const(0.5) | M(w)', length_normalised: true}",
    "[sft]",
]
DIVERGENCE = {"f_divergence": "reverse_kl", "f_alpha": None}


@pytest.fixture
def whole(write: Write, small: str) -> str:
    write("{}", "a.jsonl")
    write("", "score.py")
    write("from align.objectives.dpo import DPO as Mine\ndef function(policy, beta): return policy.chosen\n", "loss.py")
    return small


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_resolved_recipe_loads_as_an_equal_one_from_anywhere(
    whole: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(whole, [*OVERRIDES, f"objective={objective}"])
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    Path("again.yaml").write_text(resolved_yaml(recipe))
    again = load_recipe("again.yaml")
    assert again == recipe
    assert resolved_yaml(again) == resolved_yaml(recipe)
    assert digest(again) == digest(recipe)


def test_every_default_is_written_out(small: str) -> None:
    sections = yaml.safe_load(resolved_yaml(load_recipe(small)))
    assert list(sections) == [
        *("model", "data", "objective", "trainer", "evaluation", "diagnostics", "disentangle", "spo", "d2o"),
        *("speed", "output"),
    ]
    assert sections["objective"] == {"name": "dpo", "beta": 0.2, **DIVERGENCE}
    assert sections["model"]["lora"] is None
    assert sections["data"]["train"][0]["weight"] == 1.0
    assert sections["trainer"]["save_total_limit"] == 2


def test_objectives_say_where_they_come_from(whole: str) -> None:
    function, mine = (as_mapping(load_recipe(whole, [f"objective={o}"]))["objective"] for o in OBJECTIVES[1:3])
    assert function == {"file": str(Path.cwd() / "loss.py"), "name": "function", "beta": 2}
    assert mine == {"file": str(Path.cwd() / "loss.py"), "name": "Mine", "beta": 0.1, **DIVERGENCE}


def test_an_objective_that_no_recipe_leads_to(small: str) -> None:
    lost = replace(load_recipe(small), objective=FunctionObjective(function=lambda policy: policy.chosen))
    with pytest.raises(ValueError, match="no recipe leads to the objective FunctionObjective"):
        resolved_yaml(lost)


def test_a_digest_is_of_what_is_run(small: str) -> None:
    def of(*overrides: str) -> str:
        return digest(load_recipe(small, overrides))

    plain_digest = of()
    assert len(plain_digest) == 8
    assert int(plain_digest, 16) >= 0
    same = (
        "output.dir=elsewhere",
        "speed=off",
        "objective={beta: 0.2, name: sigmoid}",
        "data.max_length=1024",
        "trainer.save_steps=50",
    )
    assert {of(override) for override in same} == {plain_digest}
    assert of("model.lora={lora_alpha: 32}") == of("model.lora={}")  # 32 and 32.0 are one number
    assert of("trainer={max_steps: 20, seed: 1}") == of("trainer={seed: 1, max_steps: 20}")
    other = {of("objective.beta=0.3"), of("trainer.seed=1"), of("model.path=b"), of("data.train=b"), plain_digest}
    assert len(other) == 5


TEXTS = st.text() | st.sampled_from(
    ["1e-4", "tRUE", "nUll", "no", "<<", "~", "010", "09", "1:30", " x ", "a: b", "#", "="]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, PLAIN, min_size=1, max_size=3), st.booleans())
def test_what_is_dumped_is_read_back(value: dict[str, object], flow: bool) -> None:
    node = read_yaml(dump(value, flow=flow), lambda line: Origin("r.yaml", line))
    assert node is not None
    assert plain(node) == value


def test_equal_recipes_are_recipes(small: str) -> None:
    assert isinstance(load_recipe(small), Recipe)
    assert load_recipe(small) == load_recipe(small)
