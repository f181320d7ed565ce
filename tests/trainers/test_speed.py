"""``speed`` in trainers: same training, refusals in words, what the first batch decides, all rows and all trainers."""

import math

import datasets
import pytest
import torch
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from align import PairTrainer, SPOTrainer, UnpairedTrainer
from align.data.packing import prefix_of
from align.models.adapters import add_adapter
from align.models.tiled_head import Tiles
from align.objectives.base import Objective
from align.objectives.logps import SequenceLogps
from align.objectives.registry import OBJECTIVES
from align.recipe.d2o import D2oSettings
from align.recipe.speed import OFF, SpeedSettings
from align.recipe.spo import DegreeHeadSettings, DegreeSettings, SpoSettings
from align.trainers.d2o import D2OTrainer
from align.trainers.speed import Speed
from tests.conftest import arguments, pair_rows, tiny_config

ON = SpeedSettings(sharing=True, packing=True, tiling=True, cache=False)
LORA = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
PAIRED = [name for name in OBJECTIVES if not OBJECTIVES.build(name).needs_mismatched]


def fresh(tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(tokenizer, initializer_range=0.2))


def data(count=12):
    made = [{**row, "chosen_score": 0.5 + i / 30, "rejected_score": 0.1} for i, row in enumerate(pair_rows(count))]
    return datasets.Dataset.from_list(made)


def trained(tokenizer, folder, speed, *, cls=PairTrainer, model=None, **options):
    trainer = cls(
        fresh(tokenizer) if model is None else model,
        arguments(folder, max_steps=3, learning_rate=1e-3, logging_steps=1),
        train_dataset=data(),
        eval_dataset=data(),
        processing_class=tokenizer,
        speed=speed,
        **options,
    )
    trainer.train()
    return trainer


