"""Metrix: additive losses beside the library's, labels relative to each anchor, and loops retyped from the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, reducers

from align.contrastive.metric import metrix
from align.contrastive.metric.metrix import Metrix, MetrixSettings, Mixing
from align.wings.gallery import Gallery, Rows
from align.wings.networks import seeded
from align.wings.parts.pairs import Pairs
from align.wings.recipe import load_method_recipe
from align.wings.run import run_method
from align.wings.trainer import stacked
from tests.alone import Alone

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
LOSSES = ("contrastive", "multi_similarity", "proxy_anchor")
MIXES = ("input", "feature", "embedding")


def made(**settings):
    method = Metrix(MetrixSettings(seen=3, width=4, embedding=6, **settings))
    with seeded(0):
        method.net = metrix.MetricNet(method.settings, 1).double()
    method.work, method.mixed_loss = Alone(), metrix.additive_loss(method.settings)
    images = torch.rand(len(LABELS), 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    rows = Rows(pixel_values=images, labels=LABELS)
    return method, stacked([{**row, "filler": False} for row in rows.__getitems__(range(len(LABELS)))])


def points(seed=0, count=9):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, generator=generator).double(), dim=1)


def gradients(loss, net):
    return torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad])


# ---- additive forms ----------------------------------------------------------------------------------------------


def additive(form, rows, labels=LABELS):
    z, pairs = F.normalize(rows, dim=1), Pairs.of_classes(labels)
    return form(z @ z.T, pairs.positive.to(z.dtype), pairs.positive | pairs.negative)


@pytest.mark.parametrize(
    ("form", "theirs"),
    [
        (metrix.multi_similarity(2, 50, 0.5), losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)),
        (metrix.multi_similarity(3, 10, 0.2), losses.MultiSimilarityLoss(alpha=3, beta=10, base=0.2)),
    ],
)
def test_without_mixup_multi_similarity_is_the_librarys(form, theirs):
    z = points().requires_grad_()
    own, library = additive(form, z).mean(), theirs(z, LABELS)
    torch.testing.assert_close(own, library)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (own, library)))


def test_without_mixup_contrastive_is_the_librarys():
    z = points().requires_grad_()
    cosine = distances.CosineSimilarity()
    theirs = losses.ContrastiveLoss(pos_margin=1, neg_margin=0.1, distance=cosine, reducer=reducers.SumReducer())
    own, library = additive(replace(metrix.contrastive(0.1), averaged=False), z).sum(), theirs(z, LABELS)
    torch.testing.assert_close(own, library)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (own, library)))


def test_averaged_the_contrastive_loss_of_an_anchor_is_over_what_loses():
    similarity = torch.tensor([[0.8, 0.2, 0.7, 0.9, 0.1]]).double()
    positive = torch.tensor([[1.0, 1.0, 0, 0, 0]]).double()
    found = metrix.contrastive(0.5)(similarity, positive, torch.ones_like(positive).bool())
    assert found.item() == pytest.approx((0.2 + 0.8) / 2 + (0.2 + 0.4) / 2)


def test_without_mixup_proxy_anchor_is_the_librarys():
    theirs = losses.ProxyAnchorLoss(3, 5, margin=0.1, alpha=32).double()
    z = points().requires_grad_()
    positive = torch.arange(3)[:, None] == LABELS[None]
    own = metrix.proxy_anchor(32, 0.1)(
        F.normalize(theirs.proxies, dim=1) @ F.normalize(z, dim=1).T, positive.double(), torch.ones_like(positive)
    ).mean()
    library = theirs(z, LABELS)
    torch.testing.assert_close(own, library)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (own, library)))


# ---- mixing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("long", [False, True])
def test_cosines_of_mixtures_are_those_of_mixtures_that_are_made(long):
    anchors, examples = points(1, 4), points(2, 6) * (torch.arange(1, 7)[:, None] if long else 1)
    made_ = F.normalize(0.3 * examples[:, None] + 0.7 * examples[None], dim=-1)
    torch.testing.assert_close(
        metrix.mixed_cosines(anchors, examples, 0.3), torch.einsum("ad,ijd->aij", anchors, made_)
    )


def test_a_label_is_relative_to_the_anchor():
    yes, no = torch.tensor(True), torch.tensor(False)
    assert metrix.relative_label(0.3, yes, no) == pytest.approx(0.3)
    assert metrix.relative_label(0.3, no, yes) == pytest.approx(0.7)  # the same mixture, seen from the other class
    assert metrix.relative_label(0.3, yes, yes) == pytest.approx(1)
    assert metrix.relative_label(0.3, no, no) == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_share_of_1_or_0_leaves_the_clean_positive_or_negative_term(name, share):
    """With one example on the side that is mixed away, each of the others is there once."""
    method, _ = made(loss=name)
    positives = 4 if share else 1
    z = points(3, 6)
    anchor, examples = z[:1], z[1:]
    positive = (torch.arange(5) < positives)[None]
    pairs = Pairs(positive, ~positive)
    counted = metrix.mixed_pairs(pairs, None)
    mixed = method.of_mixed(metrix.mixed_cosines(anchor, examples, share), counted, pairs, None, share)
    clean = method.mixed_loss(anchor @ examples.T, positive.double(), positive if share else ~positive)
    torch.testing.assert_close(mixed, clean)


def test_pairs_are_a_positive_or_the_anchor_and_a_negative():
    own = torch.eye(9, dtype=torch.bool)
    pairs = Pairs.of_classes(LABELS)
    mixed = metrix.mixed_pairs(pairs, None)
    assert mixed.sum() == 9 * 2 * 6
    for anchor, first, second in mixed.nonzero().tolist():
        assert anchor != first
        assert LABELS[first] == LABELS[anchor] != LABELS[second]
    anchors = metrix.mixed_pairs(pairs, own).nonzero()
    assert len(anchors) == 9 * 6
    assert torch.equal(anchors[:, 0], anchors[:, 1])


def test_the_hardest_negative_is_the_most_similar():
    z = points()
    pairs = metrix.hardest_only(z @ z.T, Pairs.of_classes(LABELS))
    assert pairs.negative.sum(1).tolist() == [1] * 9
    for anchor in range(9):
        others = [row for row in range(9) if LABELS[row] != LABELS[anchor]]
        best = max(others, key=lambda row: float(z[anchor] @ z[row]))
        assert pairs.negative[anchor, best]


# ---- the whole loss ------------------------------------------------------------------------------------------------


def papers_mixed(method, batch, mixing):
    """The paper's l~(a), anchor by anchor and pair by pair, on mixtures that are made."""
    net, s = method.net, method.settings
    images, labels = batch["pixel_values"], batch["labels"]
    raw = net.head(net.encoder(images))
    z = F.normalize(raw, dim=1)
    found = []
    for a in range(len(labels)):
        firsts = [a] if mixing.anchors else [p for p in range(len(labels)) if labels[p] == labels[a] and p != a]
        seconds = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if s.mix == "input":
            seconds = [max(seconds, key=lambda n: float(z[a].detach() @ z[n].detach()))]
        rows = {"input": images, "feature": raw, "embedding": z}[s.mix]
        made_ = torch.stack([mixing.share * rows[x] + (1 - mixing.share) * rows[y] for x in firsts for y in seconds])
        v = net.embed(made_) if s.mix == "input" else F.normalize(made_, dim=1)
        c, y = v @ z[a], mixing.share
        if s.loss == "contrastive":
            push = (1 - y) * (c - s.margin).clamp_min(0)
            found.append((y * (1 - c)).mean() + push.sum() / max(1, int((push > 0).sum())))
        else:
            pull, push = (
                (y * (-s.beta * (c - s.margin)).exp()).sum(),
                ((1 - y) * (s.gamma * (c - s.margin)).exp()).sum(),
            )
            found.append((1 + pull).log() / s.beta + (1 + push).log() / s.gamma)
    return torch.stack(found)


