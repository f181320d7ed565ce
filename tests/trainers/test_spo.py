"""SPO: the objective's loss as it is, plus the degree loss of versions; the heads kept, continued, not exported."""

import json
import math
from dataclasses import replace

import datasets
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from align import PairTrainer
from align.objectives.registry import OBJECTIVES
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.recipe.spo import DegreeHeadSettings, DegreeSettings, SpoSettings
from align.trainers.degrees import HEAD_FILE, LearnsDegrees
from align.trainers.spo import SPOTrainer, UnpairedSPOTrainer
from align.trainers.unpaired import UnpairedTrainer
from tests.conftest import arguments, losses, rows
from tests.diagnostics.tiny import LORA, llama

VERSIONS = DegreeSettings(extractor="tfidf", degrees=3)


def spo(model, tokenizer, folder, *, settings=None, cls=SPOTrainer, options=None, **changes):
    given = {"spo": settings or SpoSettings(versions=VERSIONS)} if issubclass(cls, LearnsDegrees) else {}
    sets = {"train_dataset": rows(8), "eval_dataset": rows(4)}
    return cls(model, arguments(folder, **changes), processing_class=tokenizer, **{**sets, **given, **(options or {})})


def test_an_optimiser_of_ones_own_would_miss_the_heads(tokenizer, tmp_path):
    model = llama(tokenizer)
    given = {"optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match="SPOTrainer makes its optimiser"):
        spo(model, tokenizer, tmp_path, options=given)


def test_rows_that_come_later_get_versions(tokenizer, tmp_path):
    for cls, options in ((SPOTrainer, {}), (UnpairedSPOTrainer, {"objective": "kto"})):
        trainer = spo(llama(tokenizer), tokenizer, tmp_path / cls.__name__, cls=cls, options=options)
        later, own = trainer.evaluate(rows(4)), trainer.evaluate()
        assert later["eval_loss"] == own["eval_loss"]
        assert later["eval_spo/loss/chosen"] == own["eval_spo/loss/chosen"]


def test_surprisal_of_rows_that_come_later_is_kept_apart(tokenizer, tmp_path):
    """After training it is another model's: a new trainer does not find it under the untrained one's key."""
    settings = SpoSettings(versions=DegreeSettings(extractor="surprisal", degrees=3))

    def versions(trainer, taken):
        trainer.evaluate(taken)
        return trainer._later[-1][1]["chosen_versions"][:]

    trained = spo(llama(tokenizer), tokenizer, tmp_path / "a", settings=settings, learning_rate=0.1)
    trained.train()
    late = versions(trained, rows(24))
    assert late != versions(spo(llama(tokenizer), tokenizer, tmp_path / "b", settings=settings), rows(24))


def test_versions_of_one_side_where_both_are_asked_for(tokenizer, tmp_path):
    made = spo(llama(tokenizer), tokenizer, tmp_path / "a").train_dataset.remove_columns("rejected_versions")
    with pytest.raises(ValueError, match=r"rows bring 'chosen_versions', and spo.versions.sides='both' asks for"):
        spo(llama(tokenizer), tokenizer, tmp_path / "b", options={"train_dataset": made})
    alone = SpoSettings(versions=replace(VERSIONS, sides="chosen"))
    spo(llama(tokenizer), tokenizer, tmp_path / "c", settings=alone, options={"train_dataset": made})


def batch_of(trainer):
    return next(iter(trainer.get_train_dataloader()))


def test_the_loss_is_the_objectives_and_gamma_times_cross_entropy(tokenizer, tmp_path):
    """By hand, with whole hidden states of each version alone, and classes of equal probability replaced."""
    settings = SpoSettings(versions=VERSIONS, gamma=0.3, gamma_rejected=0.7)
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, settings=settings)
    batch = batch_of(trainer)
    trainer.model.train()
    found = trainer.row_losses(trainer.model, batch).losses
    expected = torch.full((4,), 0.6931472, dtype=found.dtype)  # DPO, before the first step
    heads = trainer._heads
    for pair in range(4):
        for side, chosen, gamma in (("chosen", True, 0.3), ("rejected", False, 0.7)):
            mine = (batch["degree_pair"] == pair) & (batch["degree_chosen"] == chosen)
            row_losses = []
            for row in mine.nonzero()[:, 0].tolist():
                ids = batch["degree_input_ids"][row][batch["degree_attention_mask"][row].bool()]
                state = trainer.model(ids[None], output_hidden_states=True).hidden_states[-1][0, -1]
                logits = heads[0 if chosen else 1].layers(state)
                row_losses.append(F.cross_entropy(logits[None], batch["degree_of"][row : row + 1]))
            assert len(row_losses) >= 2, side
            expected[pair] += gamma * torch.stack(row_losses).mean()
    assert torch.allclose(found, expected, rtol=1e-5)


