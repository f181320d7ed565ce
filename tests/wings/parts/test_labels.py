"""Joint labels by hand: every one is reached once, and only a transform's own logits count."""

import torch

from align.wings.parts.labels import JointLabels

SPACE = JointLabels(classes=3, transforms=4)


def test_joint_labels_by_hand():
    assert SPACE.size == 12
    assert SPACE.encode(torch.tensor([0, 1, 2]), 3).tolist() == [3, 7, 11]
    assert SPACE.encode(torch.tensor([2]), torch.tensor([0, 1])).tolist() == [8, 9]


def test_each_class_and_transform_has_one_label():
    labels = torch.arange(3).repeat_interleave(4)
    assert SPACE.encode(labels, torch.arange(4).repeat(3)).tolist() == list(range(12))


def test_aggregation_is_the_mean_of_the_diagonal():
    logits = torch.randn(5, 4, 12, dtype=torch.float64)
    expected = torch.stack([sum(logits[:, j, i * 4 + j] for j in range(4)) / 4 for i in range(3)], 1)
    torch.testing.assert_close(SPACE.aggregate(logits), expected)


def test_logits_of_other_transforms_change_nothing():
    logits = torch.randn(2, 4, 12)
    own = torch.zeros(4, 12, dtype=torch.bool)
    for j in range(4):
        own[j, j::4] = True
    disturbed = torch.where(own, logits, torch.randn(2, 4, 12) * 1e6)
    assert torch.equal(SPACE.aggregate(logits), SPACE.aggregate(disturbed))


def test_gradients_reach_the_diagonal_alone():
    logits = torch.randn(1, 4, 12, requires_grad=True)
    SPACE.aggregate(logits).sum().backward()
    expected = torch.zeros(4, 12)
    for j in range(4):
        expected[j, j::4] = 0.25
    assert torch.equal(logits.grad[0], expected)


def test_one_transform_is_the_plain_label_space():
    plain = JointLabels(3, 1)
    logits = torch.randn(5, 1, 3)
    assert torch.equal(plain.aggregate(logits), logits[:, 0])
    assert plain.encode(torch.tensor([2, 0]), 0).tolist() == [2, 0]
