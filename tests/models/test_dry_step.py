"""What a step without numbers is said to hold and compute, beside a real step and beside hand counts."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from align.models.dry_step import BatchShape, Work, dry_step, rough_step
from align.models.load import Source, load_model
from align.models.skeleton import counts, load_config, skeleton
from align.recipe.schema import LoraSettings

SHAPE = BatchShape(sequences=4, width=48, completion_tokens=60)
HIDDEN, INNER, LAYERS, HEADS, KEYS = 32, 64, 2, 4, 16


@pytest.fixture
def source(model_dir):
    return Source(path=str(model_dir))


def stepped(source, shape=SHAPE, *, lora=None, **options):
    return dry_step(skeleton(source, lora), shape, **options)


def test_what_is_kept_is_what_autograd_saves_in_a_real_forward(source):
    """The independent count: every storage that the real model's graph holds, weights left out."""
    model = load_model(source).train()
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), storage)  # held, so that no address comes twice
        return tensor

    ids = torch.randint(0, 300, (SHAPE.sequences, SHAPE.width))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0  # without padding, the model would leave its mask out

    def select(module, arguments):
        return (arguments[0].flatten(0, 1)[: SHAPE.completion_tokens].clone().unsqueeze(0),)

    model.get_output_embeddings().register_forward_pre_hook(select)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        targets = torch.zeros(SHAPE.completion_tokens, dtype=torch.long)
        F.cross_entropy(logits[0].float() / 1.0, targets, reduction="none")
    really = sum(size for size, _ in saved.values())
    assert stepped(source).kept == pytest.approx(really, rel=0.03)


