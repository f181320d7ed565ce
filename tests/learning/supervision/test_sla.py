"""The paper's formulas retyped, M = 1 as cross entropy, the diagonal alone aggregated, a teacher without gradient."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from align.learning.supervision.sla import (
    Sla,
    SlaSettings,
    augmented_loss,
    colour_permutations,
    distilled,
    joint_loss,
    multi_task_loss,
    rotations,
    untransformed,
)
from align.wings.gallery import Gallery
from align.wings.parts.labels import JointLabels

N, M, ROWS = 5, 4, 3
SPACE = JointLabels(N, M)
LABELS = torch.tensor([4, 0, 2])


def drawn(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


def gradient_of(loss, *inputs):
    return torch.autograd.grad(loss.sum(), inputs)


# ---- transforms ----------------------------------------------------------------------------------------------------


def test_a_pixel_turns_against_the_clock():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 0, 0] = 1
    corners = [tuple(turned.nonzero()[0, 1:].tolist()) for turned in rotations(image)[0]]
    assert corners == [(0, 0), (2, 0), (2, 2), (0, 2)]


def test_colours_come_in_each_order_once_and_as_they_are_first():
    image = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None].expand(1, 3, 2, 2)
    made = colour_permutations(image)[0, :, :, 0, 0].tolist()
    assert made[0] == [1, 2, 3]
    assert len({tuple(one) for one in made}) == 6


# ---- the joint loss ------------------------------------------------------------------------------------------------


def test_joint_loss_is_the_formula_in_value_and_gradient():
    logits = drawn(ROWS, M, N * M)
    expected = torch.zeros(ROWS, dtype=torch.float64)
    by_hand = torch.zeros(ROWS, M, N * M, dtype=torch.float64)
    for i in range(ROWS):
        for j in range(M):
            p = logits[i, j].exp() / logits[i, j].exp().sum()
            expected[i] = expected[i] - torch.log(p[LABELS[i] * M + j]) / M
            by_hand[i, j] = p.detach() / M
            by_hand[i, j, LABELS[i] * M + j] -= 1 / M
    found = joint_loss(logits, LABELS, SPACE)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient_of(found, logits)[0], by_hand)
    torch.testing.assert_close(joint_loss(logits, LABELS, SPACE, "sum"), M * found)


def test_with_one_transform_it_is_cross_entropy():
    logits = drawn(ROWS, 1, N)
    found = joint_loss(logits, LABELS, JointLabels(N, 1))
    assert torch.equal(found, F.cross_entropy(logits[:, 0], LABELS, reduction="none"))
    assert torch.equal(JointLabels(N, 1).aggregate(logits), logits[:, 0])


def test_equal_logits_aggregate_to_those_of_one():
    one = drawn(ROWS, N).detach()
    logits = one[:, None, :, None].expand(ROWS, M, N, M).reshape(ROWS, M, N * M)
    torch.testing.assert_close(SPACE.aggregate(logits), one)


# ---- the baselines' losses -----------------------------------------------------------------------------------------


def test_multi_task_is_the_sum_of_two_means_in_value_and_gradient():
    logits, turned = drawn(ROWS, M, N), drawn(ROWS, M, M, seed=1)
    expected = torch.zeros(ROWS, dtype=torch.float64)
    for j in range(M):
        which = torch.full((ROWS,), j)
        expected = expected + F.cross_entropy(logits[:, j], LABELS, reduction="none") / M
        expected = expected + 0.5 * F.cross_entropy(turned[:, j], which, reduction="none") / M
    found = multi_task_loss(logits, turned, LABELS, 0.5)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradient_of(found, logits, turned), gradient_of(expected, logits, turned), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_second_task_that_counts_nothing_leaves_augmentation():
    logits, turned = drawn(ROWS, M, N), drawn(ROWS, M, M, seed=1)
    found, baseline = multi_task_loss(logits, turned, LABELS, 0.0), augmented_loss(logits, LABELS)
    assert torch.equal(found, baseline)
    assert torch.equal(gradient_of(found, logits)[0], gradient_of(baseline, logits)[0])


def test_augmentation_of_one_transform_is_cross_entropy():
    logits = drawn(ROWS, 1, N)
    assert torch.equal(augmented_loss(logits, LABELS), F.cross_entropy(logits[:, 0], LABELS, reduction="none"))


# ---- distillation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_the_formula_in_value_and_gradient(temperature):
    single, taught = drawn(ROWS, N), drawn(ROWS, N, seed=1)
    p, q = (taught / temperature).softmax(1).detach(), (single / temperature).softmax(1)
    expected = -single.log_softmax(1)[range(ROWS), LABELS] + temperature**2 * (p * (p / q).log()).sum(1)
    found = distilled(single, taught, LABELS, temperature)
    torch.testing.assert_close(found, expected)
    by_hand = single.softmax(1) - F.one_hot(LABELS, N) + temperature * (q - p)
    torch.testing.assert_close(gradient_of(found, single)[0], by_hand.detach())


def test_the_teacher_gets_no_gradient():
    joint, single = drawn(ROWS, M, N * M), drawn(ROWS, N, seed=1)
    taught = distilled(single, SPACE.aggregate(joint), LABELS)
    assert torch.autograd.grad(taught.sum(), joint, allow_unused=True)[0] is None


def test_a_student_that_agrees_has_only_the_label_to_learn():
    single = drawn(ROWS, N)
    found = distilled(single, single.detach(), LABELS)
    torch.testing.assert_close(found, F.cross_entropy(single, LABELS, reduction="none"))


# ---- the method ----------------------------------------------------------------------------------------------------


def gallery(channels=1, size=8, n=6):
    images = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(3))
    return Gallery(images=images, labels=torch.arange(n) % 3, classes=("a", "b", "c"))


def prepared(pictures=None, **settings):
    method = Sla(SlaSettings(**settings))
    method.work = SimpleNamespace(progress=0.0, over=lambda function, rows: function(rows).detach())
    method.prepare(gallery() if pictures is None else pictures)
    return method


def answers_of(method, n=4, seed=0):
    sizes = {
        name: (n, size) if name == "single" else (n, method.space.transforms, size)
        for name, size in method.sizes().items()
    }
    return {name: drawn(*shape, seed=seed + place) for place, (name, shape) in enumerate(sizes.items())}


@pytest.mark.parametrize(
    ("objective", "heads"),
    [
        ("sla", {"joint": 12}),
        ("sla_sd", {"joint": 12, "single": 3}),
        ("plain", {"joint": 3}),
        ("augmentation", {"classes": 3}),
        ("multi_task", {"classes": 3, "transform": 4}),
    ],
)
def test_an_objective_has_the_heads_it_trains_and_no_other(objective, heads):
    method = prepared(objective=objective)
    assert method.sizes() == heads
    answers = answers_of(method)
    loss = method.lost(answers, torch.tensor([0, 1, 2, 0]))
    assert loss.shape == (4,)
    assert all(part.abs().sum() > 0 for part in gradient_of(loss, *answers.values()))


def test_plain_is_cross_entropy_of_the_picture_as_it_is():
    method = prepared(objective="plain")
    images, labels = gallery().images, gallery().labels
    assert torch.equal(method.transform(images), untransformed(images))
    answers = answers_of(method, n=6)
    expected = F.cross_entropy(answers["joint"][:, 0], labels, reduction="none")
    assert torch.equal(method.lost(answers, labels), expected)
    single, aggregated = method.classified(answers)
    assert torch.equal(single, aggregated)


def test_distillation_adds_to_sla_and_leaves_its_joint_gradient():
    plain, taught = prepared(objective="sla"), prepared(objective="sla_sd")
    labels, answers = torch.tensor([0, 1, 2, 0]), answers_of(taught)
    joint = answers["joint"]
    alone = gradient_of(plain.lost({"joint": joint}, labels), joint)[0]
    assert torch.equal(gradient_of(taught.lost(answers, labels), joint)[0], alone)


def test_one_picture_is_judged_by_the_labels_of_no_turn_and_all_by_their_own():
    method = prepared(objective="sla")
    logits = torch.full((1, 4, 12), 50.0)  # what belongs to other transforms would win, were it counted
    own = torch.tensor([[0.0, 1, 2], [3, 0, 0], [3, 0, 0], [3, 0, 0]])
    for j in range(4):
        logits[0, j, j::4] = own[j]
    single, aggregated = method.classified({"joint": logits})
    assert single.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(aggregated, own.mean(0)[None])
    assert torch.equal(method.space.by_transform(logits)[0], own)


def test_the_single_head_answers_where_there_is_one():
    method = prepared(objective="sla_sd")
    answers = answers_of(method)
    single, aggregated = method.classified(answers)
    assert single is answers["single"]
    assert torch.equal(aggregated, method.space.aggregate(answers["joint"]))


@pytest.mark.parametrize(
    ("objective", "as_answered"), [("sla", "aggregated"), ("sla_sd", "single"), ("plain", "single")]
)
def test_only_joint_labels_answer_by_more_than_one_look(objective, as_answered):
    method = prepared(objective=objective)
    truth = gallery(n=3)
    right, wrong = F.one_hot(truth.labels, 3).double(), F.one_hot((truth.labels + 1) % 3, 3).double()
    method.logits = lambda _: (wrong, right)
    found = method.accuracies(truth)
    assert (found["single"], found["aggregated"]) == (0, 1)
    assert found["accuracy"] == found[as_answered]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature must"),
        ({"coefficient": -1.0}, "coefficient must"),
        ({"validation": 1.0}, "validation must"),
    ],
)
def test_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        SlaSettings(**settings)


def test_pictures_that_cannot_be_transformed_are_refused():
    with pytest.raises(ValueError, match=r"^settings\.transform: colour needs pictures of three channels"):
        prepared(transform="colour")
    flat = Gallery(images=torch.rand(2, 1, 4, 6), labels=torch.zeros(2).long(), classes=("a",))
    with pytest.raises(ValueError, match=r"^settings\.transform: rotation needs square pictures"):
        prepared(flat)
    assert prepared(gallery(channels=3), transform="colour").space.size == 18
