"""The reference on disk: the same training, nothing computed twice, checked, written as it goes."""

import datasets
import pytest
import torch
from peft import LoraConfig

from align import PairTrainer, UnpairedTrainer
from align.data.logp_store import LogpStore
from align.models.reference import KeptReference
from align.models.sequence_logps import logps_of
from align.recipe.d2o import D2oSettings, OnlineSettings
from align.recipe.speed import OFF, SpeedSettings
from align.recipe.sync import ReferenceSyncSettings
from align.trainers import kept
from align.trainers.d2o import D2OTrainer
from tests.conftest import arguments, pair_rows
from tests.trainers.test_speed import data, fresh, logged, same_training

CACHE = SpeedSettings(sharing=False, packing=False, tiling=False, cache=True)
LORA = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))


def made(tokenizer, folder, speed=CACHE, *, cls=PairTrainer, model=None, train=None, changes=None, **options):
    return cls(
        fresh(tokenizer) if model is None else model,
        arguments(folder, **{"max_steps": 3, "learning_rate": 1e-3, "logging_steps": 1, **(changes or {})}),
        train_dataset=data() if train is None else train,
        eval_dataset=data(),
        processing_class=tokenizer,
        speed=speed,
        **options,
    )


def trained(*args, **options):
    trainer = made(*args, **options)
    trainer.train()
    return trainer


def store_of(trainer):
    return trainer.data_collator.kept


@pytest.mark.parametrize("objective", ["dpo", "ipo", "ld_dpo", "npo", "apo_zero", "cdpo"])
def test_the_same_training(tokenizer, tmp_path, objective):
    runs = [trained(tokenizer, tmp_path / str(i), s, objective=objective) for i, s in enumerate((CACHE, OFF))]
    same_training(*runs)
    assert isinstance(runs[0].reference, KeptReference)
    assert runs[0].start_margin == pytest.approx(0, abs=1e-4)


def test_with_adapters_and_packed(tokenizer, tmp_path):
    runs = [
        trained(tokenizer, tmp_path / str(i), s, peft_config=LORA)
        for i, s in enumerate((SpeedSettings(sharing=True, packing=True, tiling=True, cache=True), OFF))
    ]
    same_training(*runs)
    assert "adapters switched off" in runs[0].reference.description


class Counted:
    """Counts sequences that a keeper computes."""

    def __init__(self, monkeypatch):
        self.sequences = []
        real = kept.logps_of

        def counted(model, head, sequences, **options):
            if options["label"] != "checking":
                self.sequences.append(len(sequences))
            return real(model, head, sequences, **options)

        monkeypatch.setattr(kept, "logps_of", counted)


@pytest.mark.parametrize(
    "later",
    [
        {"changes": {"learning_rate": 1e-2}},
        {"changes": {"seed": 7}},
        {"changes": {"per_device_train_batch_size": 2}},
        {"objective": "ipo"},
        {"peft_config": LORA},
        {"train": "fewer"},
    ],
    ids=str,
)
def test_nothing_is_computed_again(tokenizer, tmp_path, monkeypatch, later):
    """Another rate, seed, batch, objective or folder; adapters on the same weights; a part of the rows."""
    trained(tokenizer, tmp_path / "first")
    counted = Counted(monkeypatch)
    later = {**later, "train": data().select(range(8))} if "train" in later else later
    again = trained(tokenizer, tmp_path / "second", **later)
    assert counted.sequences == []
    assert isinstance(again.reference, KeptReference)


def test_rows_that_are_new_are_computed_alone(tokenizer, tmp_path, monkeypatch):
    trained(tokenizer, tmp_path / "first")
    counted = Counted(monkeypatch)
    rows = datasets.concatenate_datasets([data(), datasets.Dataset.from_list(scored_alike())])
    trained(tokenizer, tmp_path / "second", train=rows)
    assert counted.sequences == [2]


def scored_alike():
    row = {**pair_rows(1)[0], "prompt": [{"role": "user", "content": "A prompt that is new?"}]}
    return [{**row, "chosen_score": 0.5, "rejected_score": 0.1}]