def logged(trainer):
    metrics = [
        {
            name: value
            for name, value in entry.items()
            if name.startswith(("loss", "grad_norm", "logps", "spo/", "rewards"))
        }
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    torch.manual_seed(0)  # of objectives that draw
    evaluated = trainer.evaluate()
    return [*metrics, {name: v for name, v in evaluated.items() if "second" not in name and "runtime" not in name}]


def same_training(one, other):
    for mine, plain in zip(logged(one), logged(other), strict=True):
        drop = {"eval_padding_fraction", "eval_shared_fraction"}
        if abs(plain.get("rewards/margins", 1.0)) < 1e-5:  # signs of rounding
            drop |= {"rewards/accuracies"}
        for name in (mine.keys() | plain.keys()) - drop:
            assert mine[name] == pytest.approx(plain[name], rel=1e-4, abs=2e-5, nan_ok=True), name


@pytest.mark.parametrize("objective", PAIRED)
def test_every_objective_trains_the_same(tokenizer, tmp_path, objective):
    runs = [trained(tokenizer, tmp_path / str(i), s, objective=objective) for i, s in enumerate((ON, OFF))]
    assert (runs[0].speed.packs, runs[0].speed.tiles) == (True, True)
    assert (runs[1].speed.packs, runs[1].speed.tiles) == (False, False)
    same_training(*runs)


@pytest.mark.parametrize(
    "settings",
    [
        SpeedSettings(sharing=False, packing=True, tiling=False, cache=False),
        SpeedSettings(sharing=True, packing=False, tiling=False, cache=False),
        SpeedSettings(sharing=False, packing=False, tiling=True, cache=False),
        SpeedSettings(sharing=True, packing=True, token_budget=100, tiling=False, cache=False),
    ],
)
def test_every_switch_alone(tokenizer, tmp_path, settings):
    same_training(*(trained(tokenizer, tmp_path / str(i), s) for i, s in enumerate((settings, OFF))))


def spo(tokenizer, folder, speed, pooling, *, detached=False):
    versions = DegreeSettings(extractor="tfidf", degrees=3)
    settings = SpoSettings(versions=versions, head=DegreeHeadSettings(pooling=pooling, detached=detached))
    return trained(tokenizer, folder, speed, cls=SPOTrainer, spo=settings)


@pytest.mark.parametrize(("pooling", "detached"), [("last", False), ("mean", False), ("mean", True)])
def test_preference_degrees(tokenizer, tmp_path, pooling, detached):
    """Versions share the prompt and what they begin with; their hidden states are found again."""
    same_training(*(spo(tokenizer, tmp_path / str(i), s, pooling, detached=detached) for i, s in enumerate((ON, OFF))))


@pytest.mark.parametrize("reference", ["same", "base"])
@pytest.mark.parametrize("objective", ["d2o", "npo"])
def test_negatives_and_samples(tokenizer, tmp_path, reference, objective):
    if objective == "npo" and reference == "base":
        pytest.skip("npo reads no sample")
    settings = D2oSettings(samples=3, max_new_tokens=6, batch_size=4, samples_reference=reference)
    options = {"cls": D2OTrainer, "d2o": settings, "objective": objective}
    same_training(*(trained(tokenizer, tmp_path / str(i), s, **options) for i, s in enumerate((ON, OFF))))


@pytest.mark.parametrize("objective", ["kto", "bco_pair"])
def test_single_completions(tokenizer, tmp_path, objective):
    options = {"cls": UnpairedTrainer, "objective": objective}
    same_training(*(trained(tokenizer, tmp_path / str(i), s, **options) for i, s in enumerate((ON, OFF))))


def test_what_is_shared_is_logged(tokenizer, tmp_path):
    on, off = (trained(tokenizer, tmp_path / str(i), s) for i, s in enumerate((ON, OFF)))
    shares = [next(e for e in run.state.log_history if "loss" in e) for run in (on, off)]
    assert shares[0]["padding_fraction"] == 0
    assert shares[0]["shared_fraction"] > 0.3
    assert shares[1]["padding_fraction"] > 0
    assert shares[1]["shared_fraction"] == 0
    assert any("positions instead of" in note for note in on.speed.notes)


class OwnForward(PairTrainer):
    def forward_logps(self, model, batch):
        return super().forward_logps(model, batch)


def test_a_forward_of_ones_own_gets_rows(tokenizer, tmp_path):
    trainer = trained(tokenizer, tmp_path, None, cls=OwnForward)
    assert not trainer.speed.packs
    assert "OwnForward has a forward_logps of its own" in trainer.speed.notes[0]
    with pytest.raises(ValueError, match=r"speed.sharing: true cannot be had: OwnForward has a forward_logps"):
        trained(tokenizer, tmp_path, ON, cls=OwnForward)


def test_models_that_attend_otherwise(tokenizer, tmp_path):
    eager = LlamaForCausalLM._from_config(tiny_config(tokenizer), attn_implementation="eager")
    found = trained(tokenizer, tmp_path / "eager", None, model=eager)
    assert (found.speed.packs, found.speed.tiles) == (False, True)
    assert "attn_implementation is 'eager'" in " ".join(found.speed.notes)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes))
    with pytest.raises(ValueError, match=r"speed.sharing: true cannot be had: MambaForCausalLM carries a state"):
        Speed(ON, policy=mamba)
    falcon = AutoConfig.for_model("falcon", vocab_size=99, hidden_size=32, num_attention_heads=4, num_hidden_layers=1)
    speed = Speed(policy=AutoModelForCausalLM.from_config(falcon))
    assert not speed.packs
    assert "FalconForCausalLM has an attention of its own" in speed.notes[0]


