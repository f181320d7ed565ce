"""Temperature: the paper's gradients and limits, the loss that picks negatives, and what arms share."""

import itertools
import math

import pytest
import torch

from align.contrastive.objectives.temperature import (
    Temperature,
    TemperatureSettings,
    Watched,
    hard_contrastive,
    hardest,
    hinge,
    relative_penalties,
    spread,
)
from align.wings.networks import MLP, ConvEncoder, seeded
from align.wings.parts.diagnostics import hardness, uniformity
from align.wings.parts.pairs import Pairs, cosines, info_nce, simple
from align.wings.views import Views
from tests.alone import Alone


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(n=6, seed=0):
    z = random(2 * n, 4, seed=seed)
    return cosines(z, z), Pairs.of_two_views(n)


def gradient(objective, similarity, pairs):
    leaf = similarity.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(leaf, pairs).sum(), leaf)
    return slope


# ---- what the paper derives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 5.0])
def test_a_negative_is_pushed_by_its_probability_and_the_positive_by_all_of_them(temperature):
    s, pairs = table()
    slope = gradient(lambda x, p: info_nce(x, p, temperature=temperature), s, pairs)
    terms = (s / temperature).exp() * (pairs.positive | pairs.negative)
    probability = terms / terms.sum(1, keepdim=True)
    torch.testing.assert_close(slope[pairs.negative], probability[pairs.negative] / temperature)
    torch.testing.assert_close(-slope[pairs.positive], slope.where(pairs.negative, 0.0).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0])
def test_relative_penalties_are_a_softmax_of_the_negatives(temperature):
    s, pairs = table()
    shares = relative_penalties(lambda x, p: info_nce(x, p, temperature=temperature), s, pairs)
    torch.testing.assert_close(shares, hardness(s, pairs.negative, temperature), rtol=1e-6, atol=3e-8)


def test_the_push_is_the_more_even_the_larger_the_temperature():
    s, pairs = table()
    entropies = [
        spread(relative_penalties(lambda x, p, t=t: info_nce(x, p, temperature=t), s, pairs)).mean()
        for t in (0.03, 0.1, 0.3, 1.0, 3.0, 1e6)
    ]
    assert all(a < b for a, b in itertools.pairwise(entropies))
    assert float(entropies[-1]) == pytest.approx(math.log(10), rel=1e-6)
    torch.testing.assert_close(spread(relative_penalties(simple, s, pairs)), torch.full((12,), math.log(10)).double())


def test_small_temperatures_leave_the_hinge_divided_by_the_temperature():
    s, pairs = table()
    cold = 1e-4
    loss = info_nce(s, pairs, temperature=cold)
    torch.testing.assert_close(cold * loss, hinge(s, pairs), rtol=1e-3, atol=1e-3)
    assert float((loss - hinge(s, pairs)).abs().max()) > 100  # without the 1 / temperature there is no limit
    lost = hinge(s, pairs) > 0.05
    assert lost.sum() > 0
    slope = cold * gradient(lambda x, p: info_nce(x, p, temperature=cold), s, pairs)
    torch.testing.assert_close(slope[lost], gradient(hinge, s, pairs)[lost], rtol=1e-6, atol=1e-6)


def test_the_hinge_by_hand():
    s = torch.tensor([[0.9, 0.5, 0.2], [0.8, 0.1, 0.3]])
    pairs = Pairs.matching(torch.tensor([0, 1]), torch.arange(3))
    torch.testing.assert_close(hinge(s, pairs), torch.tensor([0.0, 0.7]))


def test_large_temperatures_leave_the_simple_loss():
    s, pairs = table()
    hot = 1e5
    slope = hot * gradient(lambda x, p: info_nce(x, p, temperature=hot), s, pairs)
    # one positive and 10 negatives: 10 / 11 of the simple loss, whose negatives weigh as much as its positive
    torch.testing.assert_close(slope, gradient(simple, s, pairs) * 10 / 11, rtol=1e-4, atol=1e-6)


# ---- the loss that picks its negatives -----------------------------------------------------------------------


def hard_by_hand(s, n, temperature, count):
    rows = []
    for i in range(2 * n):
        others = sorted((k for k in range(2 * n) if k % n != i % n), key=lambda k: -float(s[i, k].detach()))[:count]
        own = torch.exp(s[i, (i + n) % (2 * n)] / temperature)
        rows.append(-torch.log(own / (own + sum(torch.exp(s[i, k] / temperature) for k in others))))
    return torch.stack(rows)


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.3, 3), (0.75, 8)])
def test_the_hard_loss_is_the_papers_formula(share, count):
    s, pairs = table()
    one, other = (s.clone().requires_grad_() for _ in range(2))
    found = hard_contrastive(one, pairs, temperature=0.7, share=share)
    expected = hard_by_hand(other, 6, 0.7, count)
    torch.testing.assert_close(found, expected)
    for found_slope, slope in zip(
        torch.autograd.grad(found.sum(), one), torch.autograd.grad(expected.sum(), other), strict=True
    ):
        torch.testing.assert_close(found_slope, slope)


