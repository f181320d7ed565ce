"""Targets, wiring and costs by their formulas; which loss reaches which weights; hard gates, exact baselines."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from align.vision.masked.ftwt import (
    Ftwt,
    FtwtSettings,
    Gated,
    Passed,
    fired,
    gates_by_class,
    heat,
    largest_gap,
    mask_accuracies,
    multiplications,
    places_of,
    shuffled,
    widest,
    wiring,
    wiring_weight,
)

WIDTHS, STRIDES = [4, 6, 5], [1, 2, 1]


def network(**settings):
    torch.manual_seed(0)
    sizes = {"widths": WIDTHS, "strides": STRIDES}
    return Gated(FtwtSettings(**{**sizes, **settings}), channels=3, classes=2).double()


def method(**settings):
    made = Ftwt(FtwtSettings(widths=WIDTHS, strides=STRIDES, **settings))
    train = SimpleNamespace(images=torch.zeros(1, 3, 8, 8))
    made.work = SimpleNamespace(progress=0.0, data=SimpleNamespace(train=train))
    return made


IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BATCH = {"pixel_values": IMAGES, "labels": torch.tensor([0, 1, 1, 0, 1, 0])}


# ---- what fires ----------------------------------------------------------------------------------------------------


def test_heat_is_the_largest_activation():
    activations = torch.zeros(1, 2, 2, 2)
    activations[0, 1, 1, 0] = 3
    assert heat(activations).tolist() == [[0, 3]]


def test_mass_keeps_as_many_as_the_picture_needs():
    heats = torch.tensor([[8.0, 1, 0.5, 0.5], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert fired(heats, 0.8, "mass").sum(1).tolist() == [1, 3, 0]
    assert torch.equal(fired(heats, 1.0, "mass"), heats > 0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_uniform_keeps_the_same_number_of_every_picture(share):
    heats = torch.rand(5, 10) + 0.1
    kept = fired(heats, share, "uniform")
    assert set(kept.sum(1).tolist()) == {round(10 * share)}
    assert (heats.masked_fill(~kept, 9).min(1).values >= heats.masked_fill(kept, 0).max(1).values).all()


def test_silent_channels_never_fire():
    heats = torch.tensor([[2.0, 0, 0, 1]])
    assert fired(heats, 1.0, "uniform").tolist() == [[True, False, False, True]]


# ---- the predictors' loss ------------------------------------------------------------------------------------------


def test_wiring_is_the_formula_in_value_and_gradient():
    votes = [torch.randn(3, width, dtype=torch.float64, requires_grad=True) for width in (4, 6)]
    targets = [torch.rand(3, width) > 0.5 for width in (4, 6)]
    expected = torch.zeros(3, dtype=torch.float64)
    for vote, target in zip(votes, targets, strict=True):
        p = 1 / (1 + torch.exp(-vote))
        expected = expected - torch.where(target, p.log(), (1 - p).log()).sum(1) / 2
    found = wiring(votes, targets)
    torch.testing.assert_close(found, expected)
    for vote, target, gradient in zip(votes, targets, torch.autograd.grad(found.sum(), votes), strict=True):
        torch.testing.assert_close(gradient, (vote.sigmoid() - target.double()).detach() / 2)


def test_after_the_cooldown_predictors_learn_nothing():
    assert [wiring_weight(progress, 2.0, 0.5) for progress in (0.0, 0.49, 0.5, 1.0)] == [2, 2, 0, 0]
    ftwt, net = method(), network()
    ftwt.work.progress = 0.5
    ftwt.losses(net, BATCH).losses.sum().backward()
    assert all(p.grad.abs().max() == 0 for p in net.predictors.parameters())
    assert net.head.weight.grad.abs().max() > 0


# ---- what is multiplied --------------------------------------------------------------------------------------------


def test_multiplications_by_hand_count_the_gate_before():
    kept = [torch.tensor([2.0, 4.0]), torch.tensor([3.0, 5.0])]
    first = [2 * 3 * 9 * 100 + 3 * 2 * 9 * 25, 4 * 3 * 9 * 100 + 5 * 4 * 9 * 25]
    assert multiplications(kept, 3, [100, 25]).tolist() == first


def test_costs_of_the_whole_are_the_convolutions_own():
    net = network(gates="none").eval()
    counted, x = 0, IMAGES[:1]
    for block in net.blocks:
        x = block(x)
        counted += block.convolution.weight.numel() * x.shape[2] * x.shape[3]
    whole = [torch.tensor([float(width)]) for width in WIDTHS]
    assert multiplications(whole, 3, places_of((8, 8), STRIDES)).item() == counted


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (14, 5)])
def test_places_are_those_of_the_convolutions(height, width):
    net, x, found = network(gates="none").eval(), IMAGES.new_zeros(1, 3, height, width), []
    for block in net.blocks:
        x = block(x)
        found.append(x.shape[2] * x.shape[3])
    assert places_of((height, width), STRIDES) == found


def test_half_of_every_layer_costs_a_quarter_of_all_but_the_first():
    ftwt = method()
    halves = [torch.tensor([[True, False] * (width // 2)]) for width in (4, 6, 4)]
    whole = [torch.ones(1, width) for width in (4, 6, 4)]
    first, rest = 4 * 3 * 9 * 64, (6 * 4 + 4 * 6) * 9 * 16
    assert ftwt.costs(whole) == pytest.approx(1)
    assert ftwt.costs(halves) == pytest.approx((first / 2 + rest / 4) / (first + rest))
    nothing = [torch.zeros(1, width) for width in (4, 6, 4)]
    assert ftwt.costs(nothing) == 0


# ---- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["decoupled", "joint"])
def test_what_is_off_is_zero_and_what_is_on_is_as_it_was(mode):
    net = network(mode=mode)
    passed = net(IMAGES)
    for gate, vote in zip(passed.gates, passed.votes, strict=True):
        assert torch.equal(gate.detach(), (vote > 0).double())  # hard, no soft sigmoid
    x = IMAGES
    for block, gate in zip(net.blocks, passed.gates, strict=True):
        x = block(x) * gate[:, :, None, None]
    torch.testing.assert_close(net.head(x.mean((2, 3))), passed.answers)


def test_decoupled_losses_train_their_own_weights():
    ftwt, net = method(mode="decoupled"), network(mode="decoupled")
    passed = net(IMAGES)
    task = F.cross_entropy(passed.answers, BATCH["labels"])
    predictors, rest = list(net.predictors.parameters()), [*net.blocks.parameters(), *net.head.parameters()]
    assert all(g is None for g in torch.autograd.grad(task, predictors, retain_graph=True, allow_unused=True))
    wired = wiring(passed.votes, passed.targets).sum()
    assert all(g is None for g in torch.autograd.grad(wired, rest, retain_graph=True, allow_unused=True))
    expected = torch.autograd.grad(task, rest, retain_graph=True)
    found = torch.autograd.grad(ftwt.losses(net, BATCH).losses.mean(), rest)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_joint_losses_reach_both():
    net = network(mode="joint")
    passed = net(IMAGES)
    task = F.cross_entropy(passed.answers, BATCH["labels"])
    votes = [p.vote.bias for p in net.predictors]
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(task, votes, retain_graph=True))
    wired = wiring(passed.votes, passed.targets).sum()
    before = [block.convolution.weight for block in net.blocks][:-1]  # no predictor sees what the last one puts out
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(wired, before))


def test_targets_are_of_the_activations_before_the_gate():
    net = network(share=1.0)
    with torch.no_grad():
        for predictor in net.predictors:
            predictor.vote.bias.fill_(-100)  # everything is off
    passed = net(IMAGES)
    assert sum(gate.sum() for gate in passed.gates) == 0
    assert torch.equal(passed.targets[0], heat(net.blocks[0](IMAGES)) > 0)


def test_predictors_see_the_softmax_of_the_mean_or_the_mean():
    mean = IMAGES.mean((2, 3))
    share = mean.exp() / mean.exp().sum(1, keepdim=True)
    for softmax, seen in ((True, share), (False, mean)):
        predictor = network(softmax=softmax).predictors[0]
        torch.testing.assert_close(predictor(IMAGES), seen @ predictor.vote.weight.T + predictor.vote.bias)


# ---- baselines -----------------------------------------------------------------------------------------------------


def test_no_gates_are_the_dense_network():
    net = network(gates="none")
    x = IMAGES
    for block in net.blocks:
        x = block(x)
    found = method(gates="none").losses(net, BATCH).losses
    expected = F.cross_entropy(net.head(x.mean((2, 3))), BATCH["labels"], reduction="none")
    assert torch.equal(found, expected)
    weights = list(net.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(found.sum(), weights), torch.autograd.grad(expected.sum(), weights), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_random_gates_keep_as_many_as_static_ones_and_others_for_every_picture():
    dense, net = network(gates="none"), network(gates="random")
    net.begin_with(dense, [0.5, 0.5, 0.4])
    gates = net(IMAGES).gates
    assert [gate.sum(1).unique().tolist() for gate in gates] == [[2], [3], [2]]
    assert any(len(gate.unique(dim=0)) > 1 for gate in gates)
    mask = torch.arange(40).expand(200, 40) < 10
    often = shuffled(mask, torch.rand(mask.shape)).double().mean(0)
    assert (often > 0.1).all()
    assert (often < 0.4).all()


def test_static_gates_are_the_widest_scales_for_all_pictures():
    assert widest(torch.tensor([0.1, -3.0, 2.0, 1.0]), 0.5).tolist() == [False, True, True, False]
    assert widest(torch.tensor([0.1, 2.0]), 0.01).sum() == 1
    dense, net = network(gates="none"), network(gates="static")
    torch.nn.init.normal_(dense.blocks[1].norm.weight)
    net.begin_with(dense, [1.0, 0.5, 0.2])
    gates = net(IMAGES).gates
    assert [gate.sum(1).unique().tolist() for gate in gates] == [[4], [3], [1]]
    assert torch.equal(gates[1][0].bool(), widest(dense.blocks[1].norm.weight.detach(), 0.5))
    assert not any(p.requires_grad for p in net.static)


@pytest.mark.parametrize("gates", ["learned", "random", "static", "none"])
def test_every_arm_begins_with_the_dense_network_s_weights_of_its_own(gates):
    dense, net = network(gates="none"), network(gates=gates)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(1)
    net.begin_with(dense, [0.5, 0.5, 0.5])
    for (name, mine), theirs in zip(net.blocks.state_dict().items(), dense.blocks.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert torch.equal(net.head.weight, dense.head.weight)
    assert net.head.weight is not dense.head.weight
    assert bool(net.predictors) == (gates == "learned")


# ---- figures -------------------------------------------------------------------------------------------------------


def test_mask_accuracies_by_hand():
    target = torch.tensor([[True, False], [True, True], [True, False], [True, False]])
    gate = torch.tensor([[True, False], [True, False], [False, False], [True, False]])
    found = mask_accuracies(Passed(torch.zeros(4, 1), [], [gate, target], [target, target]))
    assert found == {
        "mask_accuracy_1": 0.75,
        "mask_accuracy_2": 1.0,
        "mask_accuracy_lowest": 0.75,
        "mask_gain": pytest.approx((0.75 + 1.0) / 2 - (1 + 0.75) / 2),
    }


def test_layers_that_make_up_for_each_other_are_far_from_foreseen():
    gates = [torch.tensor([[True, True]]), torch.tensor([[False, False], [False, True]])]
    foreseen = [torch.tensor([[True, False], [True, True]]), torch.tensor([[True, False], [True, False]])]
    assert largest_gap(gates, foreseen) == 0.25


def test_the_picture_has_a_row_a_class():
    figure = gates_by_class(torch.rand(3, 7), ("a", "b", "c"))
    assert figure.axes[0].images[0].get_array().shape == (3, 7)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 0.0}, "share must"),
        ({"share": 1.1}, "share must"),
        ({"cooldown": 0.0}, "cooldown must"),
        ({"validation": 0.0}, "validation must"),
        ({"coefficient": -1.0}, "coefficient must"),
        ({"dense_steps": 0}, "dense_steps must"),
        ({"strides": [1]}, "strides must"),
        ({"widths": [], "strides": []}, "strides must"),
    ],
)
def test_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        FtwtSettings(**settings)
