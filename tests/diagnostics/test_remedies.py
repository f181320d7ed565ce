from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.diagnostics.measure import Rows, rows_of_pairs
from align.diagnostics.norms import NormProbe
from align.diagnostics.remedies import Calibrated, Normalised
from align.models.adapters import add_adapter
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from align.objectives.incentives import incentives
from align.objectives.registry import OBJECTIVES
from align.recipe.disentangle import Calibrate, Normalise
from tests.diagnostics.tiny import (
    EVERY_STEP,
    LORA,
    llama,
    logged,
    nothing_measured,
    pair_batch,
    suffix_rows,
    trainer_of,
    whole_gradients,
)

MARGIN_OBJECTIVES = ["dpo", "ipo_sum", "simpo", "cpo", "hinge", "exo_pair", "r_dpo", "dpop", "robust", "orpo"]

POLICY, ROWS = nothing_measured()
ONE = torch.ones(1, dtype=torch.bool)


def one(numbers):
    return numbers


class Steady(NormProbe):
    """Norms that are always the same."""

    def __init__(self, s_w, s_l, inner, pairs=1):
        self.found = torch.tensor([[[s_w**2, inner], [inner, s_l**2]]], dtype=torch.float64)
        self.pairs = pairs

    def forward(self, rows):
        return nullcontext()

    def products(self, policy):
        return self.found.expand(self.pairs, 2, 2)


def changes_of(tokenizer, objective, method, rows, *, lora=False, tie=True):
    """Return the exact first-order changes of both log-probabilities of each pair alone, remedied, and the cosines."""
    model = llama(tokenizer, tie_word_embeddings=tie)
    if lora:
        model.name_or_path = "tiny"
        model = add_adapter(model, LORA)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    head, found = output_head(model), []
    for row in rows:
        batch = pair_batch(tokenizer, [row])
        remedy = method(NormProbe(model, head), one)
        numbers = torch.arange(1)
        watched = Rows(
            **{name: batch[name] for name in ("input_ids", "attention_mask", "completion_mask")},
            groups=torch.stack([numbers, numbers + 1], 1),
        )
        with remedy.watching(watched.trimmed, 0, ONE):
            policy = pair_logps(model, head, batch)
        reference = None
        if objective.needs_reference:
            moved = {
                side: replace(getattr(policy, side), logp=getattr(policy, side).logp.detach() - 0.01)
                for side in ("chosen", "rejected")
            }
            reference = replace(policy, **moved)
        losses = objective.of_tokens(remedy.scaled(policy), reference)
        remedy.settle(losses)
        sums = policy.summed()
        gradients = whole_gradients(model, [sums.chosen.sum(), sums.rejected.sum(), losses.sum()])
        remedy.release()
        chosen, rejected, loss = gradients
        cosine = chosen @ rejected / chosen.norm() / rejected.norm()
        found.append((float(-chosen @ loss), float(-rejected @ loss), float(cosine)))
    return found


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", MARGIN_OBJECTIVES)
def test_normalised_descent_never_lowers_the_chosen_nor_raises_the_rejected(tokenizer, name, lora):
    objective = OBJECTIVES.build(name)
    found = changes_of(tokenizer, objective, lambda *a: Normalised(Normalise(), *a), suffix_rows(2), lora=lora)
    for chosen, rejected, cosine in found:
        assert cosine > 0.3  # entangled
        assert chosen > 0 > rejected


@pytest.mark.parametrize("name", ["rrhf", "slic_hf", "ipo_sum"])
def test_what_is_not_pulled_apart_is_not_promised(tokenizer, name):
    """One side only, or past a target: pairs are left as they are, or go the other way, and the log says so."""
    objective = OBJECTIVES.build(name)
    past = {"ipo_sum": 60.0}.get(name, 0.0)
    model, (row,) = llama(tokenizer), suffix_rows(1)
    batch, head = pair_batch(tokenizer, [row]), output_head(model)
    remedy = Normalised(Normalise(), NormProbe(model, head), one)
    with remedy.watching(rows_of_pairs(batch, [0]), 0, ONE):
        policy = pair_logps(model, head, batch)
    reference = None
    if objective.needs_reference:
        lower = replace(policy.chosen, logp=policy.chosen.logp.detach() - past)
        reference = replace(policy, chosen=lower, rejected=replace(policy.rejected, logp=policy.rejected.logp.detach()))
    remedy.settle(objective.of_tokens(remedy.scaled(policy), reference))
    remedy.release()
    pull = incentives(objective, policy, reference)
    assert not bool((pull.d_w > 0) & (pull.d_l > 0))  # the case is what it is said to be
    assert remedy.metrics()["promised"].tolist() == [0]