def test_every_objective_trains_beside_it(tokenizer, tmp_path):
    """On pairs; those that single completions alone can train (KTO) are in the next test."""
    trainer = spo(llama(tokenizer), tokenizer, tmp_path)
    batch = batch_of(trainer)
    trainer.model.train()
    weight = trainer._heads[0].layers[-1].weight
    of_completions = []
    for name in OBJECTIVES:
        trainer.objective = objective = OBJECTIVES.build(name)
        if objective.needs_mismatched:
            of_completions.append(name)
            continue
        scores = {"chosen_score": torch.full((4,), 2.0), "rejected_score": torch.full((4,), 1.0)}
        trainer.model.zero_grad()
        found = trainer.row_losses(trainer.model, {**batch, **scores})
        found.losses.sum().backward()
        assert torch.isfinite(found.losses).all(), name
        assert weight.grad.abs().sum() > 0, name
        assert {"spo/loss/chosen", "spo/accuracy/rejected"} <= found.metrics.keys()
    assert of_completions == ["kto"]


@pytest.mark.parametrize("objective", ["kto", "bco_pair"])
@pytest.mark.parametrize("sides", ["both", "chosen"])
def test_single_completions(tokenizer, tmp_path, objective, sides):
    """The loss of a completion is its own plus gamma times the mean cross-entropy over its versions; by hand."""
    settings = SpoSettings(versions=DegreeSettings(extractor="tfidf", degrees=3, sides=sides), gamma=0.3)
    given = {"objective": objective}
    trainer = spo(llama(tokenizer), tokenizer, tmp_path / "a", cls=UnpairedSPOTrainer, settings=settings, options=given)
    plain = spo(llama(tokenizer), tokenizer, tmp_path / "b", cls=UnpairedTrainer, options=given)
    batch, other = batch_of(trainer), batch_of(plain)
    assert torch.equal(batch["input_ids"], other["input_ids"])
    for each in (trainer, plain):
        each.model.train()
    expected = plain.row_losses(plain.model, other).losses.detach().clone()
    for number in range(len(expected)):
        mine = (batch["degree_pair"] == number) & (batch["degree_chosen"] == batch["desirable"][number])
        if sides == "chosen" and not batch["desirable"][number]:
            continue
        head = trainer._heads[0 if batch["desirable"][number] else -1]
        found = []
        for row in mine.nonzero()[:, 0].tolist():
            ids = batch["degree_input_ids"][row][batch["degree_attention_mask"][row].bool()]
            state = trainer.model(ids[None], output_hidden_states=True).hidden_states[-1][0, -1]
            found.append(F.cross_entropy(head.layers(state)[None], batch["degree_of"][row : row + 1]))
        expected[number] += 0.3 * torch.stack(found).mean()
    assert torch.allclose(trainer.row_losses(trainer.model, batch).losses, expected, rtol=1e-5)
    trainer.train()
    measured = trainer.evaluate()
    assert {"eval_auc", "eval_spo/accuracy/chosen", "eval_spo/rank_correlation/chosen"} <= measured.keys()
    assert ("eval_spo/accuracy/rejected" in measured) == (sides == "both")


def test_a_batch_without_a_row_of_the_degraded_side(tokenizer, tmp_path):
    versions = DegreeSettings(extractor="tfidf", degrees=3, sides="chosen")
    negatives = datasets.Dataset.from_list(
        [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in rows(3)]
        + [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in rows(1)]
    )
    given = {"objective": "bco_pair", "train_dataset": negatives, "eval_dataset": None}
    settings = SpoSettings(versions=versions, gamma=1.0)
    trainer = spo(
        llama(tokenizer),
        tokenizer,
        tmp_path,
        cls=UnpairedSPOTrainer,
        settings=settings,
        options=given,
        per_device_train_batch_size=1,
        max_steps=4,
    )
    trainer.train()
    found = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(entry["loss"]) for entry in found)
    assert sum("spo/loss/chosen" in entry for entry in found) == 1


