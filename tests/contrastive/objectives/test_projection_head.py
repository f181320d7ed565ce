"""Projection heads: the linear theorem against its closed form, what breaks it, the heads, and what is taught."""

import pytest
import torch

from align.contrastive.objectives.projection_head import (
    ProjectionHead,
    ProjectionHeadSettings,
    Reweighting,
    coarsened,
    course,
    descent,
    flow,
    imbalance,
    post_head,
    pre_head,
    spectral_risk,
)
from align.wings.networks import ConvEncoder, Projected, seeded
from align.wings.parts.pairs import Pairs, cosines, info_nce
from align.wings.views import Views
from tests.alone import Alone

SIZES = torch.tensor([1.0, 1.0, 0.6], dtype=torch.float64)
NOISES = torch.tensor([0.1, 0.7, 0.1], dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ended(start, seed=0, sizes=SIZES, noises=NOISES):
    first, second = flow(sizes, noises, start=start, generator=torch.Generator().manual_seed(seed))[1][-1]
    return first, second


# ---- the linear theorem ----------------------------------------------------------------------------------------------


def test_the_risk_is_the_expected_spectral_loss_of_two_views():
    first, second = random(3, 3), random(2, 3, seed=1)
    # Rademacher features and noise in every combination are the expectation itself.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    pictures = [(s * SIZES, [s * SIZES + e * NOISES for e in signs]) for s in signs]
    f = second @ first
    together = torch.stack([sum(f @ v for v in views) / 8 for _, views in pictures]).square().sum(1).mean()
    out = torch.stack([f @ v for _, views in pictures for v in views])
    apart = (out @ out.T).square().mean()
    torch.testing.assert_close(spectral_risk(first, second, SIZES, NOISES), -2 * together + apart)


def test_the_descent_is_the_risks_gradient():
    first, second = random(3, 3).requires_grad_(), random(3, 3, seed=1).requires_grad_()
    slopes = torch.autograd.grad(spectral_risk(first, second, SIZES, NOISES), (first, second))
    for found, slope in zip(descent(first.detach(), second.detach(), SIZES, NOISES), slopes, strict=True):
        torch.testing.assert_close(found, -slope)


def test_weights_by_hand():
    sizes, noises = torch.tensor([1.0, 0.3, 1.2]).double(), torch.tensor([1.5, 0.1, 0.0]).double()
    torch.testing.assert_close(post_head(sizes, noises), torch.tensor([1 / 3.25, 3.0, 1 / 1.2]).double())
    torch.testing.assert_close(pre_head(sizes, noises).square(), post_head(sizes, noises))


def test_the_closed_form_is_a_minimum():
    root = torch.diag(pre_head(SIZES, NOISES))
    for found in descent(root, root, SIZES, NOISES):
        torch.testing.assert_close(found, torch.zeros(3, 3).double(), atol=1e-12, rtol=0)
    least = spectral_risk(root, root, SIZES, NOISES)
    for seed in range(10):
        moved = root + 0.05 * random(3, 3, seed=seed)
        assert spectral_risk(moved, root, SIZES, NOISES) > least


@pytest.mark.parametrize("seed", [0, 1])
def test_the_flow_ends_at_the_closed_form_after_the_head_and_at_its_root_before_it(seed):
    first, second = ended(0.05, seed)
    torch.testing.assert_close((second @ first).norm(dim=0), post_head(SIZES, NOISES), rtol=1e-6, atol=0)
    torch.testing.assert_close(first.norm(dim=0), pre_head(SIZES, NOISES), rtol=5e-3, atol=0)
    gram = (second @ first).T @ (second @ first)
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-5)
    after, before = (second @ first).norm(dim=0), first.norm(dim=0)
    assert float(before.max() / before.min()) == pytest.approx(float((after.max() / after.min()) ** 0.5), rel=5e-3)


def test_layers_stay_as_unbalanced_as_they_began_all_along():
    _, layers = flow(SIZES, NOISES, start=0.3, generator=torch.Generator().manual_seed(0))
    gaps = layers[:, 0] @ layers[:, 0].mT - layers[:, 1].mT @ layers[:, 1]
    assert float(gaps[0].norm()) > 0.01
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=0, atol=1e-4)


def test_the_theorem_is_of_small_starts():
    errors, gaps = [], []
    for start in (0.05, 0.2, 1.0):
        first, second = ended(start)
        errors.append(float((first.norm(dim=0) / pre_head(SIZES, NOISES) - 1).abs().max()))
        gaps.append(imbalance(first, second))
    assert errors[0] < errors[1] < errors[2]
    assert gaps[0] < gaps[1] < gaps[2]
    assert errors[0] < 5e-3
    assert errors[2] > 0.05


