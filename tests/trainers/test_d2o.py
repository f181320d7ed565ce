"""D2O: the paper's loss from whole forwards, its laws, both references, online samples, and what is refused."""

import math
from dataclasses import replace

import datasets
import pytest
import torch
from transformers import TrainerCallback

from align import PairTrainer
from align.objectives.dispreference import D2O, MeanTokenLogps
from align.objectives.dpo import DPO
from align.recipe.d2o import D2oSettings, OnlineSettings
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.recipe.sync import ReferenceSyncSettings
from align.trainers.d2o import SAMPLER_FILE, D2OTrainer
from tests.conftest import arguments, losses, rows
from tests.diagnostics.tiny import LORA, llama

SMALL = {"samples": 3, "max_new_tokens": 5, "instructions": None}


def d2o(model, tokenizer, folder, *, options=None, settings=None, **changes):
    return D2OTrainer(
        model,
        arguments(folder, **changes),
        train_dataset=rows(8),
        eval_dataset=rows(4),
        processing_class=tokenizer,
        d2o=D2oSettings(**{**SMALL, **(settings or {})}),
        **(options or {}),
    )


def logp_alone(model, ids, start):
    """Log-probability of the ids from ``start`` on, of one sequence by itself."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(start, len(ids)))


def test_the_loss_is_the_papers(tokenizer, tmp_path):
    """-log s((beta/K) sum_i log pi(y_i)/ref-(y_i) - alpha log pi(y_l)/ref+(y_l)), each sequence by itself."""
    trainer = d2o(
        llama(tokenizer),
        tokenizer,
        tmp_path,
        options={
            "objective": D2O(beta=0.4, alpha=0.2),
            "reference": llama(tokenizer, seed=1),
            "samples_reference": llama(tokenizer, seed=2),
        },
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    with torch.no_grad():
        found = trainer.row_losses(trainer.model, batch).losses
    models = trainer.model, trainer.reference.module, trainer.samples_reference.module
    for number in range(4):
        sequences = [batch["input_ids"][number * 3 + k] for k in range(3)], batch["input_ids"][12 + number]
        masks = [batch["attention_mask"][number * 3 + k] for k in range(3)], batch["attention_mask"][12 + number]
        starts = [int(batch["completion_mask"][number * 3 + k].int().argmax()) for k in range(3)]
        policy, plus, minus = models
        samples = [
            logp_alone(policy, ids[mask.bool()].tolist(), start) - logp_alone(minus, ids[mask.bool()].tolist(), start)
            for ids, mask, start in zip(*(sequences[0], masks[0], starts), strict=True)
        ]
        negative = sequences[1][masks[1].bool()].tolist()
        start = int(batch["completion_mask"][12 + number].int().argmax())
        u = 0.4 * sum(samples) / 3 - 0.2 * (logp_alone(policy, negative, start) - logp_alone(plus, negative, start))
        assert float(found[number]) == pytest.approx(math.log1p(math.exp(-u)), rel=1e-4)


def test_at_the_start_u_is_0(tokenizer, tmp_path):
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), rel=1e-5)


def test_pulls_through_the_trainer(tokenizer, tmp_path, monkeypatch):
    """Each token of a sample is pulled up with beta/K s(-u), each of the negative down with alpha s(-u)."""
    options = {"objective": D2O(beta=0.4, alpha=0.2), "reference": llama(tokenizer, seed=1)}
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, options=options)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    forward, leaves = trainer.forward_logps, []

    def leafed(model, given):
        found = forward(model, given)
        if model is not trainer.model:
            return found
        sides = [replace(s, logp=s.logp.detach().requires_grad_()) for s in (found.chosen, found.rejected)]
        leaves[:] = sides
        return replace(found, chosen=sides[0], rejected=sides[1])

    monkeypatch.setattr(trainer, "forward_logps", leafed)
    losses = trainer.row_losses(trainer.model, batch).losses
    losses.sum().backward()
    pull = 1 - torch.exp(-losses.detach())  # s(-u), of the loss -log s(u)
    samples, negatives = leaves
    assert samples.logp.shape[0] == 12
    for found, expected in (
        (samples, -0.4 / 3 * pull.repeat_interleave(3)),
        (negatives, 0.2 * pull),
    ):
        gradient = found.logp.grad[found.mask]
        assert torch.allclose(gradient, expected[:, None].expand(found.mask.shape)[found.mask], rtol=1e-4)


def test_samples_of_ones_own(tokenizer, tmp_path, capsys):
    drawn = d2o(llama(tokenizer), tokenizer, tmp_path / "a").train_dataset
    capsys.readouterr()

    def trained(folder, taken, **settings):
        options = {"train_dataset": taken, "eval_dataset": None, "d2o": D2oSettings(**{**SMALL, **settings})}
        return D2OTrainer(llama(tokenizer), arguments(folder), processing_class=tokenizer, **options)

    assert trained(tmp_path / "b", drawn).train_dataset["samples"][:] == drawn["samples"][:]
    assert "train_dataset: rows bring samples of their own; not used: max_new_tokens" in capsys.readouterr().out
    raw = datasets.Dataset.from_list([{**row, "samples": [[5]]} for row in rows(8)])
    assert trained(tmp_path / "d", raw).train_dataset["samples"][:] == drawn["samples"][:]
    assert "train_dataset: column 'samples' is not used: rows are prepared" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"train_dataset, row 0: column 'samples' has 3, and d2o.samples=11"):
        trained(tmp_path / "c", drawn, samples=11)


def test_rows_that_come_later_get_samples(tokenizer, tmp_path):
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path / "a")
    assert trainer.evaluate(rows(4))["eval_loss"] == trainer.evaluate()["eval_loss"]
    before = trainer._later[0][1]["samples"][:]
    trainer.train()
    assert trainer.evaluate(rows(4))["eval_loss"] == trainer.evaluate()["eval_loss"] != pytest.approx(math.log(2))
    assert trainer._later[0][1]["samples"][:] == before  # as they first came
    other = d2o(llama(tokenizer), tokenizer, tmp_path / "b", options={"objective": "gradient_ascent"})
    assert other.evaluate(rows(4))["eval_loss"] == other.evaluate()["eval_loss"]


def test_tokens_of_rows_that_fill_up_are_not_counted(tokenizer, tmp_path):
    """Rows are grouped by negative: those of the second are the last three samples and the last negative."""
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path)
    real = trainer.real_sequences(torch.tensor([True, False]), 8)
    assert real.tolist() == [True, True, True, False, False, False, True, False]
    assert trainer.real_sequences(torch.tensor([True, False]), 2).tolist() == [True, False]
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.compute_loss(trainer.model, {**batch, "real": torch.tensor([True, False, False, False])})
    mine = [0, 1, 2, 12]  # of sixteen: three samples and the negative of the first row
    assert int(trainer.meter._positions[-1]) == int(batch["attention_mask"][mine].sum())


def test_a_seed_may_be_a_date(tokenizer, tmp_path):
    drawn = [
        d2o(llama(tokenizer), tokenizer, tmp_path / str(seed), settings={"seed": seed}).train_dataset["samples"][:]
        for seed in (20_261_128, -20_261_128, 2**40)
    ]
    assert drawn[0] != drawn[1] != drawn[2]


def test_the_order_of_samples_does_not_matter(tokenizer, tmp_path):
    def trained(folder, turn):
        trainer = d2o(llama(tokenizer), tokenizer, folder)
        turned = [{**row, "samples": row["samples"][turn:] + row["samples"][:turn]} for row in trainer.train_dataset]
        trainer.train_dataset = datasets.Dataset.from_list(turned)
        trainer.train()
        return losses(trainer)

    assert trained(tmp_path / "a", 0) == pytest.approx(trained(tmp_path / "b", 1), rel=1e-5)


def test_one_sample_is_dpo_with_the_sample_as_chosen(tokenizer, tmp_path):
    one = d2o(llama(tokenizer), tokenizer, tmp_path / "a", settings={"samples": 1}, data_seed=1)
    pairs = datasets.Dataset.from_list(
        [
            {"prompt_ids": row["prompt_ids"], "chosen_ids": row["samples"][0], "rejected_ids": row["completion_ids"]}
            for row in one.train_dataset
        ]
    )
    plain = PairTrainer(
        llama(tokenizer),
        arguments(tmp_path / "b", data_seed=1),
        objective=DPO(beta=0.1),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    for trainer in (one, plain):
        trainer.train()
    assert losses(one) == pytest.approx(losses(plain), rel=1e-5)


def test_a_row_a_sample_bounds_it_from_above(tokenizer, tmp_path):
    """The same samples, each by itself: the mean of DPO losses is at least the loss of the mean."""
    policy, reference = llama(tokenizer), llama(tokenizer, seed=1)
    together = d2o(policy, tokenizer, tmp_path / "a", options={"reference": reference})
    apart = d2o(policy, tokenizer, tmp_path / "b", options={"reference": reference}, settings={"level": "instance"})
    assert len(apart.train_dataset) == 3 * len(together.train_dataset)
    assert together.evaluate()["eval_loss"] < apart.evaluate()["eval_loss"]


@pytest.mark.parametrize("name", ["npo", "simnpo", "gradient_ascent"])
def test_objectives_of_the_negative_alone_draw_no_sample(tokenizer, tmp_path, monkeypatch, name):
    monkeypatch.setattr("align.trainers.d2o.self_samples", None)
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, options={"objective": name})
    trainer.train()
    found = trainer.evaluate()
    assert "eval_logps/rejected" in found
    assert "eval_accuracy" not in found
    assert not [name for name in found if "chosen" in name]
    assert not [name for entry in trainer.state.log_history for name in entry if "chosen" in name]


def test_negatives_fall_against_samples(tokenizer, tmp_path):
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, max_steps=12, learning_rate=3e-3)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_logps/rejected"] < before["eval_logps/rejected"]
    assert after["eval_accuracy"] > 0.9


@pytest.mark.parametrize("lora", [False, True])
def test_online_samples_are_the_policys_and_are_continued(tokenizer, tmp_path, lora):
    options = {"peft_config": LORA} if lora else {}
    kept = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5}
    settings = {"online": OnlineSettings(warmup=1, every=2)}
    whole = d2o(llama(tokenizer), tokenizer, tmp_path / "a", settings=settings, options=options, **kept)
    seen = []
    fresh = whole._fresh

    def watched(inputs):
        found = fresh(inputs)
        flat = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (whole._sampler.module, whole.model)]
        apart = float((flat[0] - flat[1]).norm()) if not lora else 0.0
        seen.append((whole.state.global_step, found["input_ids"].shape, apart))
        return found

    whole._fresh = watched
    whole.train()
    assert [step for step, _, _ in seen] == [1, 2, 3, 4]
    rates = [entry.get("d2o/sampled_tokens_per_second") for entry in whole.state.log_history if "loss" in entry]
    assert [rate is not None and rate > 0 for rate in rates] == [False, True, True, True, True]
    assert all(shape[0] == 4 * 4 for _, shape, _ in seen)
    assert (tmp_path / "a" / "checkpoint-3" / SAMPLER_FILE).is_file()
    if not lora:  # copied when the warm-up is over, after step 1, and after step 3
        assert [apart == 0 for _, _, apart in seen] == [True, False, True, False]
    again = d2o(llama(tokenizer), tokenizer, tmp_path / "b", settings=settings, options=options, **kept)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert losses(whole)[-2:] == pytest.approx(losses(again)[-2:], rel=1e-6)


def test_a_moving_reference_of_samples(tokenizer, tmp_path):
    """After each step it is half the policy and half what it was; the negatives' reference stays."""
    settings = {"samples_reference_sync": ReferenceSyncSettings(alpha=0.5, every=1)}
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, settings=settings, max_steps=2)
    moving, still, policy = trainer.samples_reference.module, trainer.reference.module, trainer.model
    first = next(policy.parameters()).detach().clone()
    seen = []

    class Look(TrainerCallback):
        def on_optimizer_step(self, *_, **__):
            seen.append(next(policy.parameters()).detach().clone())

    trainer.add_callback(Look())
    trainer.train()
    assert len(seen) == 2
    assert not torch.equal(*seen)
    expected = 0.25 * first + 0.25 * seen[0] + 0.5 * seen[1]
    assert torch.allclose(next(moving.parameters()), expected, atol=1e-7)
    assert torch.equal(next(still.parameters()), first)


