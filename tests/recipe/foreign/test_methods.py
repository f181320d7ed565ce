import pytest

from align.recipe.errors import Origin, RecipeError
from align.recipe.foreign.asked import Asked
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.methods import METHODS, method_of, sync_reference
from align.recipe.yaml_tree import Node, read_yaml
from tests.recipe.foreign.conftest import unfolded


def given(text):
    return Given(Node(read_yaml(unfolded(text) + "x: 1\n", lambda line: Origin("f", line)).value, Origin("f")))


def parts(method, text):
    asked = Asked(given(text), Draft(), loss="said")
    made = [{key: setting.value for key, setting in part.items()} for part in METHODS[method].parts(asked)]
    return made, [decision.key for decision in asked.draft.decisions]


SFT = {"name": "sft", "nll": "batch_mean"}
ORPO = {"name": "orpo", "lam": 0.1, "nll": "batch_mean_with_prompt"}
CPO = {"name": "cpo", "beta": 0.1, "loss_type": "sigmoid", "nll_weight": 1.0, "nll": "batch_mean"}
SIMPO = {"name": "simpo", "beta": 0.1, "gamma": 0.5}
KTO = {"name": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("kto", "", [KTO]),
        ("kto", "{undesirable_weight: 2.0, beta: 0.3}", [KTO | {"undesirable_weight": 2.0, "beta": 0.3}]),
        ("kto", "loss_type: apo_zero_unpaired", [{"name": "apo_zero", "beta": 0.1, "weight": 1.0}]),
        ("cpo", "", [CPO]),
        ("cpo", "{loss_type: ipo, cpo_alpha: 0}", [CPO | {"loss_type": "ipo", "nll_weight": 0}]),
        ("cpo", "label_smoothing: 0.2", [CPO | {"label_smoothing": 0.2}]),
        ("cpo", "{loss_type: hinge, label_smoothing: 0.2}", [CPO | {"loss_type": "hinge"}]),
        ("cpo", "{loss_type: simpo, simpo_gamma: 1.5, cpo_alpha: 0}", [SIMPO | {"gamma": 1.5}]),
        ("cpo", "loss_type: simpo", [SIMPO, SFT | {"weight": 1.0}]),
        ("cpo", "{loss_type: alphapo, alpha: 0.2}", [SIMPO | {"name": "alphapo", "alpha": 0.2}]),
        ("cpo", "{loss_type: alphapo, cpo_alpha: 0.5}", [SIMPO]),
        ("cpo", "{loss_type: simpo, alpha: 0.2, cpo_alpha: 0}", [SIMPO | {"name": "alphapo", "alpha": 0.2}]),
        ("orpo", "", [ORPO]),
        ("orpo", "beta: 0.3", [ORPO | {"lam": 0.3}]),
        ("simpo", "", [{"name": "simpo", "beta": 2.0, "gamma": 0.5}]),
        ("simpo", "{beta: 10, gamma_beta_ratio: 0.3}", [{"name": "simpo", "beta": 10, "gamma": 3.0}]),
        ("simpo", "sft_weight: 0.1", [{"name": "simpo", "beta": 2.0, "gamma": 0.5}, SFT | {"weight": 0.1}]),
    ],
)
def test_what_a_method_becomes(method, text, expected):
    assert parts(method, text) == (expected, [])


@pytest.mark.parametrize(
    ("method", "text", "decisions"),
    [
        ("kto", "{loss_type: apo_zero_unpaired, desirable_weight: 2.0}", ["desirable_weight", "undesirable_weight"]),
        ("cpo", "alpha: 0.2", ["alpha"]),
        ("cpo", "{loss_type: simpo, label_smoothing: 0.1}", ["label_smoothing"]),
        ("simpo", "label_smoothing: 0.1", ["label_smoothing"]),
    ],
)
def test_what_has_no_counterpart_is_a_decision(method, text, decisions):
    assert parts(method, text)[1] == decisions


@pytest.mark.parametrize(("method", "loss"), [("kto", "bco"), ("cpo", "kto_pair"), ("simpo", "hinge")])
def test_a_loss_that_a_method_does_not_have_stops(method, loss):
    with pytest.raises(RecipeError, match=r"f:1: loss_type: loss .* of this trainer there are"):
        parts(method, f"loss_type: {loss}")


def test_defaults_are_those_of_the_installed_trl():
    from trl import KTOConfig
    from trl.experimental.cpo import CPOConfig
    from trl.experimental.orpo import ORPOConfig

    kto, cpo, orpo = (config("x", use_cpu=True, bf16=False) for config in (KTOConfig, CPOConfig, ORPOConfig))
    assert (kto.loss_type, kto.beta, kto.desirable_weight, kto.undesirable_weight) == ("kto", 0.1, 1.0, 1.0)
    assert (cpo.loss_type, cpo.beta, cpo.cpo_alpha, cpo.simpo_gamma, cpo.alpha) == ("sigmoid", 0.1, 1.0, 0.5, 0.0)
    assert orpo.beta == 0.1
    assert (kto.ref_model_mixup_alpha, kto.ref_model_sync_steps) == (0.6, 512)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ("dpo", "")),
        ("loss_type: [sigmoid, sft]", ("dpo", "loss_type")),
        ("loss_type: [kto]", ("kto", "loss_type")),
        ("loss_type: alphapo", ("cpo", "loss_type")),
        ("{loss_type: sigmoid, simpo_gamma: 1}", ("cpo", "simpo_gamma")),
        ("sft_weight: 1", ("simpo", "sft_weight")),
    ],
)
def test_which_trainer_a_file_is_for(text, found):
    assert method_of(given(text)) == found


def test_no_sign_is_of_two_trainers():
    signs = [sign for method in METHODS.values() for sign in (*method.signs, *method.losses)]
    assert len(signs) == len(set(signs))


def test_a_reference_that_follows():
    draft = Draft()
    sync_reference(given("{sync_ref_model: true, ref_model_sync_steps: 64}"), draft)
    assert {key: (s.value, s.source) for key, s in draft.settings.items()} == {
        "model.reference_sync.alpha": (0.6, "sync_ref_model, TRL's default"),
        "model.reference_sync.every": (64, "sync_ref_model, ref_model_sync_steps"),
    }
    draft = Draft()
    sync_reference(given("ref_model_mixup_alpha: 0.3"), draft)
    assert (draft.settings, [key for key, _ in draft.left]) == ({}, ["ref_model_mixup_alpha"])