@pytest.mark.parametrize("anchors", [False, True])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", ["contrastive", "multi_similarity"])
def test_the_loss_is_the_papers(name, mix, anchors, monkeypatch):
    method, batch = made(loss=name, mix=mix, gamma=10.0)
    mixing = Mixing(share=0.35, anchors=anchors)
    monkeypatch.setattr(Metrix, "drawn", lambda self, step: mixing)
    found = method.losses(method.net, batch).losses
    mixed = papers_mixed(method, batch, mixing)
    expected = method.net.clean(method.net.embed(batch["pixel_values"]), LABELS) + 0.4 * mixed
    torch.testing.assert_close(found, expected)
    own, theirs = (gradients(loss.mean(), method.net) for loss in (found, expected))
    torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("mix", MIXES)
def test_proxies_are_anchors(mix):
    method, batch = made(loss="proxy_anchor", mix=mix)
    found = method.losses(method.net, batch)
    assert found.losses.unique().numel() == 1  # of the batch, for each row
    of_proxies = gradients(found.losses.mean(), method.net)[-1]
    assert (of_proxies.abs().sum(1) > 0).all()
    assert (found.metrics["mixed"] > 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mix", ["none", *MIXES])
def test_without_mixing_or_weight_it_is_the_librarys_loss(name, mix):
    method, batch = made(loss=name, mix=mix, weight=0.4 if mix == "none" else 0.0)
    found = method.losses(method.net, batch).losses
    library = method.net.clean(method.net.embed(batch["pixel_values"]), LABELS)
    torch.testing.assert_close(found.mean(), library)
    own, theirs = (gradients(loss, method.net) for loss in (found.mean(), library))
    torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-12)