def settled(settings, results, positions=(100, 10), gather=lambda x: x, *, exact=True, tokens=1):
    """Return a speed that has seen a batch whose forwards give these results: plain, packed, tiled."""
    speed = Speed(settings)

    def forward():
        kind = "plain" if not speed.active else "packed" if speed.packs else "tiled"
        found = results[kind]
        if isinstance(found, Exception):
            raise found
        logps = torch.tensor(found)
        return [SequenceLogps(logps=logps, lengths=torch.full_like(logps, tokens, dtype=torch.long))]

    def whole():
        raise AssertionError("all rows are not computed for a check")

    speed.settle(forward, whole, positions=positions, gather=gather, exact=exact, device=torch.device("cpu"))
    return speed


PLAIN = [-10.0, -200.0]


def test_the_first_batch_decides():
    speed = settled(SpeedSettings(), {"plain": PLAIN, "packed": PLAIN, "tiled": PLAIN})
    assert (speed.packs, speed.tiles, speed.settled) == (True, True, True)
    wrong = {"plain": PLAIN, "packed": [-10.0, -201.0], "tiled": PLAIN}
    speed = settled(SpeedSettings(), wrong)
    assert (speed.packs, speed.tiles) == (False, True)
    assert "differ by 5.0e-03" in " ".join(speed.notes)
    assert "rows laid out as trees" not in " ".join(speed.notes)
    with pytest.raises(ValueError, match=r"speed.sharing: true cannot be had"):
        settled(SpeedSettings(sharing=True), wrong)
    speed = settled(SpeedSettings(), {"plain": PLAIN, "packed": PLAIN, "tiled": RuntimeError("no such head")})
    assert (speed.packs, speed.tiles) == (True, False)
    assert "RuntimeError: no such head" in " ".join(speed.notes)
    with pytest.raises(ValueError, match=r"speed.tiling: true cannot be had"):
        settled(SpeedSettings(tiling=True), {"plain": PLAIN, "packed": PLAIN, "tiled": [math.nan, 0.0]})


@pytest.mark.parametrize(
    ("gap", "tokens", "exact", "passes"),
    [
        (1e-3, 1, True, True),  # 5e-6 of 200 nats
        (4e-3, 1, True, False),
        (4e-3, 250, True, True),  # a hundred-thousandth of a nat a token passes for rounding
        (1.0, 1, False, True),
        (8.0, 1, False, False),
    ],
)
def test_what_passes_for_rounding(gap, tokens, exact, passes):
    results = {"plain": PLAIN, "packed": [-10.0, -200.0 - gap], "tiled": PLAIN}
    assert settled(SpeedSettings(), results, exact=exact, tokens=tokens).packs is passes


@pytest.mark.parametrize("error", [IndexError("out of range"), KeyError("layer"), AssertionError()], ids=repr)
def test_any_error_of_a_model_turns_it_off_in_words(error):
    speed = settled(SpeedSettings(), {"plain": PLAIN, "packed": error, "tiled": PLAIN})
    assert (speed.packs, speed.tiles) == (False, True)
    assert f"a row each: {type(error).__name__}:" in " ".join(speed.notes)
    with pytest.raises(ValueError, match=r"speed.packing: true cannot be had"):
        settled(SpeedSettings(packing=True), {"plain": PLAIN, "packed": error, "tiled": PLAIN})


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("can't allocate memory: x")])
def test_no_memory_is_no_reason(error):
    with pytest.raises(type(error), match="memory"):
        settled(SpeedSettings(), {"plain": PLAIN, "packed": PLAIN, "tiled": error})


def test_packs_are_checked_with_the_tiles_that_were_accepted():
    seen = []
    speed = Speed(SpeedSettings())

    def few():
        seen.append((speed.active, speed.packs, speed.tiles))
        return []

    speed.settle(few, few, positions=(100, 10), gather=lambda x: x, exact=True, device=torch.device("cpu"))
    assert seen == [(False, True, True), (True, False, True), (True, True, True)]


def test_processes_decide_together():
    others = torch.tensor([torch.inf])
    speed = settled(
        SpeedSettings(tiling=False), {"plain": PLAIN, "packed": PLAIN}, gather=lambda x: torch.cat([x, others])
    )
    assert not speed.packs