def test_a_path_is_a_reference_of_samples(tokenizer, tmp_path, model_dir):
    trainer = d2o(llama(tokenizer), tokenizer, tmp_path, settings={"samples_reference": str(model_dir)})
    assert str(model_dir) in trainer.samples_reference.description


@pytest.mark.parametrize(
    ("settings", "objective", "name"),
    [
        ({"online": OnlineSettings()}, "npo", "online"),
        ({"level": "instance"}, "simnpo", "level"),
        ({"samples_reference": "base"}, "gradient_ascent", "samples_reference"),
        ({"samples_reference_sync": ReferenceSyncSettings()}, "cpo", "samples_reference_sync"),
    ],
)
def test_settings_that_nothing_reads(tokenizer, tmp_path, settings, objective, name):
    with pytest.raises(ValueError, match=rf"d2o.{name} would not be used: objective '{objective}'"):
        d2o(llama(tokenizer), tokenizer, tmp_path, settings=settings, options={"objective": objective})


def test_mixtures_are_looked_into(tokenizer, tmp_path):
    from align.objectives.mixture import Mixture, Part, Smoothed
    from align.objectives.registry import OBJECTIVES

    good = Mixture(parts=(Part(objective=DPO(), weight=1.0), Part(objective=OBJECTIVES.build("npo"), weight=0.5)))
    for objective in (good, Smoothed(objective=DPO(), label_smoothing=0.1)):
        d2o(llama(tokenizer), tokenizer, tmp_path, options={"objective": objective})
    bad = Mixture(parts=(Part(objective=DPO(), weight=1.0), Part(objective=OBJECTIVES.build("ld_dpo"), weight=1.0)))
    with pytest.raises(ValueError, match="'ld_dpo' reads"):
        d2o(llama(tokenizer), tokenizer, tmp_path, options={"objective": bad})


