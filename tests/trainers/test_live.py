"""Entanglement while our own trainer trains, against whole gradients and steps that are taken."""

import copy

import pytest
import torch

from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from align.objectives.registry import OBJECTIVES
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.recipe.speed import OFF
from tests.conftest import pair_rows
from tests.diagnostics.tiny import EVERY_STEP, LORA, VERIFIED, llama, logged, pair_batch, trainer_of, whole_gradients


def trained(tokenizer, folder, *, diagnostics=EVERY_STEP, objective="dpo", lora=None, model=None, speed=OFF, **changes):
    model = llama(tokenizer) if model is None else model
    model.name_or_path = "tiny"
    options = {"diagnostics": diagnostics, "objective": objective, "speed": speed}
    trainer = trainer_of(model, tokenizer, folder, peft_config=lora, options=options, **changes)
    trainer.train()
    return trainer


def logps(model, batch):
    sums = pair_logps(model, output_head(model), batch).summed()
    return sums.chosen, sums.rejected


@pytest.mark.parametrize("objective", ["dpo", "simpo", "ld_dpo", "orpo"])
def test_the_first_step_is_that_of_whole_gradients(tokenizer, tmp_path, objective):
    """Norms, inner products, what plain descent would do to each pair alone, and what AdamW does to all."""
    model, rows = llama(tokenizer), pair_rows(4)
    before, batch = copy.deepcopy(model), pair_batch(tokenizer, rows)
    trainer = trained(
        tokenizer, tmp_path, objective=objective, model=model, rows=rows, max_steps=1, lr_scheduler_type="constant"
    )
    found = logged(trainer)[0]
    chosen, rejected = logps(before, batch)
    g = [whole_gradients(before, list(side)) for side in (chosen, rejected)]
    inner = (g[0] * g[1]).sum(1)
    assert found["entanglement/inner"] == pytest.approx(float(inner.mean()), rel=1e-3)
    assert found["entanglement/chosen_norm"] == pytest.approx(float(g[0].norm(dim=1).mean()), rel=1e-4)
    cosine = inner / g[0].norm(dim=1) / g[1].norm(dim=1)
    assert found["entanglement/cosine"] == pytest.approx(float(cosine.mean()), abs=1e-5)
    policy = pair_logps(before, output_head(before), batch)
    with torch.no_grad():
        reference = pair_logps(before, output_head(before), batch)
    built = OBJECTIVES.build(objective)
    losses = built.of_tokens(policy, reference if built.needs_reference else None)
    pulls = whole_gradients(before, list(losses))
    alone = -1e-3 / 4 * (g[0] * pulls).sum(1)
    assert found["entanglement/sgd_chosen"] == pytest.approx(float(alone.mean()), rel=1e-3, abs=1e-8)
    moved = (
        torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)])
        .detach()
        .double()
    )
    assert found["entanglement/step_chosen"] == pytest.approx(float((g[0] @ moved).mean()), rel=1e-3)
    assert found["entanglement/step_rejected"] == pytest.approx(float((g[1] @ moved).mean()), rel=1e-3)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_training_is_not_touched(tokenizer, tmp_path, lora):
    runs = [
        trained(tokenizer, tmp_path / str(i), diagnostics=d, lora=lora, max_steps=4)
        for i, d in enumerate((None, VERIFIED))
    ]
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    assert not any(m._forward_hooks for m in runs[1].model.modules() if "Lora" not in type(m).__name__)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_packed_training_is_measured_and_not_touched(tokenizer, tmp_path, lora):
    """By a pass of its own: gradients of tokens that rows share cannot be told apart in the step's own backward."""
    packed, unmeasured, padded = (
        trained(tokenizer, tmp_path / str(i), diagnostics=d, lora=lora, max_steps=4, speed=speed)
        for i, (d, speed) in enumerate(((VERIFIED, None), (None, None), (VERIFIED, OFF)))
    )
    assert packed.speed.packs
    for one, other in zip(packed.model.parameters(), unmeasured.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for mine, plain in zip(logged(packed), logged(padded), strict=True):
        assert mine["entanglement/extra_pass"] == 1
        for name in ("cosine", "chosen_norm", "inner", "d_chosen", "step_chosen", "step_rejected"):
            key = f"entanglement/{name}"
            assert mine[key] == pytest.approx(plain[key], rel=1e-3, abs=1e-6), name


def test_what_adapters_drop_does_not_depend_on_what_is_measured(tokenizer, tmp_path):
    dropping = copy.deepcopy(LORA)
    dropping.lora_dropout = 0.3
    runs = [
        trained(tokenizer, tmp_path / str(i), diagnostics=d, lora=dropping, objective="ld_dpo")
        for i, d in enumerate((None, VERIFIED))
    ]
    assert [e["loss"] for e in logged(runs[0])] == [e["loss"] for e in logged(runs[1])]
    assert runs[1].live.monitor.max_rel_error < 1e-5


def test_accumulated_batches_are_one_step(tokenizer, tmp_path):
    settings = [
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ]
    whole, parts = (logged(trained(tokenizer, tmp_path / str(i), **s)) for i, s in enumerate(settings))
    for one, other in zip(whole, parts, strict=True):
        for name in ("cosine", "chosen_norm", "d_chosen", "sgd_chosen", "step_rejected"):
            assert one[f"entanglement/{name}"] == pytest.approx(other[f"entanglement/{name}"], rel=1e-3, abs=1e-6)


def test_only_measured_steps_log(tokenizer, tmp_path):
    settings = DiagnosticsSettings(entanglement=EntanglementSettings(every=2, pairs=1, optimiser=False))
    entries = logged(trained(tokenizer, tmp_path, diagnostics=settings, max_steps=4))
    assert ["entanglement/cosine" in entry for entry in entries] == [True, False, True, False]
    assert not any("entanglement/step_chosen" in entry for entry in entries)


@pytest.mark.parametrize("objective", ["ld_dpo", "sft", "npo"])
def test_what_does_not_factor_is_said_and_verified(tokenizer, tmp_path, capsys, objective):
    trainer = trained(tokenizer, tmp_path, objective=objective, diagnostics=VERIFIED)
    assert trainer.live.monitor.max_rel_error < 1e-5
    said = capsys.readouterr().out
    assert said.count("measured by a pass of their own") == 1
    first = logged(trainer)[0]
    assert first["entanglement/extra_pass"] > 0
    if objective == "sft":
        assert first["entanglement/d_rejected"] == 0
        assert first["entanglement/sgd_chosen"] > 0
    if objective == "npo":
        assert first["entanglement/d_chosen"] == 0
        assert first["entanglement/sgd_rejected"] < 0


def test_a_subclass_with_its_own_forward_is_measured_by_a_pass(tokenizer, tmp_path):
    from align import PairTrainer

    class Own(PairTrainer):
        def forward_logps(self, model, batch):
            return super().forward_logps(model, batch)

        def extra_loss(self, model, batch, policy):
            return -0.1 * policy.chosen

    trainer = trainer_of(llama(tokenizer), tokenizer, tmp_path, cls=Own, options={"diagnostics": VERIFIED})
    trainer.train()
    first = logged(trainer)[0]
    assert first["entanglement/extra_pass"] == 1
    assert first["entanglement/d_chosen"] == pytest.approx(0.15, rel=1e-4)
    assert trainer.live.monitor.max_rel_error < 1e-5


def test_nothing_stays_on_the_model_after_an_error(tokenizer, tmp_path):
    from align import PairTrainer

    class Broken(PairTrainer):
        def objective_loss(self, policy, reference, batch):
            raise RuntimeError("broken")

    model = llama(tokenizer)
    trainer = trainer_of(model, tokenizer, tmp_path, cls=Broken, options={"diagnostics": EVERY_STEP})
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert not any(m._forward_hooks for m in model.modules())


def test_a_run_that_goes_wrong_is_warned_of_once_in_a_while(tokenizer, tmp_path, capsys):
    from tests.diagnostics.tiny import suffix_rows

    rows = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in suffix_rows(8)]
    rows = [row for row in rows for _ in range(2)]
    trained(tokenizer, tmp_path, rows=rows, max_steps=8, learning_rate=5e-3, objective="gradient_ascent", lora=None)
    said = capsys.readouterr().out
    assert said.count("both log-probabilities are moved down") <= 1 + 8 // 10 + 1
    assert "both log-probabilities are moved down" in said


def test_evaluation_is_not_measured(tokenizer, tmp_path):
    import datasets

    options = {"diagnostics": EVERY_STEP, "eval_dataset": datasets.Dataset.from_list(pair_rows(4))}
    trainer = trainer_of(llama(tokenizer), tokenizer, tmp_path, options=options, max_steps=1)
    trainer.train()
    assert not [name for name in trainer.evaluate() if "entanglement" in name]