def test_what_does_not_save_positions_is_not_packed():
    results = {"plain": PLAIN, "packed": PLAIN}
    speed = settled(SpeedSettings(tiling=False), results, positions=(101, 100))
    assert not speed.packs
    assert "it does not pay here" in speed.notes[-1]
    assert settled(SpeedSettings(tiling=False), results, positions=(103, 100)).packs
    assert settled(SpeedSettings(sharing=True, tiling=False), results, positions=(100, 100)).packs


def test_gpus_are_timed_where_little_is_saved(monkeypatch):
    ticks = iter([0, 1, 1, 3, 3, 4, 4, 6])  # padded takes 1, packed takes 2
    monkeypatch.setattr("align.trainers.speed._now", lambda device: next(ticks))
    speed = Speed(SpeedSettings(tiling=False))
    seen = []
    speed._time(lambda: seen.append((speed.packs, speed.active)), gather=lambda x: x, device=torch.device("cpu"))
    assert not speed.packs
    assert "0.50 times as fast" in " ".join(speed.notes)
    assert seen == [(False, False), (True, True)] * 2  # tiling is off here, and stays what it is


def test_gpus_are_timed_with_heads_alike(monkeypatch):
    monkeypatch.setattr("align.trainers.speed._now", lambda device: 0.0)
    speed, seen = Speed(), []
    speed._time(lambda: seen.append((speed.packs, speed.tiles, speed.active)), lambda x: x, torch.device("cpu"))
    assert seen == [(False, True, True), (True, True, True)] * 2


def test_a_run_that_is_continued_goes_on_as_it_was(tmp_path):
    results = {"plain": PLAIN, "packed": PLAIN, "tiled": PLAIN}
    settled(SpeedSettings(), results, positions=(101, 100)).save(tmp_path / "padded")
    settled(SpeedSettings(), results).save(tmp_path / "packed")
    for name, packs in (("padded", False), ("packed", True)):
        speed = Speed()
        speed.load(tmp_path / name)
        assert (speed.packs, speed.tiles) == (packs, True)
    speed._weigh(lambda: [], (100, 100), lambda x: x, torch.device("cpu"))  # packed, whatever its first batch is like
    assert speed.packs


def test_what_a_recipe_asks_for_stands_when_a_run_is_continued(tmp_path):
    """A checkpoint that went without is no reason to go on so in silence."""
    wrong = {"plain": PLAIN, "packed": [-11.0, -200.0], "tiled": [-11.0, -200.0]}
    settled(SpeedSettings(), wrong).save(tmp_path)
    for asked, kept in (
        (SpeedSettings(), (False, False)),
        (SpeedSettings(packing=True), (True, False)),
        (SpeedSettings(sharing=True, tiling=True), (True, True)),
    ):
        speed = Speed(asked)
        speed.load(tmp_path)
        assert (speed.packs, speed.tiles) == kept


