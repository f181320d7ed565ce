from collections.abc import Callable
from pathlib import Path

from align.objectives.dpo import DPO
from align.recipe.d2o import D2oSettings
from align.recipe.paths import absolute_where_it_exists, anchored, input_files
from align.recipe.schema import (
    DataSettings,
    EvaluationSettings,
    GenerationSettings,
    ModelSettings,
    Recipe,
    SourceSettings,
    SynthSettings,
)
from align.recipe.spo import DegreeSettings, SpoSettings

Write = Callable[..., str]


def recipe() -> Recipe:
    synth = SynthSettings(prompts="prompts.txt", scorer="score.py:length")
    return Recipe(
        model=ModelSettings(path="model", reference="none"),
        data=DataSettings(
            train=[SourceSettings(path="a.jsonl"), SourceSettings(synth=synth)], eval=[SourceSettings(path="org/pairs")]
        ),
        objective=DPO(),
        evaluation=EvaluationSettings(generation=GenerationSettings()),
    )


def test_paths_that_exist_become_absolute(write: Write) -> None:
    for name in ("prompts.txt", "score.py", "a.jsonl"):
        write("x", name)
    for name in ("model", "none", "sentiment", "vader"):
        Path(name).mkdir()  # a folder of that name does not change what a keyword means
    here = Path.cwd()
    made = anchored(recipe())
    assert (made.model.path, made.model.reference) == (str(here / "model"), "none")
    assert [s.path for s in made.data.train + made.data.eval] == [str(here / "a.jsonl"), None, "org/pairs"]
    synth, generation = made.data.train[1].synth, made.evaluation.generation
    assert synth is not None
    assert generation is not None
    assert (synth.prompts, synth.scorer) == (str(here / "prompts.txt"), f"{here / 'score.py'}:length")
    assert (generation.prompts, generation.scorer) == ("sentiment", "vader")
    assert anchored(made) == made


def test_what_does_not_exist_is_left_alone(write: Write) -> None:
    write("x", "other")
    assert anchored(recipe()) == recipe()
    assert absolute_where_it_exists("") == ""


def test_a_reference_folder_and_the_home_folder(write: Write) -> None:
    write("x", "other")
    Path("ref").mkdir()
    made = anchored(
        Recipe(
            model=ModelSettings(path="org/m", reference="ref"),
            data=DataSettings(train=[SourceSettings(path="org/p")]),
            objective=DPO(),
        )
    )
    assert made.model.reference == str(Path.cwd() / "ref")
    assert absolute_where_it_exists("~") == str(Path.home())


def test_files_of_extractors_and_instructions(write: Write) -> None:
    """Absolute, and among the files whose content a run depends on."""
    for name in ("keys.py", "kind.txt", "other"):
        write("x", name)
    here = Path.cwd()
    made = anchored(
        Recipe(
            model=ModelSettings(path="org/m"),
            data=DataSettings(train=[SourceSettings(path="org/p")]),
            objective=DPO(),
            spo=SpoSettings(versions=DegreeSettings(extractor="keys.py:mine")),
            d2o=D2oSettings(instructions="kind.txt", samples_reference="other"),
        )
    )
    assert made.spo is not None
    assert made.d2o is not None
    assert made.spo.versions.extractor == f"{here / 'keys.py'}:mine"
    assert (made.d2o.instructions, made.d2o.samples_reference) == (str(here / "kind.txt"), str(here / "other"))
    assert input_files(made) == [here / "keys.py", here / "kind.txt"]
    assert anchored(made) == made