def test_means_of_groups():
    logp = torch.tensor([[-1.0, -2.0], [-3.0, 0.0], [-4.0, -5.0], [-6.0, -7.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    found = MeanTokenLogps(logp=logp, mask=mask, count=2).summed()
    assert found.logps.tolist() == [-3.0, -11.0]
    assert found.lengths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "simpo"}, "reads lengths, and a mean of samples has none"),
        ({"objective": "ld_dpo"}, "and a mean of samples has none"),
        ({"objective": "sft"}, "reads no negative"),
        (
            {"diagnostics": DiagnosticsSettings(entanglement=EntanglementSettings())},
            "diagnostics is about two responses",
        ),
    ],
)
def test_what_is_refused(tokenizer, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        d2o(llama(tokenizer), tokenizer, tmp_path, options=options)


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        ("npo", {}, "samples_reference would not be used: objective 'npo' draws no sample"),
        ("cpo", {}, "samples_reference would not be used: objective 'cpo' needs no reference"),
        ("d2o", {"samples_reference": "base"}, "d2o.samples_reference asks for a copy of the policy, and"),
        ("d2o", {"samples_reference_sync": ReferenceSyncSettings()}, "d2o.samples_reference_sync asks for a copy"),
    ],
)
def test_a_reference_of_samples_that_nothing_would_read(tokenizer, tmp_path, objective, settings, message):
    given = {"samples_reference": llama(tokenizer), "objective": objective}
    with pytest.raises(ValueError, match=message):
        d2o(llama(tokenizer), tokenizer, tmp_path, settings=settings, options=given)