HEADS = {
    "whole": {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
    "lora": {"target_modules": ["lm_head"]},
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_that_are_no_plain_layer_are_not_said_to_be_tiled(tokenizer, tmp_path, kind):
    def model():
        torch.manual_seed(0)
        plain = LlamaForCausalLM(tiny_config(tokenizer, tie_word_embeddings=False))
        return add_adapter(plain, LoraConfig(r=2, task_type="CAUSAL_LM", **HEADS[kind]))

    found = trained(tokenizer, tmp_path, SpeedSettings(cache=False), model=model())
    assert not found.speed.tiles
    notes = " ".join(found.speed.notes)
    assert "at once: the head is no plain linear layer" in notes
    assert "by tiles" not in notes
    with pytest.raises(ValueError, match=r"speed.tiling: true cannot be had: the head is no plain linear layer"):
        trained(tokenizer, tmp_path, ON, model=model())


def test_collators_lay_nothing_out_once_packing_is_off(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("align.trainers.speed._gap", lambda one, other: 1.0)
    trainer = trained(tokenizer, tmp_path, SpeedSettings(cache=False))
    assert not trainer.speed.packs
    assert trainer.data_collator.packing is None
    assert not [name for name in next(iter(trainer.get_train_dataloader())) if name.startswith("packed_")]


class Largest(TorchDispatchMode):
    """Notes the most numbers that a tensor has which is made inside."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor):
                self.count = max(self.count, each.untyped_storage().nbytes() // each.element_size())
        return found


@pytest.mark.parametrize("objective", ["dpo", "simpo", "wpo"])
@pytest.mark.parametrize("adapters", [False, True])
def test_no_table_of_tokens_and_vocabulary(tokenizer, tmp_path, monkeypatch, objective, adapters):
    """Not in a step, and not in the check on the first batch; without tiles there is one."""
    tiles = Tiles(tokens=16, vocabulary=256, kept=0)
    monkeypatch.setattr(Tiles, "on", classmethod(lambda cls, device: tiles))
    found = {}
    for name, tiling in (("tiles", True), ("table", False)):
        torch.manual_seed(0)
        config = tiny_config(tokenizer, vocab_size=8192, hidden_size=8, intermediate_size=16)
        trainer = PairTrainer(
            LlamaForCausalLM(config),
            arguments(tmp_path / name, per_device_train_batch_size=12),
            objective=objective,
            train_dataset=data(),
            processing_class=tokenizer,
            speed=SpeedSettings(sharing=True, packing=True, tiling=tiling, cache=False),
            peft_config=LORA if adapters else None,
        )
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.train()
        with Largest() as largest:
            trainer.training_step(trainer.model, batch, num_items_in_batch=batch["weight"].sum())
        found[name] = largest.count
    table = len(batch[f"{prefix_of(('chosen', 'rejected'))}targets"]) * 8192
    assert found["table"] >= table
    assert found["tiles"] < table / 2


def test_remedies_read_single_rows(tokenizer, tmp_path):
    from align.recipe.disentangle import Normalise

    trainer = trained(tokenizer, tmp_path, None, disentangle=Normalise())
    assert not trainer.speed.packs
    assert "disentangle reads single rows" in trainer.speed.notes[0]


def test_references_of_another_architecture(tokenizer, tmp_path):
    """Each is run as it can be; the first batch compares both."""

    def other(implementation):
        torch.manual_seed(1)
        config = tiny_config(tokenizer, num_hidden_layers=1)
        return LlamaForCausalLM._from_config(config, attn_implementation=implementation)

    runs = [trained(tokenizer, tmp_path / str(i), s, reference=other("sdpa")) for i, s in enumerate((ON, OFF))]
    same_training(*runs)
    assert not trained(tokenizer, tmp_path / "eager", None, reference=other("eager")).speed.packs


def test_objectives_declare_what_they_read():
    assert all(isinstance(OBJECTIVES.build(name), Objective) for name in PAIRED)


class Reads(TorchDispatchMode):
    """Counts how often a number is read off a tensor, for which a GPU has to be waited."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pairs", [2, 6])
def test_what_a_batch_waits_for(tokenizer, tmp_path, pairs):
    """Widths of both sides, for policy and reference; not one number a row, a token or a metric."""
    kept = SpeedSettings(sharing=True, packing=True, tiling=True, cache=True)
    trainer = PairTrainer(
        fresh(tokenizer),
        arguments(tmp_path, per_device_train_batch_size=pairs),
        train_dataset=data(),
        processing_class=tokenizer,
        speed=kept,
    )
    trainer.keep_reference()
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.training_step(trainer.model, batch, num_items_in_batch=batch["weight"].sum())  # the first decides
    with Reads() as reads:
        trainer.training_step(trainer.model, batch, num_items_in_batch=batch["weight"].sum())
    assert reads.count <= 8
