"""The stand-in model of the studies, made small."""

import json

import pytest
import torch

from align.models.load import Source, load_model, load_tokenizer
from align.sampling.generate import Completion
from scripts.studies import stand_in as study
from scripts.studies.stand_in import (
    Settings,
    cross_entropy,
    cut,
    fingerprint,
    folder_of,
    recoded,
    shuffled,
    stand_in,
    token_logps,
    trimmed,
    tune,
)


@pytest.fixture
def settings(model_dir):
    return Settings(
        model=str(model_dir),
        layers=(1,),
        vocabulary=300,
        limit=6,
        samples=2,
        max_new_tokens=6,
        epochs=2,
        batch_size=4,
        learning_rate=0.01,
    )


@pytest.fixture
def whole(model_dir):
    return load_model(Source(path=str(model_dir)))


def test_it_is_made_once_whole_and_loads(settings, monkeypatch):
    folder = stand_in(settings)
    assert folder == folder_of(settings)
    assert [path.name for path in folder.parent.iterdir() if ".partial" in path.name] == []
    model, tokenizer = load_model(Source(path=str(folder))), load_tokenizer(Source(path=str(folder)))
    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    assert (
        model.config.vocab_size
        == len(tokenizer)
        == len(load_model(Source(path=str(folder))).get_input_embeddings().weight)
    )
    assert "system" not in tokenizer.chat_template
    found = json.loads((folder / "figures.json").read_text())
    assert found["weights"] == fingerprint(model)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["vocabulary"] >= 300
    assert found["answers"] == {"train": 12, "heldout": 12}
    assert set(found["held_out_cross_entropy"]) == {"whole model", "before tuning", "after tuning"}
    assert len(found["some_answers"]) == 6

    monkeypatch.setattr(study, "make", lambda *arguments: pytest.fail("made again"))
    assert stand_in(settings) == folder


def test_a_making_that_fails_leaves_nothing(settings, monkeypatch):
    def fail(settings, folder):
        folder.mkdir()
        raise RuntimeError("stopped")

    other = Settings(model=settings.model, layers=(0,))
    monkeypatch.setattr(study, "make", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        stand_in(other)
    assert not [path for path in folder_of(other).parent.glob(f"{folder_of(other).name}*") if path.is_dir()]


def test_a_cut_keeps_layers_and_rows(whole):
    kept = {0: 0, 1: 1, 7: 2, 300: 3}
    small = cut(whole, [1], kept)
    theirs = whole.state_dict()
    for name, tensor in small.state_dict().items():
        found = theirs[name.replace(".layers.0.", ".layers.1.")]
        assert torch.equal(tensor, found if found.shape == tensor.shape else found[list(kept)]), name
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
    assert small.get_input_embeddings().weight.shape[0] == 4
    with pytest.raises(ValueError, match="0 to 1"):
        cut(whole, [2], kept)


def test_a_cut_of_everything_is_the_model(whole):
    ids = torch.arange(20)[None]
    everything = cut(whole, [0, 1], {i: i for i in range(whole.config.vocab_size)})
    torch.testing.assert_close(everything(ids).logits, whole(ids).logits)


def test_a_trimmed_tokenizer_encodes_the_texts_as_before(tokenizer):
    texts = ["the warm bread", "<|im_start|>a sad night<|im_end|>"]
    small, kept = trimmed(tokenizer, texts, 260)
    assert len(small) == len(kept) < len(tokenizer)
    for text in texts:
        assert small(text).input_ids == [kept[number] for number in tokenizer(text).input_ids]
    assert len(small(" quiet train").input_ids) > len(tokenizer(" quiet train").input_ids)
    assert small.decode(small(" quiet train: ü").input_ids) == " quiet train: ü"
    assert (small.eos_token_id, small.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert small.chat_template == tokenizer.chat_template
    with pytest.raises(ValueError, match="special"):
        trimmed(tokenizer, texts, 1)


def test_an_answer_is_the_same_text_in_other_ids(tokenizer):
    small, _ = trimmed(tokenizer, ["sad"], 260)
    ids = tokenizer(" quiet<|im_end|>").input_ids
    answer = recoded(Completion(prompt="a", text="quiet", prompt_ids=[5], ids=ids, ended=True), tokenizer, small)
    assert small.decode(answer.ids) == " quiet<|im_end|>"
    assert answer.ids[-1] == small.eos_token_id
    assert len(answer.ids) > len(ids)
    assert answer.text == "quiet"


def test_answer_tokens_are_scored_as_the_model_predicts_them(whole):
    samples = [
        Completion(prompt="a", text="", prompt_ids=[5, 6, 7], ids=[8, 9], ended=False),
        Completion(prompt="b", text="", prompt_ids=[3], ids=[4, 5, 6, 7], ended=False),
    ]
    wanted = []
    for one in samples:
        ids = torch.tensor([one.prompt_ids + one.ids])
        logp = whole(ids).logits[0].log_softmax(-1)
        start = len(one.prompt_ids)
        wanted += [logp[place - 1, ids[0, place]] for place in range(start, ids.shape[1])]
    torch.testing.assert_close(token_logps(whole, samples), torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_tuning_teaches_the_answers_and_moves_every_weight(whole, settings):
    samples = [Completion(prompt=str(i), text="", prompt_ids=[i], ids=[9, 8, 7], ended=False) for i in range(40, 48)]
    model = cut(whole, [0], {i: i for i in range(whole.config.vocab_size)})
    before, start = {name: p.clone() for name, p in model.named_parameters()}, cross_entropy(model, samples)
    tune(model, samples, settings)
    assert cross_entropy(model, samples) < start - 1
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


def test_every_epoch_has_every_answer_once_in_an_order_of_the_seed(settings):
    samples = [Completion(prompt=str(i), text="", prompt_ids=[1], ids=[2], ended=False) for i in range(10)]
    batches = list(shuffled(samples, settings))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = ([c.prompt for batch in batches[i : i + 3] for c in batch] for i in (0, 3))
    assert sorted(first) == sorted(second) == sorted(c.prompt for c in samples)
    assert first != second
    assert batches == list(shuffled(samples, settings))


def test_the_fingerprint_follows_every_weight(model):
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-6
    assert fingerprint(model) != before
    assert fingerprint(model.to(torch.bfloat16)) != before
