import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align.objectives.dpo import DPO
from align.recipe.load import RecipeError, build_recipe, load_recipe, load_tree
from align.recipe.schema import EvaluationSettings, LoraSettings, OutputSettings, SourceSettings, SynthSettings
from align.recipe.trainer_fields import DEFAULTS

Write = Callable[..., str]

WHOLE = """
    # what it is for
    model:
      path: org/tiny
      dtype: float32
      lora:
        r: 8
        target_modules: [q_proj, v_proj]
    data:
      train:
        - path: a.jsonl
          columns: {prompt: question}
        - synth: {samples: 2, temperature: 1}
          weight: 2
      max_length: null
    objective:
      name: dpo
      beta: 0.3
    trainer:
      learning_rate: 1e-4
      lr_scheduler_type: cosine
    evaluation:
    output:
      dir: runs/one
"""


def refusal(path: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as error:
        load_recipe(path, overrides)
    return error.value


def test_a_whole_recipe(write: Write) -> None:
    recipe = load_recipe(write(WHOLE))
    assert recipe.model.lora == LoraSettings(r=8, target_modules=["q_proj", "v_proj"])
    assert recipe.data.train == [
        SourceSettings(path="a.jsonl", columns={"prompt": "question"}),
        SourceSettings(synth=SynthSettings(samples=2, temperature=1.0), weight=2.0),
    ]
    assert recipe.data.max_length is None
    assert recipe.objective == DPO(beta=0.3)
    assert recipe.objective_spec == ({},)
    assert recipe.trainer == DEFAULTS | {"learning_rate": 1e-4, "lr_scheduler_type": "cosine"}
    assert recipe.evaluation == EvaluationSettings()  # nothing under a section is an empty section
    assert recipe.output == OutputSettings(dir="runs/one")


def test_overrides_go_through_the_same_checks(write: Write) -> None:
    overrides = [
        "model.lora=null",
        "objective.beta=1",
        "data.train=[b.jsonl]",
        "trainer.max_steps=1",
        "trainer.max_steps=2",
    ]
    recipe = load_recipe(write(WHOLE), overrides)
    assert recipe.model.lora is None
    assert recipe.objective == DPO(beta=1.0)
    assert recipe.data.train == [SourceSettings(path="b.jsonl")]
    assert recipe.trainer["max_steps"] == 2
    tree = load_tree("r.yaml", overrides)
    assert build_recipe(tree) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainr.max_steps=1", "trainr: a recipe has no section 'trainr'; did you mean 'trainer'?"),
        ("trainer.max_stepz=1", "transformers.TrainingArguments has no field 'max_stepz'; did you mean 'max_steps'?"),
        ("model.lora.rr=1", "'model.lora' has no setting 'rr'; did you mean 'r'?"),
        ("model.lora={r: 0}", "model.lora.r: r must be greater than 0, got 0"),
        ("data.train.synth.limt=8", "'data.train.synth' has no setting 'limt'; did you mean 'limit'?"),
        ("data.train.weight=0", "weight must be greater than 0 and finite, got 0.0"),
        ("objective.beta=abc", "expected a number, found 'abc' (a text)"),
        ("evaluation.confidence=95", "confidence must lie in (0, 1), got 95.0"),
        ("evaluation.generation.split=held", "'held' is none of the choices; did you mean 'heldout'?"),
        ("output.folder=x", "'output' has no setting 'folder'; known: dir"),
        ("model=gpt2", "expected a mapping, found 'gpt2' (a text)"),
        ("trainer.eval_strategy=epoch", "'epoch' needs held-out pairs: give data.eval or data.eval_fraction"),
    ],
)
def test_a_wrong_override_is_named(write: Write, override: str, message: str) -> None:
    path = write("model: {path: m}\ndata: {train: {synth: {}}}\nobjective: dpo\n")
    raised = refusal(path, "trainer.seed=1", override)
    assert str(raised) == f"command line: {override}: {message}"
    assert (raised.file, raised.line) == (None, None)


@pytest.mark.parametrize(
    ("before", "after", "line", "key", "message"),
    [
        ("objective:", "objektive:", 15, "objektive", "a recipe has no section 'objektive'; did you mean 'objective'?"),
        ("beta", "betta", 17, "objective.betta", "objective 'dpo' has no setting 'betta'; did you mean 'beta'?"),
        ("r: 8", "r: -8", 6, "model.lora.r", "r must be greater than 0, got -8"),
        ("dtype: float32", "dtype: fp32", 4, "model.dtype", "'fp32' is none of the choices; known: auto, bfloat16, "),
        ("q_proj, v", "q_proj, 3, v", 7, "model.lora.target_modules.1", "expected a text, found 3 (a whole number)"),
        ("path: a", "pth: a", 10, "data.train.0.pth", "'data.train.0' has no setting 'pth'; did you mean 'path'?"),
        ("weight: 2", "path: b", 12, "data.train.1", "give either 'path' or 'synth'"),
        (
            "{prompt:",
            "{promt:",
            11,
            "data.train.0.columns",
            "columns has no 'promt'; known: chosen, chosen_score, completion, label, ",
        ),
        ("max_length: null", "max_length: 1", 14, "data.max_length", "max_length must be at least 2, or null"),
        ("1e-4", "1e-4x", 19, "trainer.learning_rate", "expected a number, found '1e-4x' (a text)"),
        ("dir:", "directory:", 23, "output.directory", "'output' has no setting 'directory'; "),
        ("dtype: float32", "path: other", 4, "model.path", "given twice, on line 3 and on line 4"),
    ],
)
def test_a_wrong_line_is_named(write: Write, before: str, after: str, line: int, key: str, message: str) -> None:
    assert before in WHOLE
    raised = refusal(write(WHOLE.replace(before, after, 1)))
    assert (raised.file, raised.line, raised.key) == ("r.yaml", line, key)
    assert str(raised).startswith(f"r.yaml:{line}: {key}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {train: a}\nobjective: dpo", "r.yaml: missing: model.path"),
        ("data: {train: a}\nmodel:\n  dtype: auto\nobjective: dpo", "r.yaml:2: missing: model.path"),
        ("model: {path: m}\nobjective: dpo", "r.yaml: missing: data.train"),
        ("model: {path: m}\ndata:\nobjective: dpo", "r.yaml:2: missing: data.train"),
        (
            "model: {path: m}\ndata: {train: []}\nobjective: dpo",
            "r.yaml:2: data.train: train needs at least one source",
        ),
        ("model: {path: m}\ndata: {train: a}", "r.yaml: missing: objective, for example {name: dpo, beta: 0.1}"),
        (
            "model: {path: m}\ndata: {train: 3}\nobjective: dpo",
            "r.yaml:2: data.train: expected a list, found 3 (a whole",
        ),
    ],
)
def test_what_is_missing(write: Write, text: str, message: str) -> None:
    assert str(refusal(write(text))).startswith(message)


def test_paths_that_exist_become_absolute(write: Write, small: str) -> None:
    write("{}", "a.jsonl")
    recipe = load_recipe(small, ["data.train=[a.jsonl, b.jsonl]"])
    assert [source.path for source in recipe.data.train] == [str(Path.cwd() / "a.jsonl"), "b.jsonl"]


def test_importing_the_loader_imports_no_transformers() -> None:
    code = "import sys, align.recipe.load, align.recipe.show; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