def test_normalised_descent_keeps_the_geometric_mean_of_the_pulls(tokenizer):
    objective = OBJECTIVES.build("simpo")
    model, batch = llama(tokenizer), pair_batch(tokenizer, suffix_rows(1))
    head = output_head(model)
    remedy = Normalised(Normalise(), NormProbe(model, head), one)
    with remedy.watching(rows_of_pairs(batch, [0]), 0, ONE):
        policy = pair_logps(model, head, batch)
    pull = incentives(objective, policy)
    losses = objective.of_tokens(remedy.scaled(policy))
    remedy.settle(losses)
    slopes = torch.autograd.grad(losses.sum(), [policy.chosen.logp, policy.rejected.logp])
    remedy.release()
    d_w, d_l = float(-slopes[0][0, 0]), float(slopes[1][0, 0])
    assert d_w * d_l == pytest.approx(float(pull.d_w * pull.d_l), rel=1e-5)
    sums = pair_logps(model, head, batch).summed()
    norms = whole_gradients(model, [sums.chosen.sum(), sums.rejected.sum()]).norm(dim=1)
    assert d_w / d_l == pytest.approx(float(norms[1] / norms[0]), rel=1e-4)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(-1, 0.999))
def test_the_centre_of_the_band_satisfies_both_conditions_for_every_cosine(s_w, s_l, d_w, d_l, cosine):
    as_tensors = [torch.tensor([d], dtype=torch.float64) for d in (d_w, d_l)]
    alpha = float(
        Normalised(Normalise(limit=1e9), Steady(s_w, s_l, cosine * s_w * s_l), one).alpha(POLICY, *as_tensors)
    )
    up, down, inner = d_w * alpha, d_l / alpha, cosine * s_w * s_l
    assert up * s_w**2 - down * inner >= -1e-9 * up * s_w**2
    assert up * inner - down * s_l**2 <= 1e-9 * down * s_l**2


def test_weights_of_two_signs_are_left_alone():
    d_w, d_l = torch.tensor([1.0, -1.0, 0.0, 1.0]), torch.tensor([-1.0, 1.0, 1.0, 1.0])
    alpha = Normalised(Normalise(), Steady(2.0, 1.0, 0.0), one).alpha(POLICY, d_w.double(), d_l.double())
    assert alpha.tolist() == pytest.approx([1, 1, 1, 0.5**0.5])


def test_factors_are_limited():
    ones = torch.ones(1, dtype=torch.float64)
    assert float(Normalised(Normalise(limit=3.0), Steady(1.0, 1e6, 0.0), one).alpha(POLICY, ones, ones)) == 3.0


def test_objectives_that_weigh_tokens_are_refused(tokenizer):
    with pytest.raises(ValueError, match="use an objective that reads the two sums"):
        changes_of(tokenizer, OBJECTIVES.build("ld_dpo"), lambda *a: Normalised(Normalise(), *a), uneven_rows())


def uneven_rows():
    row = suffix_rows(1)[0]
    return [{**row, "rejected": [{"role": "assistant", "content": row["rejected"][0]["content"] + " the sun the sun"}]}]


def test_calibration_brings_steady_pairs_into_the_band():
    s_w, s_l, inner = 1.0, 2.0, 1.6  # cosine 0.8: with r = 1 the chosen falls, since 1.6 > 1
    remedy = Calibrated(Calibrate(ema=0.5), Steady(s_w, s_l, inner), one)
    d = torch.ones(1, dtype=torch.float64)
    assert float(d[0] * s_w**2 - d[0] * inner) < 0
    alphas = []
    for step in range(3):
        remedy.watching(ROWS, step, ONE)
        alphas.append(float(remedy.alpha(POLICY, d, d)))
    assert alphas[0] == 1  # before anything was measured
    alpha = alphas[-1]
    assert alpha**2 == pytest.approx(s_l / s_w)
    assert alpha * s_w**2 - inner / alpha > 0
    assert alpha * inner - s_l**2 / alpha < 0


