"""Settings are checked when they are made, whoever makes them."""

from dataclasses import FrozenInstanceError, replace

import pytest

from align.recipe.schema import (
    DataSettings,
    DiagnosticsSettings,
    EntanglementSettings,
    EvaluationSettings,
    GenerationSettings,
    LoraSettings,
    SourceSettings,
    SynthSettings,
)

FILE = SourceSettings(path="pairs.jsonl")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoraSettings(r=0), "r must be greater than 0"),
        (lambda: LoraSettings(lora_dropout=1.0), r"lora_dropout must lie in \[0, 1\)"),
        (lambda: SynthSettings(samples=1), "samples must be at least 2"),
        (lambda: SynthSettings(temperature=0.0), "temperature must be greater than 0"),
        (lambda: SynthSettings(top_p=0.0), r"top_p must lie in \(0, 1\]"),
        (lambda: GenerationSettings(samples=0), "samples must be at least 1"),
        (lambda: SourceSettings(), "either 'path' or 'synth'"),
        (lambda: SourceSettings(path="x", synth=SynthSettings()), "either 'path' or 'synth'"),
        (lambda: SourceSettings(path="x", weight=0.0), "weight must be greater than 0"),
        (lambda: SourceSettings(path="x", columns={"good": "chosen"}), "columns has no 'good'"),
        (lambda: DataSettings(train=[]), "train needs at least one source"),
        (lambda: DataSettings(train=[FILE], eval_fraction=1.0), r"eval_fraction must lie in \[0, 1\)"),
        (lambda: DataSettings(train=[FILE], eval=[FILE], eval_fraction=0.1), "not both"),
        (lambda: DataSettings(train=[FILE], max_length=1), "max_length must be at least 2"),
        (lambda: EvaluationSettings(confidence=1.0), r"confidence must lie in \(0, 1\)"),
        (lambda: EvaluationSettings(resamples=10), "resamples must be at least 100"),
        (lambda: EntanglementSettings(every=0), "every must be greater than 0, got 0"),
        (lambda: EntanglementSettings(pairs=-1), "pairs must be greater than 0, or null, got -1"),
        (lambda: DiagnosticsSettings(verify=True), "verify needs entanglement"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_are_frozen_and_replacing_checks_again():
    with pytest.raises(FrozenInstanceError):
        FILE.path = "other.jsonl"
    with pytest.raises(ValueError, match="weight"):
        replace(FILE, weight=-1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SynthSettings(limit=-3), "limit must be greater than 0"),
        (lambda: GenerationSettings(batch_size=0), "batch_size must be greater than 0"),
        (lambda: GenerationSettings(max_new_tokens=0), "max_new_tokens must be greater than 0"),
        (lambda: SourceSettings(path="x", weight=float("inf")), "weight must be greater than 0 and finite"),
        (lambda: SourceSettings(synth=SynthSettings(), split="train"), "do not apply beside it"),
    ],
)
def test_values_that_would_be_ignored_or_break_later(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_columns_of_single_completions_and_scores_can_be_mapped():
    ours = ("prompt", "completion", "label", "chosen_score", "rejected_score")
    assert SourceSettings(path="x", columns=dict.fromkeys(ours, "theirs")).columns["label"] == "theirs"
    assert DataSettings(train=[FILE]).unpaired is None


def test_entanglement_is_measured_from_the_first_step_on():
    settings = EntanglementSettings()
    assert (settings.every, settings.pairs, settings.optimiser) == (20, 8, True)
    assert [step for step in range(45) if settings.measures(step)] == [0, 20, 40]