def test_computing_by_hand(source, tokenizer):
    positions, width = SHAPE.sequences * SHAPE.width, SHAPE.width
    projections = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER
    attention = LAYERS * 2 * 2 * SHAPE.sequences * HEADS * width * width * (HIDDEN // HEADS)
    head = 2 * SHAPE.completion_tokens * HIDDEN * len(tokenizer)
    forward = LAYERS * 2 * positions * projections + attention + head
    step = stepped(source, reference="base")
    rotary = 2 * width * (HIDDEN // HEADS // 2) * SHAPE.sequences  # angles of positions are a matrix product too
    assert step.forward.flops == pytest.approx(forward, abs=4 * rotary)
    assert step.reference.flops == step.forward.flops
    twice = 2 * (forward - attention) + 2.5 * attention  # both factors' gradients; attention multiplies five times
    assert step.backward.flops == pytest.approx(twice, rel=0.01)


def test_adapters_save_the_gradients_of_weights(source):
    full, adapted = stepped(source), stepped(source, lora=LoraSettings(r=2))
    assert adapted.backward.flops < 0.75 * full.backward.flops
    assert adapted.gradients == counts(skeleton(source, LoraSettings(r=2))).trainable_bytes
    assert full.gradients == counts(skeleton(source)).trainable_bytes


def test_checkpointing_trades_memory_for_a_forward(source):
    plain, again = stepped(source), stepped(source, checkpointing=True)
    assert again.kept < 0.5 * plain.kept
    assert again.peak < plain.peak
    layers = plain.forward.flops - 2 * SHAPE.completion_tokens * HIDDEN * 400
    assert again.backward.flops == pytest.approx(plain.backward.flops + layers, rel=0.05)


def test_checkpointing_under_adapters_reaches_them(source):
    assert stepped(source, lora=LoraSettings(r=2), checkpointing=True).gradients > 0


def test_a_reference_takes_time_and_keeps_nothing(source):
    alone, compared = stepped(source), stepped(source, reference="base")
    assert compared.kept == alone.kept
    assert alone.reference == Work()
    off = stepped(source, lora=LoraSettings(r=2), reference="adapter_off")
    assert 0 < off.reference.flops < off.forward.flops  # adapters are off


def test_gradients_of_an_earlier_batch_count(source):
    once, more = stepped(source), stepped(source, accumulate=True)
    assert once.gradients == more.gradients
    assert more.peak == more.gradients + more.working  # to which each is added as it is finished
    assert more.peak > once.peak


def test_at_work_is_what_is_there_beside_finished_gradients(source):
    """Of a narrow batch, most of what is there in the end are gradients."""
    narrow = BatchShape(sequences=2, width=4, completion_tokens=2)
    step = stepped(source, narrow)
    assert step.peak >= step.gradients
    assert step.kept <= step.working < step.peak
    largest = max(p.nbytes for p in skeleton(source).parameters())
    assert step.working < step.kept + 3 * largest  # a gradient at a time, and what it is made of
    evaluation = stepped(source, narrow, train=False)
    assert evaluation.working == evaluation.peak


def test_an_evaluation_keeps_nothing(source):
    step = stepped(source, reference="base", train=False)
    assert step.backward == Work()
    assert step.gradients == 0
    assert step.peak < 0.5 * stepped(source).peak


def test_twice_the_pairs_are_twice_the_work(source):
    wide = BatchShape(sequences=8, width=48, completion_tokens=120)
    assert stepped(source, wide).forward.flops == pytest.approx(2 * stepped(source).forward.flops, rel=0.01)
    assert stepped(source, wide).kept == pytest.approx(2 * stepped(source).kept, rel=0.05)


def test_autocast_halves_some_of_what_is_kept(source):
    assert stepped(source, autocast=torch.bfloat16).kept < 0.9 * stepped(source).kept


def test_nothing_is_allocated(source):
    huge = BatchShape(sequences=4096, width=256, completion_tokens=500_000)
    step = stepped(source, huge)
    assert step.kept > 5 * 2**30  # and this test takes no such memory


def test_the_rough_step_is_of_the_same_size(source):
    config, model = load_config(source), skeleton(source)
    for checkpointing in (False, True):
        shape = BatchShape(sequences=8, width=128, completion_tokens=300)
        rough = rough_step(config, counts(model), shape, referred=True, checkpointing=checkpointing)
        exact = stepped(source, shape, reference="base", checkpointing=checkpointing)
        assert 0.5 < rough.peak / exact.peak < 2
        assert 0.5 < rough.work.flops / exact.work.flops < 2


def test_mismatched_rows_take_two_forwards_and_keep_nothing(source):
    plain, more = stepped(source, reference="base"), stepped(source, reference="base", mismatched=SHAPE)
    assert plain.mismatched == Work()
    assert more.mismatched.flops == pytest.approx(2 * plain.forward.flops, rel=0.01)
    assert (more.forward, more.reference, more.backward) == (plain.forward, plain.reference, plain.backward)
    assert (more.kept, more.peak, more.small) == (plain.kept, plain.peak, plain.small)
    assert more.work.flops == pytest.approx(plain.work.flops + more.mismatched.flops)
    wide = BatchShape(sequences=64, width=128, completion_tokens=4000)
    assert stepped(source, reference="base", mismatched=wide).peak > more.peak


def test_rows_beside_are_kept_with_the_others_until_one_backward(source):
    plain = stepped(source, reference="base")
    both = plain.beside(stepped(source))
    twice = stepped(
        source, replace(SHAPE, sequences=2 * SHAPE.sequences, completion_tokens=2 * SHAPE.completion_tokens)
    )
    assert both.kept == 2 * plain.kept
    assert both.kept == pytest.approx(twice.kept, rel=0.02)
    assert both.peak == pytest.approx(twice.peak, rel=0.35)
    assert both.backward.flops == pytest.approx(twice.backward.flops, rel=0.02)
    assert both.reference == plain.reference


def test_mismatched_rows_under_checkpointing(source):
    step = stepped(source, reference="base", mismatched=SHAPE, checkpointing=True)
    assert step.mismatched.flops > 0


def test_rough_mismatched_rows_are_two_forwards(source):
    config, model = load_config(source), skeleton(source)
    step = rough_step(config, counts(model), SHAPE, referred=True, mismatched=SHAPE)
    assert step.mismatched.flops == 2 * step.forward.flops