def test_averages_are_of_logarithms_and_forget_at_their_rate():
    remedy = Calibrated(Calibrate(ema=0.9), Steady(1.0, 1.0, 0.0), one)
    one_nat = torch.ones(1, dtype=torch.float64)
    for step, d_w in enumerate((1.0, torch.e, 1.0)):
        remedy.watching(ROWS, step, ONE)
        log_alpha = float(remedy.alpha(POLICY, d_w * one_nat, one_nat).log())
    assert remedy.averages["d_w"] == pytest.approx(0.1)
    assert log_alpha == pytest.approx(-0.1 / 2)
    remedy.watching(ROWS, 3, ONE)
    assert remedy.averages["d_w"] == pytest.approx(0.09)


def test_averages_move_once_a_step_however_it_is_cut_and_by_rows_that_count():
    """Four pairs at once, in two batches, and with a row that only fills a batch up."""
    d_w, ones = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    filled = torch.cat([d_w, torch.tensor([100.0])])
    found = []
    for batches in ([d_w], [d_w[:2], d_w[2:]], [filled[:1], filled[1:]]):
        remedy = Calibrated(Calibrate(ema=0.9), Steady(1.0, 2.0, 0.0, pairs=5), one)
        for step in range(2):
            for batch in batches:
                remedy.watching(ROWS, step, batch < 100)
                remedy.probe.pairs = len(batch)
                alpha = remedy.alpha(POLICY, batch, ones[:1].expand(len(batch)))
        found.append((remedy.averages, float(alpha[0])))
    assert found[0][0] == pytest.approx({"d_w": float(torch.tensor(2.5).log()), "d_l": 0, "s_w": 0, "s_l": 0.693147})
    for averages, alpha in found[1:]:
        assert averages == pytest.approx(found[0][0])
        assert alpha == pytest.approx(found[0][1])


def test_averages_are_kept_and_continued(tmp_path):
    remedy = Calibrated(Calibrate(), Steady(1.0, 3.0, 0.0), one)
    remedy.watching(ROWS, 0, ONE)
    remedy.alpha(POLICY, torch.ones(1).double(), torch.ones(1).double())
    remedy.save(tmp_path / "checkpoint-1")
    remedy.watching(ROWS, 1, ONE)
    again = Calibrated(Calibrate(), Steady(1.0, 3.0, 0.0), one)
    again.load(tmp_path / "checkpoint-1")
    assert again.averages == remedy.averages
    with pytest.raises(ValueError, match="was not calibrated"):
        again.load(tmp_path)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("method", [Normalise(), Calibrate(), Calibrate(norms="head", every=2)])
def test_the_monitor_sees_what_a_remedy_does(tokenizer, tmp_path, method, lora):
    """SGD on one pair a step: predictions of plain descent are those of the step."""
    model = llama(tokenizer)
    model.name_or_path = "tiny"
    trainer = trainer_of(
        model,
        tokenizer,
        tmp_path,
        rows=suffix_rows(4),
        peft_config=lora,
        options={"disentangle": method, "diagnostics": EVERY_STEP},
        optim="sgd",
        learning_rate=1e-3,
        per_device_train_batch_size=1,
        max_steps=4,
        max_grad_norm=0,
        lr_scheduler_type="constant",
    )
    trainer.train()
    for entry in logged(trainer):
        assert entry["entanglement/step_chosen"] == pytest.approx(entry["entanglement/sgd_chosen"], rel=1e-3, abs=1e-7)
        assert entry["entanglement/step_rejected"] == pytest.approx(
            entry["entanglement/sgd_rejected"], rel=1e-3, abs=1e-7
        )
        assert entry["disentangle/log_alpha"] != 0 or (isinstance(method, Calibrate) and entry["step"] == 1)
        if isinstance(method, Normalise):
            assert entry["entanglement/share_ideal"] == 1
            ratio = entry["entanglement/ratio"]
            assert ratio == pytest.approx(entry["entanglement/norm_ratio"], rel=1e-3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations(tokenizer, tmp_path, reentrant):
    def trained(folder, **changes):
        trainer = trainer_of(
            llama(tokenizer),
            tokenizer,
            folder,
            options={"disentangle": Normalise(), "diagnostics": EVERY_STEP},
            **changes,
        )
        trainer.train()
        return [entry["loss"] for entry in logged(trainer)]

    checkpointed = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    if reentrant:
        with pytest.raises(ValueError, match="use_reentrant: false"):
            trained(tmp_path / "a", **checkpointed)
        return
    assert trained(tmp_path / "a", **checkpointed) == pytest.approx(trained(tmp_path / "b"), rel=1e-6)
