"""CLIP: the loss against the paper's formula, what its baselines share, and captions that are no negatives."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer

from align.contrastive.multimodal.clip import HOTTEST, Clip, ClipSettings, Towers, Words
from align.wings.data import coloured_digits
from align.wings.gallery import Gallery, Rows
from align.wings.networks import seeded
from align.wings.recipe import load_method_recipe
from align.wings.run import run_method
from align.wings.trainer import stacked
from tests.alone import Alone

CAPTIONS = ("a photo of a red seven", "blue two written by hand", "this is a green one", "a photo of a red seven")


def made(settings=None, captions=CAPTIONS):
    settings = settings or ClipSettings(width=16, layers=1, heads=2, embedding=8)
    images = torch.rand(len(captions), 3, 14, 14, generator=torch.Generator().manual_seed(0))
    gallery = Gallery(images=images, labels=torch.tensor([0, 1, 2, 0]), classes=("red seven", "blue two", "green one"))
    method = Clip(settings)
    method.words = Words(captions)
    with seeded(0):
        method.net = Towers(settings, method.words, gallery)
    method.work = Alone()
    rows = Rows(pixel_values=images, labels=gallery.labels, **method.words.encode(captions))
    batch = stacked([{**row, "filler": False} for row in rows.__getitems__(range(len(captions)))])
    return method, batch


def papers_loss(pictures, texts, scale):
    """The paper's pseudocode, in float64: symmetric cross-entropy of scaled cosines over the batch."""
    logits = scale * pictures.double() @ texts.double().T
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def test_the_loss_is_the_papers():
    method, batch = made(ClipSettings(width=16, layers=1, heads=2, embedding=8, duplicates="negative"))
    loss = method.losses(method.net, batch).losses.mean()
    pictures, texts, *_ = method.net(batch)
    assert loss.item() == pytest.approx(papers_loss(pictures, texts, 1 / 0.07).item(), rel=1e-5)
    norms = torch.cat([pictures, texts]).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_rows_with_one_caption_are_no_negatives_of_each_other():
    method, batch = made()
    ignoring = method.losses(method.net, batch).losses
    pictures, texts, *_ = method.net(batch)
    logits = pictures.double() @ texts.double().T / 0.07
    logits[0, 3] = logits[3, 0] = -math.inf  # the two red sevens
    labels = torch.arange(4)
    by_hand = F.cross_entropy(logits, labels, reduction="none") + F.cross_entropy(logits.T, labels, reduction="none")
    torch.testing.assert_close(ignoring.double(), by_hand / 2, rtol=1e-4, atol=1e-5)


def test_the_order_of_rows_does_not_matter():
    method, batch = made()
    order = torch.tensor([2, 0, 3, 1])
    losses = method.losses(method.net, batch).losses
    mixed = method.losses(method.net, {name: column[order] for name, column in batch.items()}).losses
    torch.testing.assert_close(mixed, losses[order])


def test_the_factor_of_cosines_is_bounded():
    method, _ = made()
    with torch.no_grad():
        method.net.clip.logit_scale.fill_(7.0)
    assert method.net.scale.item() == pytest.approx(HOTTEST, rel=1e-5)
    with pytest.raises(ValueError, match="temperature must be at least"):
        ClipSettings(temperature=0.001)


@pytest.mark.parametrize("objective", ["bag_of_words", "supervised"])
def test_baselines_start_from_the_same_image_tower_and_train_no_other(objective):
    method, _ = made()
    settings = ClipSettings(width=16, layers=1, heads=2, embedding=8, objective=objective)
    other, batch = made(settings)
    for mine, theirs in zip(
        method.net.clip.vision_model.parameters(), other.net.clip.vision_model.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
    other.losses(other.net, batch).losses.mean().backward()
    assert all(p.grad is None for p in other.net.clip.text_model.parameters())
    assert all(p.grad is not None for p in other.net.head.parameters())


def test_bag_of_words_is_cross_entropy_with_the_captions_words_as_equal_targets():
    method, batch = made(ClipSettings(width=16, layers=1, heads=2, embedding=8, objective="bag_of_words"))
    _, _, logits, _ = method.net(batch)
    words = method.words
    ids = {word: words.backend.token_to_id(word) for word in ("this", "is", "a", "green", "one")}
    by_hand = -torch.stack([logits.log_softmax(1)[2, id_] for id_ in ids.values()]).mean()
    assert method.losses(method.net, batch).losses[2].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_words_that_no_caption_had_are_unknown_and_padding_is_no_word():
    words = Words(CAPTIONS)
    ids = words.encode(["a zebra"])["input_ids"][0].tolist()
    assert ids[1] == Words.UNKNOWN
    assert ids[2] == Words.END
    assert set(ids[3:]) == {Words.PAD}
    bag = words.bags(words.encode(["red red two"])["input_ids"])[0]
    assert bag.sum().item() == pytest.approx(1.0)
    assert bag[Words.PAD] == bag[Words.END] == 0
    assert (bag > 0).sum() == 2


def test_held_out_combinations_are_in_no_caption_of_training():
    data = coloured_digits.load(coloured_digits.Settings(train_per_class=20))
    apart = {data.test.classes[label] for label in data.test.labels[data.test.more["held_out"]].tolist()}
    assert len(apart) == 12
    assert not [caption for caption in data.train.captions if any(name in caption for name in apart)]


def test_ones_own_captioned_pictures_without_classes(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = []
    for place in range(40):
        colour, name = ((200, 30, 30), "red") if place % 2 else ((30, 30, 200), "blue")
        Image.new("RGB", (20, 16), tuple(min(255, c + place) for c in colour)).save(folder / f"{place}.png")
        lines.append(json.dumps({"file_name": f"{place}.png", "caption": f"a {name} square of kind {place % 3}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "r.yaml").write_text(
        f"method: clip\ndata: {{path: {folder}, size: 14}}\n"
        "settings: {width: 16, layers: 1, heads: 2, embedding: 8}\n"
        "trainer: {max_steps: 2, per_device_train_batch_size: 8}\n"
    )
    summary = run_method(load_method_recipe(tmp_path / "r.yaml", [f"output.dir={tmp_path / 'run'}"]))
    assert {"picture_to_text", "text_to_picture", "validation_picture_to_text"} <= summary["figures"].keys()
    assert "seen_top1" not in summary["figures"]  # nothing is labelled: there is no class to be right about
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.decode(tokenizer("a red square")["input_ids"]).split() == ["a", "red", "square", "</s>"]


def test_settings():
    with pytest.raises(ValueError, match=r"templates need \{\}"):
        ClipSettings(templates=["a photo"])
    with pytest.raises(ValueError, match="validation must lie in"):
        ClipSettings(validation=0.0)
    with pytest.raises(ValueError, match=r"settings.patch: pictures of 14 pixels are not cut into patches of 5"):
        made(ClipSettings(width=16, layers=1, heads=2, embedding=8, patch=5))
