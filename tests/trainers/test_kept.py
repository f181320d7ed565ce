"""The reference on disk: the same training, nothing computed twice, checked, written as it goes."""

import copy

import datasets
import numpy as np
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
from tests.conftest import arguments, pair_rows, tiny_config
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


@pytest.mark.parametrize("there", [False, True])
def test_sequences_that_several_rows_have(tokenizer, tmp_path, there):
    """One prompt and chosen response beside several rejected ones, and a pair twice; some of it kept before."""
    same = pair_rows(6)
    for row in same[:4]:
        row["prompt"], row["chosen"] = same[0]["prompt"], same[0]["chosen"]
    rows = datasets.Dataset.from_list([*same, same[5], same[5]])
    if there:
        trained(tokenizer, tmp_path / "before", train=rows.select([0, 7]))
    run = trained(tokenizer, tmp_path / "run", train=rows)
    plain = trained(tokenizer, tmp_path / "plain", OFF, train=rows)
    assert isinstance(run.reference, KeptReference)
    same_training(run, plain)


def test_rows_that_are_new_are_computed_alone(tokenizer, tmp_path, monkeypatch):
    trained(tokenizer, tmp_path / "first")
    counted = Counted(monkeypatch)
    rows = datasets.concatenate_datasets([data(), datasets.Dataset.from_list(scored_alike(1))])
    trained(tokenizer, tmp_path / "second", train=rows)
    assert counted.sequences == [2]


def scored_alike(count):
    rows = [{**row, "prompt": [{"role": "user", "content": "A prompt that is new?"}]} for row in pair_rows(count)]
    return [{**row, "chosen_score": 0.5, "rejected_score": 0.1} for row in rows]


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


class Numbered:
    """What a launch of two processes gathers, as this one sees it, and the other one with a number of its own."""

    def __init__(self, accelerator, other):
        self.accelerator, self.other = accelerator, other

    def __getattr__(self, name):
        return getattr(self.accelerator, name)

    def gather(self, mine):
        return torch.cat([mine, torch.full_like(mine, self.other)])


def test_a_process_that_does_not_see_the_files_of_another(tokenizer, tmp_path, monkeypatch):
    """Under auto nothing is kept, and the run trains; where it must be, it is an error."""
    real = kept.Keeper.__init__

    def init(self, reference, policy, accelerator, speed):
        real(self, reference, policy, accelerator, speed)
        self.accelerator = Numbered(accelerator, 3)

    monkeypatch.setattr(kept.Keeper, "__init__", init)
    monkeypatch.setattr(kept, "WAITS", (0.0, 0.0))
    trainer = trained(tokenizer, tmp_path, SpeedSettings())
    assert not isinstance(trainer.reference, KeptReference)
    assert "does not see 3 sequences" in " ".join(trainer.speed.notes)
    with pytest.raises(ValueError, match=r"speed.cache: true cannot be had: a process does not see 3 sequences"):
        trained(tokenizer, tmp_path)


def test_the_first_process_decides_what_is_missing(tokenizer, tmp_path, monkeypatch):
    """One that looked earlier than it looks again, and computes what all others do."""
    trainer = made(tokenizer, tmp_path)
    keeper = trainer.keep_reference()
    part = list(trainer.sequences_of(trainer.train_dataset))
    early = LogpStore(tmp_path / "nothing")
    early.folder = keeper.store.folder
    keeper.store = early
    monkeypatch.setattr(kept, "broadcast_object_list", lambda found: [[]])
    assert len(early.missing(part)) > 0
    assert keeper._missing(part) == []
    assert early.missing(part) == []


def test_what_is_not_finite_is_not_kept(tokenizer, tmp_path, monkeypatch):
    real = kept.logps_of

    def broken(*args, **options):
        for batch in real(*args, **options):
            yield [(i, logp * (torch.nan if i == 3 else 1.0)) for i, logp in batch]

    monkeypatch.setattr(kept, "logps_of", broken)
    trainer = trained(tokenizer, tmp_path, SpeedSettings())
    assert not isinstance(trainer.reference, KeptReference)
    assert "log-probabilities of 1 sequences are not finite" in " ".join(trainer.speed.notes)


def test_kept_values_that_are_not_numbers_are_computed_again(tokenizer, tmp_path, monkeypatch, capsys):
    trained(tokenizer, tmp_path / "first")
    real = LogpStore.get
    with monkeypatch.context() as broken:
        broken.setattr(LogpStore, "get", lambda self, some: [values * np.nan for values in real(self, some)])
        trainer = made(tokenizer, tmp_path / "second")
        keeper = kept.Keeper(trainer.reference, trainer.model, trainer.accelerator, trainer.speed)
        keeper.keep(trainer.sequences_of(trainer.train_dataset), "again")
    assert "is computed again" in capsys.readouterr().out


