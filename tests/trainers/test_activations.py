"""What a forward keeps, measured; when it is computed again; and that training stays the same either way."""

import datasets
import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import LlamaForCausalLM

from align import PairTrainer, SPOTrainer, UnpairedTrainer
from align.models.adapters import add_adapter
from align.models.machine import Memory
from align.models.tiled_head import Tiles
from align.recipe.speed import OFF, SpeedSettings
from align.recipe.spo import DegreeHeadSettings, DegreeSettings, SpoSettings
from align.trainers import activations
from align.trainers.activations import LongestBatch, kept, kept_by_head, kept_bytes, lengths_of, size, still_to_come
from tests.conftest import arguments, pair_rows, tiny_config

AUTO = SpeedSettings(cache=False)
LORA = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")


def fresh(tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(tokenizer, initializer_range=0.2))


@pytest.fixture
def little(monkeypatch):
    """Pretend that a device has next to nothing left."""
    left = Memory(kind="memory", available=1000, total=1000, source="a test")
    monkeypatch.setattr(activations, "memory_left", lambda device, sharers: left)


def trained(tokenizer, folder, speed=AUTO, cls=PairTrainer, model=None, **options):
    changes = options.pop("changes", {})
    trainer = cls(
        fresh(tokenizer) if model is None else model,
        arguments(folder, max_steps=3, learning_rate=1e-3, logging_steps=1, **changes),
        train_dataset=datasets.Dataset.from_list(pair_rows(12)),
        processing_class=tokenizer,
        speed=speed,
        **options,
    )
    trainer.train()
    return trainer


def computed_again(trainer):
    return any(getattr(module, "gradient_checkpointing", False) is True for module in trainer.model.modules())


def losses(trainer):
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


def said(trainer):
    (note,) = [note for note in trainer.speed.notes if "for the backward" in note or "in the backward" in note]
    return note


