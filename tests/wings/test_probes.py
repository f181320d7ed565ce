"""Probes of frozen features, against what can be counted or integrated by hand."""

import math

import pytest
import torch

from align.wings import probes


def blobs(count=30, width=4, seed=0):
    """Two classes, well apart in direction."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    centres = torch.zeros(2, width)
    centres[0, 0] = centres[1, 1] = 5
    return centres[labels] + torch.randn(count, width, generator=generator) * 0.3, labels


def test_neighbours_are_sought_by_cosine():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    far_along_the_first = torch.tensor([[100.0, 1.0], [0.01, 0.1]])  # by distance the second would be nearer to both
    assert probes.knn_accuracy(train, labels, far_along_the_first, torch.tensor([0, 1]), k=1) == 1
    assert probes.knn_accuracy(train, labels, far_along_the_first, torch.tensor([1, 1]), k=1) == 0.5


def test_features_that_tell_classes_apart_and_those_that_do_not():
    train, labels = blobs()
    test, truth = blobs(seed=1)
    found = probes.of_features(train, labels, test, truth, prefix="test_")
    assert found == {"test_knn": 1.0, "test_linear": 1.0}
    noise = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    half = torch.arange(200) % 2
    assert 0.3 < probes.linear_probe(noise[:100], half[:100], noise[100:], half[100:]) < 0.7


def test_the_probe_standardises_and_its_strength_matters():
    train, labels = blobs()
    test, truth = blobs(seed=1)
    assert probes.linear_probe(train * 1e4 + 7, labels, test * 1e4 + 7, truth) == 1
    skewed = torch.cat([labels[:4], torch.ones(8).long()])
    rows = torch.cat([train[:4], train[1::2][:8]])
    strict = probes.linear_probe(rows, skewed, test, truth, strength=1e-6)
    assert strict == 0.5  # all but no weights: the class that is more frequent


def test_retrieval_by_hand():
    angles = torch.tensor([0.0, 10.0, 35.0, 90.0, 97.0, 60.0]).deg2rad()
    rows = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([1.0, 2, 3, 1, 2, 3])[:, None]
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    # nearest others, best first, of the R = 2 that count: 0: 1 2 | 1: 0 2 | 2: 1 5 | 3: 4 5 | 4: 3 5 | 5: 2 3
    right = [[1, 1], [1, 1], [1, 0], [1, 1], [1, 1], [0, 1]]
    at_r = [(a + b * (a + b) / 2) / 2 for a, b in right]
    found = probes.retrieval(rows, labels)
    assert found["recall_at_1"] == pytest.approx(5 / 6)
    assert found["map_at_r"] == pytest.approx(sum(at_r) / 6)


def test_recall_by_hand():
    gallery = torch.eye(4)
    queries = torch.tensor([[3.0, 2, 1, 0], [3.0, 2, 1, 0], [3.0, 2, 1, 0], [0.0, 1, 2, 3]])
    found = probes.recall_at(queries, gallery, torch.tensor([0, 1, 2, 3]), ks=(1, 2, 3))
    assert found == {"recall_at_1": 0.5, "recall_at_2": 0.75, "recall_at_3": 1.0}
    longer = gallery * torch.tensor([1.0, 100, 1, 1])[:, None]  # by cosine, length is nothing
    assert probes.recall_at(queries, longer, torch.tensor([0, 1, 2, 3]), ks=(1,)) == {"recall_at_1": 0.5}


def test_coverage_by_hand_and_more_examples_cover_no_worse():
    queries, examples = torch.tensor([[0.0, 0], [4, 0]]), torch.tensor([[0.0, 1], [0, 3]])
    assert probes.utilisation(queries, examples) == pytest.approx((1 + 17) / 2)
    assert probes.utilisation(examples, examples) == 0
    more = torch.cat([examples, torch.tensor([[4.0, 1]])])
    assert probes.utilisation(queries, more) == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    q, x, m = (torch.randn(20, 5, generator=generator) for _ in range(3))
    assert probes.utilisation(q, torch.cat([x, m])) < probes.utilisation(q, x)


def gaussian(scales, means, count=400):
    """Rows whose sample means and covariances are exactly those asked for."""
    width = len(scales)
    white = torch.linalg.qr(torch.randn(count, width + 1, generator=torch.Generator().manual_seed(0)).double()).Q
    ones = torch.full((count, 1), 1 / math.sqrt(count), dtype=torch.float64)
    rows = torch.linalg.qr(torch.cat([ones, white[:, 1:]], 1)).Q[:, 1:] * math.sqrt(count - 1)
    return (rows * torch.tensor(scales).double() + torch.tensor(means).double()).float()


def test_the_distance_of_gaussians_is_the_closed_form():
    one, other = gaussian((1.0, 2.0, 0.5), (0.0, 0.0, 0.0)), gaussian((2.0, 1.0, 0.5), (1.0, 0.0, -2.0))
    expected = 1 + 4 + (1 - 2) ** 2 + (2 - 1) ** 2  # means, and differences of standard deviations of equal axes
    assert probes.frechet_distance(one, other) == pytest.approx(expected, rel=1e-4)
    assert probes.frechet_distance(one, one) == pytest.approx(0, abs=1e-4)
    assert probes.frechet_distance(one, other) == pytest.approx(probes.frechet_distance(other, one), rel=1e-6)