@pytest.mark.parametrize("error", [IndexError("no such position"), KeyError("layer"), AssertionError()], ids=repr)
def test_models_that_fail_on_a_layout_are_computed_plainly(tokenizer, tmp_path, monkeypatch, error):
    real = kept.logps_of

    def failing(*args, **options):
        if options["lay_out"] is not None:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(kept, "logps_of", failing)
    assert isinstance(made(tokenizer, tmp_path, SpeedSettings()).keep_reference(), kept.Keeper)
    error = torch.OutOfMemoryError("no memory")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "another"))
    with pytest.raises(torch.OutOfMemoryError):
        made(tokenizer, tmp_path, SpeedSettings()).keep_reference()


def test_samples_have_a_reference_that_is_another_model(tokenizer, tmp_path):
    """It differs from the policy by nats at the start, kept or not."""
    other = copy.deepcopy(fresh(tokenizer))
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    settings = D2oSettings(samples=3, max_new_tokens=6, batch_size=4)
    options = {"cls": D2OTrainer, "d2o": settings, "objective": "d2o"}
    runs = [
        trained(tokenizer, tmp_path / str(i), s, samples_reference=copy.deepcopy(other), **options)
        for i, s in enumerate((SpeedSettings(), OFF))
    ]
    same_training(*runs)
    assert isinstance(runs[0].samples_reference, KeptReference)


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


@pytest.mark.parametrize("options", [{}, {"peft_config": LORA}], ids=["frozen", "adapters"])
@pytest.mark.parametrize("setting", ["auto", True])
def test_rows_that_come_later_are_computed_then(tokenizer, tmp_path, monkeypatch, options, setting):
    """The reference's weights are put by, not lost; the policy has moved meanwhile."""
    speed = SpeedSettings(sharing=False, packing=False, tiling=False, cache=setting)
    runs = [trained(tokenizer, tmp_path / str(i), s, **options) for i, s in enumerate((speed, OFF))]
    assert isinstance(runs[0].reference, KeptReference)
    counted = Counted(monkeypatch)
    found = []
    for trainer in runs:
        rows = datasets.Dataset.from_list(scored_alike(4))
        found.append([trainer.evaluate(rows)["eval_loss"] for _ in range(2)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert counted.sequences == [8]  # once
    assert runs[0].evaluate()["eval_loss"] == pytest.approx(logged(runs[1])[-1]["eval_loss"], rel=1e-5)


def test_objectives_without_a_reference_keep_nothing(tokenizer, tmp_path):
    assert trained(tokenizer, tmp_path, SpeedSettings(), objective="simpo").data_collator.kept is None
    with pytest.raises(ValueError, match=r"speed.cache: true cannot be had: objective 'simpo' compares with no ref"):
        trained(tokenizer, tmp_path, objective="simpo")


def test_ropes_that_read_the_longest_row_keep_nothing(tokenizer, tmp_path):
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16, "rope_theta": 1e4, "factor": 2.0}
    model = type(fresh(tokenizer))(
        tiny_config(tokenizer, rope_parameters={**rope, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4})
    )
    trainer = trained(tokenizer, tmp_path, SpeedSettings(), model=model)
    assert not isinstance(trainer.reference, KeptReference)
    assert "'longrope' depend on the longest row of a batch" in " ".join(trainer.speed.notes)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_of_two_bytes_start_where_they_are(tokenizer, tmp_path, kind):
    """Kept by packed rows and read beside padded ones: what differs is rounding, and no error."""
    packed = SpeedSettings(sharing=True, packing=True, tiling=True, cache=True)
    for i, speed in enumerate((packed, CACHE)):
        trainer = trained(tokenizer, tmp_path / str(i), speed, model=fresh(tokenizer).to(kind))
        assert isinstance(trainer.reference, KeptReference)
        assert trainer.start_margin is not None


def test_what_was_accepted_when_it_was_kept_is_no_error_at_the_start(tokenizer, tmp_path, monkeypatch):
    """4 hundredths of a nat a token pass for rounding of bfloat16, a nat a token does not."""
    real = LogpStore.get
    for shift in (0.04, 1.0):
        with monkeypatch.context() as shifted:
            trainer = made(tokenizer, tmp_path, model=fresh(tokenizer).to(torch.bfloat16))
            trainer.keep_reference()
            shifted.setattr(LogpStore, "get", lambda self, some, s=shift: [v + s for v in real(self, some)])
            if shift < 0.05:
                trainer.train()
                continue
            with pytest.raises(ValueError, match="nats before the first update"):
                trainer.train()