def test_what_a_subclass_reads_is_computed(tokenizer, tmp_path):
    """An objective that reads the chosen alone, and a loss of one's own that reads both sides."""

    class Own(SPOTrainer):
        def objective_loss(self, policy, reference, batch):
            return policy.rejected.summed().logps - policy.chosen.summed().logps

    trainer = spo(llama(tokenizer), tokenizer, tmp_path, cls=Own, options={"objective": "sft"}, max_steps=2)
    trainer.train()
    assert "rewards/margins" in trainer.state.log_history[0]
    assert losses(trainer)[0] != pytest.approx(0.0)


def test_gamma_of_0_is_the_objective_alone(tokenizer, tmp_path):
    alone = spo(llama(tokenizer), tokenizer, tmp_path / "a", cls=PairTrainer)
    beside = spo(llama(tokenizer), tokenizer, tmp_path / "b", settings=SpoSettings(versions=VERSIONS, gamma=0.0))
    for trainer in (alone, beside):
        trainer.train()
    assert losses(alone) == pytest.approx(losses(beside), rel=1e-6)


def test_a_detached_head_leaves_the_policy_alone(tokenizer, tmp_path):
    """Clipping, which is on by default, included: the norm is the policy's own."""
    settings = SpoSettings(versions=VERSIONS, head=DegreeHeadSettings(detached=True, depth=2, pooling="mean"))
    alone = spo(llama(tokenizer), tokenizer, tmp_path / "a", cls=PairTrainer)
    beside = spo(llama(tokenizer), tokenizer, tmp_path / "b", settings=settings)
    first = beside._heads[0].layers[0].weight.detach().clone()
    for trainer in (alone, beside):
        trainer.train()
    for a, b in zip(alone.model.parameters(), beside.model.parameters(), strict=False):
        assert torch.allclose(a, b, atol=1e-6)
    assert not torch.equal(first, beside._heads[0].layers[0].weight)


@pytest.mark.parametrize("loss", ["cross_entropy", "coral"])
def test_what_is_logged(tokenizer, tmp_path, loss):
    settings = SpoSettings(versions=VERSIONS, loss=loss, head=DegreeHeadSettings(shared=True))
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, settings=settings)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "spo/accuracy/chosen" in entry)
    assert 0 <= entry["spo/accuracy/chosen"] <= 1
    assert 1 / 3 <= entry["spo/chance/chosen"] <= 1
    assert "spo/logps/chosen_0" not in entry  # of evaluations alone
    found = trainer.evaluate()
    for side in ("chosen", "rejected"):
        assert found[f"eval_spo/logps/{side}_0"] == pytest.approx(found[f"eval_logps/{side}"], rel=1e-5)
        assert found[f"eval_spo/mean_logps/{side}_1"] < 0
        assert -1 <= found[f"eval_spo/rank_correlation/{side}"] <= 1


def test_one_side_alone(tokenizer, tmp_path):
    settings = SpoSettings(versions=DegreeSettings(extractor="tfidf", degrees=3, sides="chosen"))
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, settings=settings)
    assert not any("rejected" in name for name in trainer.evaluate() if name.startswith("eval_spo"))


def test_surprisal_is_that_of_the_model_at_the_start(tokenizer, tmp_path):
    settings = SpoSettings(versions=DegreeSettings(extractor="surprisal", degrees=3))
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, settings=settings)
    row = trainer.train_dataset[0]
    assert any(0 < len(ids) < len(row["chosen_ids"]) for ids in row["chosen_versions"])