def test_all_negatives_are_the_plain_loss():
    s, pairs = table()
    plain, hard = (
        lambda x, p: info_nce(x, p, temperature=0.4),
        lambda x, p: hard_contrastive(x, p, temperature=0.4, share=1.0),
    )
    assert torch.equal(plain(s, pairs), hard(s, pairs))
    assert torch.equal(gradient(plain, s, pairs), gradient(hard, s, pairs))


def test_the_hardest_are_never_positives_and_at_least_one():
    s, pairs = table()
    chosen = hardest(s, pairs, 0.001)
    assert (chosen.negative.sum(1) == 1).all()
    assert torch.equal(chosen.positive, pairs.positive)
    assert not (chosen.negative & ~pairs.negative).any()
    worst = s.masked_fill(~pairs.negative, -2).argmax(1)
    assert torch.equal(chosen.negative.int().argmax(1), worst)


def test_rows_with_fewer_negatives_keep_to_theirs():
    s = random(3, 5)
    negative = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]).bool()
    positive = torch.tensor([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]).bool()
    chosen = hardest(s, Pairs(positive, negative), 0.5)
    assert chosen.negative.sum(1).tolist() == [2, 1, 2]


def test_what_is_not_chosen_is_not_pushed():
    s, pairs = table()
    slope = gradient(lambda x, p: hard_contrastive(x, p, temperature=1.0, share=0.2), s, pairs)
    assert (slope[~hardest(s, pairs, 0.2).negative & ~pairs.positive] == 0).all()


# ---- the method ----------------------------------------------------------------------------------------------


def made(**settings):
    method = Temperature(TemperatureSettings(width=4, features=8, embedding=4, **settings))
    method.work, method.views, method.objective = Alone(), Views(16), method.settings.loss()
    with seeded(0):
        method.net = Watched(ConvEncoder(1, 4, 8), MLP(8, 8, 4))
    return method


def batch(n=8):
    images = torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"images": images, "index": torch.arange(n), "weight": torch.ones(n)}


def losses_and_slopes(method):
    torch.manual_seed(0)
    found = method.losses(method.net, batch())
    found.losses.sum().backward()
    return found, torch.cat([p.grad.flatten() for p in method.net.parameters()])


def test_arms_differ_in_the_loss_alone():
    hard, plain = made(objective="hard", share=1.0), made(objective="contrastive")
    one, other = losses_and_slopes(hard), losses_and_slopes(plain)
    assert torch.equal(one[0].losses, other[0].losses)
    assert torch.equal(one[1], other[1])
    apart = losses_and_slopes(made(objective="hard", share=0.1))
    assert not torch.allclose(apart[1], other[1])


@pytest.mark.parametrize("objective", ["hard", "contrastive", "simple", "hinge"])
def test_a_picture_loses_the_mean_of_its_two_views_on_normalised_embeddings(objective):
    method = made(objective=objective, temperature=0.5)
    found, slopes = losses_and_slopes(method)
    assert slopes.abs().sum() > 0
    torch.manual_seed(0)
    z = method.net.train()(method.views.two(batch()["images"]))[1]
    rows = method.objective(cosines(z, z), Pairs.of_two_views(8))
    torch.testing.assert_close(found.losses, (rows[:8] + rows[8:]) / 2)
    assert set(found.metrics) == {"matched", "penalty_entropy", "uniformity"}
    assert all(column.shape == (8,) and not column.requires_grad for column in found.metrics.values())


def test_the_course_of_uniformity_is_kept_in_the_network():
    net = made().net
    net.remember(-1.0, 0.0)
    net.remember(-2.0, 0.04)
    net.remember(-3.0, 1.0)
    torch.testing.assert_close(net.course(), torch.tensor([-1.5, -3.0]))
    again = made().net
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.course(), net.course())


def test_attention_is_the_entropy_of_the_push_over_all_others():
    z = random(10, 3)
    s = cosines(z, z)
    others = Pairs(torch.zeros(10, 10, dtype=torch.bool), ~torch.eye(10, dtype=torch.bool))
    shares = hardness(s, others.negative, 0.5)
    by_hand = -(shares * shares.clamp_min(1e-300).log()).sum(1).mean() / math.log(9)
    assert made(objective="contrastive", temperature=0.5).attention(s, others) == pytest.approx(float(by_hand))
    assert made(objective="simple").attention(s, others) == pytest.approx(1)
    assert made(objective="hinge").attention(s, others) == pytest.approx(0)
    assert uniformity(z) < 0


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("share", 0.0), ("share", 1.5), ("validation", 1.0)])
def test_settings_say_what_is_wrong_with_them(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        TemperatureSettings(**{name: value})