class Toy(nn.Module):
    """Keeps its hidden state, which is 8 numbers a token, and the ids; under autocast a copy of a weight too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache):
        return self.embedding(input_ids).exp() ** 2


def test_what_is_kept_is_counted_once_and_weights_are_not():
    # exp keeps its result, which the square keeps too; an embedding keeps the ids
    assert kept_bytes(Toy(), 15) == 15 * (8 * 4 + 8)
    with torch.no_grad():
        assert kept_bytes(Toy(), 15) == 15 * (8 * 4 + 8)


def packed(positions):
    return LongestBatch(positions=float(positions), width=0, scored=0.0, tiles=None)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_token_keeps_as_much_in_a_long_sequence_and_copies_of_weights_are_told_apart(tokenizer, lora):
    policy = fresh(tokenizer)
    policy = policy if lora is None else add_adapter(policy, lora)
    body = (policy if lora is None else policy.get_base_model()).base_model
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            real, told = kept_bytes(body, 60), kept(policy, packed(60))
            each = kept(policy, packed(1e6)) / 1e6
        assert told == pytest.approx(real, rel=0.02)
        copies = told - 60 * each
        assert (copies > 0.02 * told) == autocast


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tables_that_padded_rows_keep_grow_with_the_square_of_their_length(tokenizer, attention):
    torch.manual_seed(0)
    config = tiny_config(tokenizer, initializer_range=0.2, max_position_embeddings=1024)
    policy = LlamaForCausalLM(config)
    policy.set_attn_implementation(attention)
    real = kept_bytes(policy.base_model, 600, padded=True)
    told = kept(policy, LongestBatch(positions=600.0, width=600, scored=0.0, tiles=None))
    assert told == pytest.approx(real, rel=0.05)
    if attention == "eager":
        assert told > 1.5 * kept(policy, packed(600))


def test_what_a_head_takes():
    tiles = Tiles(tokens=10, vocabulary=100, kept=5000)
    assert kept_by_head(40.0, 1000, None) == 3 * 4 * 40 * 1000
    assert kept_by_head(40.0, 1000, tiles) == 4 * (5000 + 3 * 10 * 100)
    assert kept_by_head(4.0, 1000, tiles) == 4 * (4000 + 3 * 4 * 100)


def test_gradients_and_optimiser_state_that_are_not_there_yet(tmp_path):
    model = nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    args, optimizer = arguments(tmp_path, optim="adamw_torch"), torch.optim.AdamW([model.weight])
    assert still_to_come(model, optimizer, args) == 12 * (4 + 8)
    assert still_to_come(model, optimizer, arguments(tmp_path, optim="sgd")) == 12 * 4
    model.to(torch.bfloat16)
    assert still_to_come(model, optimizer, args) == 12 * (2 + 4)
    # ZeRO's state is of float32 numbers, and in pieces; gradients are too from the second stage on
    assert still_to_come(model, optimizer, args, stage=1, processes=2) == 12 * (2 + 4)
    assert still_to_come(model, optimizer, args, stage=2, processes=2) == 12 * (1 + 4)
    model.float()(torch.ones(1, 3)).sum().backward()
    assert still_to_come(model, optimizer, args) == 12 * 8
    optimizer.step()
    assert still_to_come(model, optimizer, args) == 0


def batch(*lengths, rows):
    real = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
    for row, length in enumerate(lengths):
        real[row, :length] = True
    return {"attention_mask": real, "completion_mask": real, "weight": torch.ones(rows)}


def longest(batch, rows, *, packed=True, positions=100):
    return LongestBatch.like(batch, rows, positions=positions, packed=packed, tiles=None)


def test_how_much_longer_a_packed_batch_can_be():
    rows = datasets.Dataset.from_dict({"length": [4, 30, 10, 20]})
    # pairs of 4 and 6; the longest two are 30 and 20
    assert longest(batch(4, 3, 2, 6, rows=2), rows).positions == 500
    assert longest(batch(4, 3, 2, 6, rows=2), rows).scored == 15 * 5
    assert longest(batch(10, 40, rows=2), rows).positions == 100  # single completions
    assert longest(batch(10, 6, rows=2), rows).positions == pytest.approx(100 * 25 / 8)
    # two first sides a pair
    assert longest(batch(3, 3, 5, 5, 5, 10, rows=2), rows).positions == pytest.approx(100 * 50 / 15)
    assert longest(batch(4, 3, rows=1), rows.remove_columns("length")).positions == 100
    assert longest(batch(4, 3, rows=1), rows).width == 0


def test_padded_rows_are_all_as_long_as_the_longest():
    rows = datasets.Dataset.from_dict({"length": [100] * 199 + [2000]})
    found = longest(batch(*[100] * 16, rows=8), rows, packed=False, positions=1600)
    assert (found.positions, found.width) == (32_000, 2000)
    mixed = longest(batch(*[100] * 15, 2000, rows=8), rows, packed=False, positions=32_000)
    assert (mixed.positions, mixed.width) == (32_000, 2000)


def test_samples_count_where_they_are_longer():
    rows = datasets.Dataset.from_dict(
        {"length": [9, 9], "prompt_ids": [[1, 2], [1, 2]], "samples": [[[3], [3] * 10], [[3]]]}
    )
    assert lengths_of(rows).tolist() == [12, 9]
    assert lengths_of(rows.remove_columns("samples")).tolist() == [9, 9]
    assert lengths_of(rows.remove_columns("length")) is None


@pytest.mark.parametrize(("cls", "objective"), [(PairTrainer, "dpo"), (UnpairedTrainer, "bco_pair")])
@pytest.mark.parametrize("lora", [None, LORA])
def test_where_little_is_free_they_are_computed_again_and_training_is_the_same(
    tokenizer, tmp_path, monkeypatch, little, cls, objective, lora
):
    options = {"cls": cls, "objective": objective, "peft_config": lora}
    tight = trained(tokenizer, tmp_path / "tight", **options)
    assert computed_again(tight)
    assert "computed again in the backward, since they might not fit" in said(tight)
    monkeypatch.undo()
    ample = trained(tokenizer, tmp_path / "ample", **options)
    assert not computed_again(ample)
    assert "they are kept for the backward" in said(ample)
    for mine, other in zip(losses(tight), losses(ample), strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def test_the_measure_is_what_the_longest_batch_really_keeps(tokenizer, tmp_path):
    trainer = trained(tokenizer, tmp_path, changes={"per_device_train_batch_size": 12})
    told = float(said(trainer).split("MiB of it")[0].split(",")[-1])
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    found = {}

    def keep(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model = trainer.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps = trainer.forward_logps(model, batch)
    for weight in model.parameters():
        found.pop(weight.untyped_storage().data_ptr(), None)
    assert logps is not None
    assert told == pytest.approx(sum(found.values()) / 2**20, rel=0.3)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), TypeError("no such argument")])
def test_what_cannot_be_measured_is_said_and_nobody_waits(tokenizer, tmp_path, monkeypatch, error):
    """Want of memory for a few tokens is an answer too."""

    def broken(body, length, padded):
        raise error

    monkeypatch.setattr(activations, "kept_bytes", broken)
    trainer = trained(tokenizer, tmp_path)
    assert computed_again(trainer) == isinstance(error, torch.OutOfMemoryError)
    assert f"not measured ({type(error).__name__}: {error})" in said(trainer)


def test_a_model_that_only_says_it_could(tokenizer, tmp_path, little):
    class Odd(LlamaForCausalLM):
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None):
            raise AssertionError("is given more than it takes")

    torch.manual_seed(0)
    trainer = trained(tokenizer, tmp_path, model=Odd(tiny_config(tokenizer, initializer_range=0.2)))
    assert "this model cannot compute them again" in trainer.speed.notes[-1]
    assert len(losses(trainer)) == 3


def test_one_tight_process_decides_for_all(tokenizer, tmp_path, monkeypatch):
    trainer = trained(tokenizer, tmp_path, SpeedSettings(cache=False, checkpointing=False))
    gathered = []

    def gather(tensor):
        gathered.append(tensor.tolist())
        return torch.cat([tensor, torch.ones_like(tensor)])

    monkeypatch.setattr(trainer.accelerator, "gather", gather)
    decision = activations.Activations("auto", trainer.args, trainer.model)
    note = decision.decide(
        trainer.model,
        lambda: packed(100),
        optimizer=trainer.optimizer,
        accelerator=trainer.accelerator,
    )
    assert gathered == [[0.0]]
    assert "they might not fit in another process" in note
    assert computed_again(trainer)
    assert not decision.undecided


def test_versions_of_preference_degrees_count(tokenizer, tmp_path):
    def positions(detached):
        settings = SpoSettings(
            versions=DegreeSettings(extractor="tfidf", degrees=3), head=DegreeHeadSettings(detached=detached)
        )
        trainer = trained(tokenizer, tmp_path / str(detached), cls=SPOTrainer, spo=settings)
        return trainer.positions_beside(next(iter(trainer.get_train_dataloader())))

    assert positions(detached=False) > 0
    assert positions(detached=True) == 0


def test_evaluating_first_decides_nothing(tokenizer, tmp_path, little):
    rows = datasets.Dataset.from_list(pair_rows(6))
    trainer = trained(tokenizer, tmp_path, eval_dataset=rows, changes={"eval_on_start": True, "eval_strategy": "no"})
    assert computed_again(trainer)


def test_every_how_many_layers_is_as_the_arguments_say(tokenizer, tmp_path, little):
    kwargs = {"activation_checkpointing_kwargs": {"every_n_layers": 2}}
    trainer = trained(tokenizer, tmp_path, changes=kwargs)
    flags = [module.gradient_checkpointing for module in trainer.model.model.layers]
    assert flags.count(True) == -(-len(flags) // 2)


def test_who_else_decides(tokenizer, tmp_path, little):
    asked = trained(tokenizer, tmp_path / "asked", changes={"gradient_checkpointing": True})
    assert computed_again(asked)
    for speed in (OFF, SpeedSettings(cache=False, checkpointing=False)):
        trainer = trained(tokenizer, tmp_path / str(speed == OFF), speed)
        assert not computed_again(trainer)
        assert not any("in the backward" in note for note in trainer.speed.notes)
    assert computed_again(trained(tokenizer, tmp_path / "true", SpeedSettings(cache=False, checkpointing=True)))


def test_the_caller_s_arguments_stay_what_they_are(tokenizer, tmp_path):
    args = arguments(tmp_path, max_steps=1)
    rows = datasets.Dataset.from_list(pair_rows(4))
    speed = SpeedSettings(cache=False, checkpointing=True)
    PairTrainer(fresh(tokenizer), args, train_dataset=rows, processing_class=tokenizer, speed=speed)
    assert not activations.checkpoints(args)


def test_a_model_that_does_not_know_how(tokenizer, tmp_path, little):
    class Plain(LlamaForCausalLM):
        supports_gradient_checkpointing = False

    torch.manual_seed(0)
    plain = Plain(tiny_config(tokenizer, initializer_range=0.2))
    assert not computed_again(trained(tokenizer, tmp_path / "auto", model=plain))
    with pytest.raises(ValueError, match=r"speed.checkpointing: true cannot be had: Plain has no activation"):
        trained(tokenizer, tmp_path / "true", SpeedSettings(cache=False, checkpointing=True), model=plain)


def test_sizes_for_people():
    assert size(5 * 2**30) == "5.0 GiB"
    assert size(2**29) == "512.0 MiB"