@pytest.mark.parametrize("lora", [False, True])
def test_heads_are_kept_continued_and_not_exported(tokenizer, tmp_path, lora):
    options = {"peft_config": LORA} if lora else {}
    kept = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = spo(llama(tokenizer), tokenizer, tmp_path / "a", options=options, **kept)
    whole.train()
    folder = tmp_path / "a" / "checkpoint-2"
    assert len(load_file(folder / HEAD_FILE)) == 4  # two heads of a weight and a bias
    again = spo(llama(tokenizer), tokenizer, tmp_path / "b", options=options, **kept)
    again.train(resume_from_checkpoint=str(folder))
    assert losses(whole)[-1] == pytest.approx(losses(again)[-1], rel=1e-6)
    for a, b in zip(whole._heads.parameters(), again._heads.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)
    whole.save_model(str(tmp_path / "model"))
    (file,) = (tmp_path / "model").glob("*.safetensors")
    assert not any("degree_head" in name for name in load_file(file))
    plain = spo(llama(tokenizer), tokenizer, tmp_path / "c", cls=PairTrainer, options=options, **kept)
    plain.train()
    with pytest.raises(ValueError, match=r"holds no degree_head.safetensors: the run it is of had no degree heads"):
        again.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-2"))


def test_the_heads_have_a_learning_rate_of_their_own(tokenizer, tmp_path):
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, learning_rate=1e-5)
    optimizer = trainer.create_optimizer()
    own = {id(parameter) for parameter in trainer._heads.parameters()}
    rates = {group["lr"] for group in optimizer.param_groups for p in group["params"] if id(p) in own}
    assert rates == {1e-3}
    together = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(together) == len(set(together))
    assert {group["lr"] for group in optimizer.param_groups for p in group["params"] if id(p) not in own} == {1e-5}


def test_entanglement_is_measured_of_the_pairs_alone(tokenizer, tmp_path):
    """Versions are rows that do not factor: the figures are those of a run without them, and no fall-back is needed."""
    diagnostics = DiagnosticsSettings(entanglement=EntanglementSettings(every=1, pairs=None), verify=True)
    figures = []
    for folder, cls in (("a", PairTrainer), ("b", SPOTrainer)):
        trainer = spo(
            llama(tokenizer),
            tokenizer,
            tmp_path / folder,
            cls=cls,
            options={"diagnostics": diagnostics},
            max_steps=1,
        )
        trainer.train()
        entry = next(e for e in trainer.state.log_history if "entanglement/cosine" in e)
        figures.append({name: value for name, value in entry.items() if name.startswith("entanglement/")})
    for name in ("entanglement/cosine", "entanglement/norm_ratio", "entanglement/coverage"):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-5)


def test_a_layer_that_is_not_there(tokenizer, tmp_path):
    settings = SpoSettings(versions=VERSIONS, head=DegreeHeadSettings(layer=7))
    with pytest.raises(ValueError, match=r"spo.head.layer 7: the model has 2 layers"):
        spo(llama(tokenizer), tokenizer, tmp_path, settings=settings)


def test_rows_may_bring_versions_of_their_own(tokenizer, tmp_path):
    first = spo(llama(tokenizer), tokenizer, tmp_path / "a")
    given = datasets.Dataset.from_list([dict(row) for row in first.train_dataset])
    trainer = SPOTrainer(
        llama(tokenizer),
        arguments(tmp_path / "b"),
        train_dataset=given,
        processing_class=tokenizer,
        spo=SpoSettings(versions=VERSIONS),
    )
    assert json.dumps(trainer.train_dataset[0]["chosen_versions"]) == json.dumps(given[0]["chosen_versions"])
    more = SpoSettings(versions=DegreeSettings(extractor="tfidf", degrees=5))
    with pytest.raises(
        ValueError, match=r"train_dataset, row 0: column 'chosen_versions' has 2 versions, .* degrees to 3"
    ):
        spo(llama(tokenizer), tokenizer, tmp_path / "c", settings=more, options={"train_dataset": given})


@pytest.mark.parametrize(
    ("objective", "label", "message"),
    [
        ("npo", None, r"'npo' trains on undesirable completions alone, .* set spo.versions.sides to rejected"),
        ("bco_pair", True, r"no row is undesirable, and spo.versions.sides=both .* set it to chosen"),
    ],
)
def test_versions_of_completions_that_nothing_trains_on(tokenizer, tmp_path, objective, label, message):
    train = rows(4)
    if label is not None:
        same = [{"prompt": row["prompt"], "completion": row["chosen"], "label": label} for row in train]
        train = datasets.Dataset.from_list(same)
    given = {"objective": objective, "train_dataset": train, "eval_dataset": None}
    with pytest.raises(ValueError, match=message):
        spo(llama(tokenizer), tokenizer, tmp_path, cls=UnpairedSPOTrainer, options=given)
