"""EnsLoss: what every draw must be, what draws are on average, and the fixed losses beside it."""

import math

import pytest
import torch
from torch import nn

from align.learning.supervision.ensloss import (
    BELOW_ZERO,
    FIXED,
    EnsLoss,
    EnsLossSettings,
    ensemble_losses,
    flipped,
    inverse_box_cox,
    random_derivative,
)
from align.wings.data.digits import Settings as Digits
from align.wings.data.digits import load
from align.wings.recipe import MethodRecipe
from align.wings.workbench import Workbench

POWERS = (-0.9, -0.3, 0.0, 0.4, 1.0)


def draw(seed: int, n: int = 200, power: float = 0.0, spread: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    margins = torch.randn(n, generator=generator, dtype=torch.float64) * spread
    margins[0] = 0.0
    draws = torch.randn(n, generator=generator, dtype=torch.float64)
    return margins, draws, random_derivative(margins, draws, power)


# ---- what the theory asks of every batch -------------------------------------------------------------------------


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("seed", range(5))
def test_every_draw_is_the_derivative_of_a_convex_calibrated_loss(seed, power):
    margins, _, derivative = draw(seed, power=power)
    by_margin = derivative[margins.argsort()]
    assert (by_margin.diff() >= 0).all()  # convex: the derivative does not fall with the margin
    assert (derivative < 0).all()  # calibrated: negative at 0, and everywhere
    assert (derivative >= -1 - BELOW_ZERO).all()
    far = margins > 1
    assert far.any()
    assert (margins * (derivative + BELOW_ZERO)).abs()[far].max() <= 1  # a tail no steeper than a logarithm's


def test_by_hand():
    margins = torch.tensor([2.0, -1.0, 0.5])
    draws = torch.tensor([-1.0, -2.0, 3.0])  # -e^r is -.3679, -.1353 and -20.1, which is clipped
    expected = torch.tensor([-math.exp(-2) / 2, -1.0, -math.exp(-1)]) - 1e-6
    torch.testing.assert_close(random_derivative(margins, draws), expected)


def test_draws_are_sorted_as_the_margins_and_not_as_they_come():
    margins, draws, derivative = draw(3)
    unsorted = (-draws.exp()).clamp_min(-1)
    assert not torch.allclose(derivative, unsorted - BELOW_ZERO)
    near = margins <= 1
    shuffled = torch.randperm(len(draws), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(random_derivative(margins, draws[shuffled]), derivative)
    assert set(derivative[near].tolist()) <= {v - BELOW_ZERO for v in unsorted.tolist()}


@pytest.mark.parametrize("power", POWERS)
def test_inverse_box_cox_undoes_the_transform(power):
    values = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    x = inverse_box_cox(values, power)
    again = x.log() if power == 0 else (x.pow(power) - 1) / power
    torch.testing.assert_close(again, values)


def test_inverse_box_cox_beyond_its_domain_ends_at_zero_or_is_clipped():
    far = torch.tensor([-5.0, 5.0])
    assert inverse_box_cox(far, 1.0)[0] == 0
    assert random_derivative(torch.tensor([-1.0, 0.5]), far.flip(0), -1.0).isfinite().all()
    near = inverse_box_cox(torch.tensor(0.7, dtype=torch.float64), 1e-7)
    torch.testing.assert_close(near, torch.tensor(0.7, dtype=torch.float64).exp(), rtol=1e-6, atol=0)


# ---- the gradient ------------------------------------------------------------------------------------------------


def test_the_gradient_is_the_drawn_derivative_and_none_flows_through_it():
    margins, draws, derivative = draw(1)
    leaf = margins.clone().requires_grad_()
    drawn = random_derivative(leaf, draws)  # from margins in the graph, as in training
    assert not drawn.requires_grad
    ensemble_losses(leaf, drawn).mean().backward()
    torch.testing.assert_close(leaf.grad, derivative / len(margins))


def test_a_derivative_in_the_graph_is_stopped():
    margins = torch.tensor([0.2, 0.4], requires_grad=True)
    ensemble_losses(margins, -margins.exp()).sum().backward()
    torch.testing.assert_close(margins.grad, -margins.detach().exp())


# ---- on average --------------------------------------------------------------------------------------------------


def test_many_draws_average_to_one_convex_loss():
    margins = torch.linspace(-2, 0.9, 16, dtype=torch.float64)  # before the tail rule
    generator = torch.Generator().manual_seed(0)
    halves = []
    for _ in range(2):
        draws = torch.randn(3000, 16, generator=generator, dtype=torch.float64)
        halves.append(torch.stack([random_derivative(margins, row) for row in draws]).mean(0))
    torch.testing.assert_close(halves[0], halves[1], atol=0.02, rtol=0)
    assert (halves[0].diff() >= -1e-12).all()
    # sorted or not, the mean over the batch is that of one draw: E min(e^r, 1) = e^(1/2) Phi(-1) + 1/2
    phi = math.erfc(1 / math.sqrt(2)) / 2
    assert float(halves[0].mean()) == pytest.approx(-(math.exp(0.5) * phi + 0.5), abs=0.01)


# ---- the fixed losses --------------------------------------------------------------------------------------------


def test_fixed_losses_are_those_of_the_textbook_in_value_and_gradient():
    z = torch.linspace(-3, 3, 14, dtype=torch.float64, requires_grad=True)
    p = 1 / (1 + torch.exp(-z))
    expected = {
        "bce": (-p.log(), -(1 - p)),
        "hinge": (torch.maximum(1 - z, torch.zeros_like(z)), -(z < 1).double()),
        "exponential": (torch.exp(-z), -torch.exp(-z)),
        "focal": (-((1 - p) ** 2) * p.log(), (1 - p) ** 2 * (2 * p * p.log() - (1 - p))),
    }
    assert set(expected) == set(FIXED)
    for name, (value, slope) in expected.items():
        torch.testing.assert_close(FIXED[name](z), value, msg=name)
        (found,) = torch.autograd.grad(FIXED[name](z).sum(), z)
        torch.testing.assert_close(found, slope.detach(), msg=name)


# ---- the method --------------------------------------------------------------------------------------------------


def bench(tmp_path, seed=1, **settings):
    recipe = MethodRecipe(
        method="ensloss",
        settings=EnsLossSettings(rows=60, width=16, noise_features=8, **settings),
        data="digits",
        data_settings=Digits(),
        trainer={"seed": seed, "max_steps": 3, "per_device_train_batch_size": 20, "learning_rate": 0.01},
    )
    return Workbench(recipe, load(Digits()), tmp_path, keeps=False)


class Given(nn.Module):
    def forward(self, inputs):
        return inputs[:, :1]


@pytest.mark.parametrize("name", sorted(FIXED))
def test_the_switch_goes_to_the_fixed_loss_of_the_same_margins(tmp_path, name):
    work = bench(tmp_path, loss=name)
    method = EnsLoss(work.recipe.settings)
    method.work = work
    inputs, signs = torch.tensor([[0.3], [-0.8], [1.7]]), torch.tensor([1.0, -1.0, -1.0])
    found = method.losses(Given(), {"inputs": inputs, "signs": signs})
    torch.testing.assert_close(found.losses, FIXED[name](inputs[:, 0] * signs))
    assert found.metrics["right"].tolist() == [1, 1, 0]


def test_the_draw_depends_on_seed_and_step_alone(tmp_path):
    inputs = torch.linspace(-1, 1, 12)[:, None]
    batch = {"inputs": inputs, "signs": torch.ones(12)}

    def slopes(seed):
        work = bench(tmp_path, seed)
        method = EnsLoss(work.recipe.settings)
        method.work = work
        torch.rand(7)  # whatever was drawn before has no say
        return method.losses(Given(), batch).losses / inputs[:, 0]

    torch.testing.assert_close(slopes(1), slopes(1))
    assert not torch.allclose(slopes(1), slopes(2))


def test_processes_share_one_draw_over_the_rows_of_all(tmp_path):
    inputs = torch.linspace(-1.5, 2, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(0))][:, None]
    work = bench(tmp_path)
    method = EnsLoss(work.recipe.settings)
    method.work = work
    whole = method.losses(Given(), {"inputs": inputs, "signs": torch.ones(12)}).losses

    class Rank:
        step, generator, recipe = 0, staticmethod(work.generator), work.recipe
        gather = staticmethod(lambda rows: inputs[:, 0])

        def __init__(self, rank):
            self.place = lambda rows: torch.arange(6) + 6 * rank

    for rank in (0, 1):
        method.work = Rank(rank)
        mine = slice(6 * rank, 6 * rank + 6)
        found = method.losses(Given(), {"inputs": inputs[mine], "signs": torch.ones(6)}).losses
        torch.testing.assert_close(found, whole[mine])


def test_the_power_stays_or_changes_by_the_period(tmp_path):
    work = bench(tmp_path)

    class Later:
        recipe, processes, generator = work.recipe, 1, staticmethod(work.generator)
        step = 0

    def powers(period):
        method = EnsLoss(EnsLossSettings(rows=60, period=period))
        method.work = Later()
        found = []
        for step in range(12):  # three steps an epoch
            Later.step = step
            found.append(method.power())
        return found

    assert powers(-1) == [0.0] * 12
    every = powers(1)
    assert len(set(every)) == 4
    assert every[:3] == [every[0]] * 3
    assert all(-1 <= power <= 1 for power in every)
    assert len(set(powers(2))) == 2


def test_flips_are_as_many_as_asked_and_only_those():
    signs = torch.ones(50)
    wrong = flipped(signs, 0.1, torch.Generator().manual_seed(0))
    assert int((wrong == -1).sum()) == 5
    assert int((wrong == 1).sum()) == 45
    torch.testing.assert_close(flipped(signs, 0.0, torch.Generator()), signs)


def test_a_run_says_what_it_fits_and_what_it_does_not(tmp_path):
    figures = EnsLoss(bench(tmp_path).recipe.settings).run(bench(tmp_path))
    assert set(figures) == {"train_accuracy", "validation_accuracy", "test_accuracy"}
    assert all(0 <= value <= 1 for value in figures.values())


def test_more_rows_than_there_are(tmp_path):
    work = bench(tmp_path)
    with pytest.raises(ValueError, match=r"settings\.rows: \d+ pictures are left"):
        EnsLoss(EnsLossSettings(rows=5000)).run(work)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("period", 0),
        ("period", -2),
        ("clip", 0.0),
        ("rows", 0),
        ("width", 0),
        ("noise_features", -1),
        ("momentum", 1.0),
        ("flips", 0.5),
        ("validation", 1.0),
    ],
)
def test_settings_that_cannot_be(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must"):
        EnsLossSettings(**{setting: value})