def test_other_weights_are_another_reference(tokenizer, tmp_path, monkeypatch):
    first = trained(tokenizer, tmp_path / "first")
    counted = Counted(monkeypatch)
    model = fresh(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    second = trained(tokenizer, tmp_path / "second", model=model)
    assert sum(counted.sequences) > 0
    assert store_of(first).folder != store_of(second).folder


def test_what_was_kept_is_checked(tokenizer, tmp_path, monkeypatch, capsys):
    first = trained(tokenizer, tmp_path / "first")
    real = LogpStore.get
    folder = store_of(first).folder

    def wrong(self, sequences):
        return [values + 1.0 for values in real(self, sequences)]

    with monkeypatch.context() as broken:
        broken.setattr(LogpStore, "get", wrong)
        keeper = kept.Keeper(made(tokenizer, tmp_path / "x").reference, first.model, first.accelerator, first.speed)
        keeper.keep(first.sequences_of(first.train_dataset), "again")
    assert "is computed again" in capsys.readouterr().out
    assert keeper.computed > 0
    assert keeper.store.folder == folder


def test_a_killed_run_loses_what_was_not_written(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SEQUENCES", 2)
    counted = Counted(monkeypatch)
    real, written = LogpStore.add, []

    def add(self, sequences, logps):
        real(self, sequences, logps)
        written.append(len(sequences))
        if sum(written) >= 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(LogpStore, "add", add)
        killed.setattr(kept, "logps_of", lambda *a, **o: logps_of(*a, **{**o, "tokens": 40}))
        with pytest.raises(KeyboardInterrupt):
            trained(tokenizer, tmp_path / "run")
    whole = sum(2 * len(rows) for rows in (data(),))
    trained(tokenizer, tmp_path / "run")
    assert 0 < sum(counted.sequences) <= whole - sum(written)


@pytest.mark.parametrize("reference", ["same", "base"])
def test_negatives_and_samples(tokenizer, tmp_path, reference):
    settings = D2oSettings(samples=3, max_new_tokens=6, batch_size=4, samples_reference=reference)
    options = {"cls": D2OTrainer, "d2o": settings, "objective": "d2o"}
    runs = [trained(tokenizer, tmp_path / str(i), s, **options) for i, s in enumerate((CACHE, OFF))]
    same_training(*runs)
    assert isinstance(runs[0].reference, KeptReference)


def test_single_completions(tokenizer, tmp_path):
    options = {"cls": UnpairedTrainer, "objective": "bco_pair"}
    same_training(*(trained(tokenizer, tmp_path / str(i), s, **options) for i, s in enumerate((CACHE, OFF))))


ONLINE = D2oSettings(samples=2, max_new_tokens=4, online=OnlineSettings(warmup=1, every=1))


class OwnForward(PairTrainer):
    def forward_logps(self, model, batch):
        return super().forward_logps(model, batch)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reference_sync": ReferenceSyncSettings(alpha=0.5, every=1)}, "the reference follows the policy"),
        ({"cls": UnpairedTrainer, "objective": "kto"}, "completions of other prompts"),
        ({"cls": OwnForward}, "OwnForward has a forward_logps of its own"),
        ({"cls": D2OTrainer, "d2o": ONLINE}, "while the policy trains"),
    ],
    ids=["sync", "kto", "forward", "online"],
)
def test_what_cannot_be_kept(tokenizer, tmp_path, options, reason):
    with pytest.raises(ValueError, match=f"speed.cache: true cannot be had: .*{reason}"):
        trained(tokenizer, tmp_path, **options)
    auto = trained(tokenizer, tmp_path, SpeedSettings(), **options)
    assert not isinstance(auto.reference, KeptReference)
    assert reason in " ".join(auto.speed.notes)


def test_short_runs_compute_what_they_see(tokenizer, tmp_path):
    """Two steps of four of twelve rows; once all are there, they are used."""
    short = {"changes": {"max_steps": 2}}
    assert not isinstance(trained(tokenizer, tmp_path / "1", SpeedSettings(), **short).reference, KeptReference)
    trained(tokenizer, tmp_path / "2", SpeedSettings(), changes={"max_steps": 3})
    assert isinstance(trained(tokenizer, tmp_path / "3", SpeedSettings(), **short).reference, KeptReference)


def test_rows_that_come_later_are_refused_in_words(tokenizer, tmp_path):
    trainer = trained(tokenizer, tmp_path)
    assert trainer.evaluate()["eval_loss"] == logged(trainer)[-1]["eval_loss"]
    later = trainer._prepared(datasets.Dataset.from_list(scored_alike()), tokenizer, trainer.args, "later", {})
    with pytest.raises(ValueError, match="give the rows to the trainer as eval_dataset"):
        trainer.evaluate(later)


def test_objectives_without_a_reference_keep_nothing(tokenizer, tmp_path):
    assert trained(tokenizer, tmp_path, SpeedSettings(), objective="simpo").data_collator.kept is None