def test_imbalance_is_none_where_layers_share_their_singular_values():
    first = random(4, 3)
    assert imbalance(first, first.T) == pytest.approx(0, abs=1e-12)
    assert imbalance(first, torch.zeros(3, 4, dtype=torch.float64)) == pytest.approx(1)


def test_the_theorems_figures():
    method = ProjectionHead(ProjectionHeadSettings(sizes=[1.0, 0.6], noises=[0.5, 0.1]))
    drawn = {}

    class Desk:
        def generator(self):
            return torch.Generator().manual_seed(0)

        def picture(self, name, draw):
            drawn[name] = draw()

    method.work = Desk()
    found = method.theorem()
    assert found["post_error"] < 1e-6
    assert found["pre_error"] < 0.01
    assert found["inequality_post"] == pytest.approx((0.6 / 0.37) / (1 / 1.25), rel=1e-5)
    assert found["inequality_pre"] == pytest.approx(found["inequality_post"] ** 0.5, rel=0.01)
    assert len(drawn["weights"].axes[0].lines) == 2


def test_the_drawing_shows_each_feature():
    times, layers = flow(SIZES, NOISES, start=0.3, generator=torch.Generator().manual_seed(0))
    heights = [line.get_ydata()[-1] for line in course(times, layers).axes[0].lines]
    assert heights == pytest.approx(post_head(SIZES, NOISES).tolist(), rel=1e-5)


# ---- the heads, and what is taught -----------------------------------------------------------------------------------


def test_the_fixed_head_divides_by_powers_and_is_not_trained():
    head = Reweighting(3, 2.0)
    torch.testing.assert_close(head(torch.ones(2, 3)), torch.tensor([[1.0, 0.5, 0.25]] * 2))
    assert not list(head.parameters())
    plain = torch.randn(4, 5)
    assert torch.equal(Reweighting(5, 1.0)(plain), plain)


def test_coarse_labels():
    fine = torch.arange(10)
    assert coarsened(fine, 10, "remainder").tolist() == [0, 1, 2, 3, 4] * 2
    assert coarsened(fine, 10, "half").tolist() == [0] * 5 + [1] * 5
    assert torch.equal(coarsened(fine, 10, "fine"), fine)


def made(**settings):
    method = ProjectionHead(ProjectionHeadSettings(width=4, features=8, **settings))
    method.work, method.views = Alone(), Views(14, flip=False)
    with seeded(0):
        method.net = Projected(ConvEncoder(1, 4, 8), method.settings.made())
    return method


def batch(n=10):
    images = torch.rand(n, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    return {"images": images, "labels": torch.arange(n) % 3, "index": torch.arange(n), "weight": torch.ones(n)}


def losses_and_slopes(method):
    torch.manual_seed(0)
    losses = method.losses(method.net, batch()).losses
    losses.sum().backward()
    return losses.detach(), torch.cat([p.grad.flatten() for p in method.net.encoder.parameters()])


def test_a_picture_loses_sup_con_over_both_views():
    method = made(head="mlp", temperature=0.2)
    losses, _ = losses_and_slopes(method)
    torch.manual_seed(0)
    z = method.net(method.views.two(batch()["images"]))[1]
    rows = info_nce(cosines(z, z), Pairs.of_classes(batch()["labels"].repeat(2)), temperature=0.2)
    torch.testing.assert_close(losses, ((rows[:10] + rows[10:]) / 2).detach())


def test_the_fixed_head_of_one_is_no_head():
    one, other = losses_and_slopes(made(head="reweighting", kappa=1.0)), losses_and_slopes(made(head="none"))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.allclose(losses_and_slopes(made(head="reweighting", kappa=1.05))[1], other[1])


@pytest.mark.parametrize("head", ["mlp", "reweighting", "none"])
def test_probes_see_as_many_numbers_before_and_after_and_encoders_start_alike(head):
    method = made(head=head)
    before, after = method.net(batch()["images"])
    assert before.shape == after.shape == (10, 8)
    assert torch.equal(before, after) == (head == "none")
    for mine, other in zip(method.net.encoder.parameters(), made(head="none").net.encoder.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kappa": 0.9}, "^kappa must"),
        ({"temperature": 0.0}, "^temperature must"),
        ({"validation": 0.0}, "^validation must"),
        ({"sizes": [1.0]}, "^sizes and noises must be as many"),
        ({"sizes": [1.0, 0.0], "noises": [0.1, 0.1]}, "^sizes must be positive"),
        ({"start": 0.0}, "^start must"),
    ],
)
def test_settings_say_what_is_wrong_with_them(given, message):
    with pytest.raises(ValueError, match=message):
        ProjectionHeadSettings(**given)