def test_arms_start_alike():
    first, _ = made(mix="none")
    second, _ = made(mix="input")
    for one, other in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_negative_side_has_the_rest_of_the_label():
    """With the share as the label of both sides, a mixture would be pushed as if it were no positive at all."""
    form = metrix.multi_similarity(2, 50, 0.5)
    similarity = torch.tensor([[0.6]], dtype=torch.float64, requires_grad=True)
    share = torch.tensor([[0.25]]).double()
    form(similarity, share, torch.tensor([[True]])).sum().backward()
    e_pull, e_push = np.exp(-2 * 0.1), np.exp(50 * 0.1)
    expected = -0.25 * e_pull / (1 + 0.25 * e_pull) + 0.75 * e_push / (1 + 0.75 * e_push)
    assert similarity.grad.item() == pytest.approx(expected)


def test_steps_draw_shares_by_beta_and_both_kinds_of_pairs():
    method, _ = made()
    drawn = [method.drawn(step) for step in range(2000)]
    shares = torch.tensor([one.share for one in drawn])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / 20, abs=0.005)  # of Beta(2, 2)
    assert sum(one.anchors for one in drawn) == pytest.approx(1000, abs=80)
    assert method.drawn(7) == drawn[7]


# ---- classes and coverage --------------------------------------------------------------------------------------------


def test_classes_are_taken_apart_and_numbered_anew():
    whole = Gallery(images=torch.rand(6, 1, 2, 2), labels=torch.tensor([0, 1, 2, 0, 1, 2]), classes=("a", "b", "c"))
    some = metrix.of_classes(whole, torch.tensor([2, 0]))
    assert some.classes == ("c", "a")
    assert some.labels.tolist() == [1, 0, 1, 0]
    assert torch.equal(some.images, whole.images[[0, 2, 3, 5]])


@pytest.mark.parametrize("mix", MIXES)
def test_mixtures_cover_the_unseen_no_worse(mix):
    method, batch = made(mix=mix)
    train = Gallery(images=batch["pixel_values"].float(), labels=LABELS, classes=("a", "b", "c"))
    method.net.float()
    other = replace(train, images=torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(5)))
    found = method.covered(train, other)
    assert 0 < found["utilisation_with_mixed"] <= found["utilisation"]


RECIPE = """
method: metrix
settings: {mix: input, width: 4}
data: {name: digits, test_share: 0.2}
trainer: {max_steps: 2, per_device_train_batch_size: 20, logging_steps: 1, save_strategy: "no", seed: 3}
"""


def test_it_is_tested_on_classes_that_it_was_not_trained_on(tmp_path, monkeypatch):
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE)
    kept = {}
    losses_of, covered = Metrix.losses, Metrix.covered

    def losses(self, model, batch):
        kept.setdefault("pictures", []).append(batch["pixel_values"])
        assert batch["labels"].unique(return_counts=True)[1].tolist() == [10, 10]
        return losses_of(self, model, batch)

    def seen(self, train, test):
        kept["train"], kept["test"] = train, test
        return covered(self, train, test)

    monkeypatch.setattr(Metrix, "losses", losses)
    monkeypatch.setattr(Metrix, "covered", seen)
    monkeypatch.setattr(Metrix, "draw", lambda self, train, test: None)
    found = run_method(load_method_recipe(file, [f"output.dir={tmp_path / 'run'}"]))["figures"]
    assert 0 < found["map_at_r"] < found["recall_at_1"] <= 1
    assert not set(kept["train"].classes) & set(kept["test"].classes)
    assert len(kept["train"].classes) == len(kept["test"].classes) == 5
    own = {tuple(row.flatten().tolist()) for row in kept["train"].images}
    assert all(tuple(row.flatten().tolist()) in own for row in torch.cat(kept["pictures"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concentration": 0.0}, "concentration must be above 0"),
        ({"gamma": -1.0}, "gamma must be above 0"),
        ({"weight": -0.1}, "weight must be at least 0"),
        ({"each": 1}, "each must be at least 2"),
        ({"seen": 1}, "seen must be at least 2"),
        ({"width": 6}, "width must be a multiple of 4"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        MetrixSettings(**changes)
