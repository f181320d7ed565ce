import pytest
import torch

from align.wings import processes, views
from align.wings.views import Views


def slopes(images):
    """How much brighter the right half of each picture is than the left one."""
    left, right = images.chunk(2, dim=3)
    return right.mean((1, 2, 3)) - left.mean((1, 2, 3))


def ramps(n=24, size=16):
    return torch.linspace(0.2, 0.8, size).expand(n, 1, size, size).clone()


def test_views_are_pictures_of_the_size_asked_for():
    torch.manual_seed(0)
    seen = Views(12)(torch.rand(5, 3, 20, 20))
    assert seen.shape == (5, 3, 12, 12)
    assert seen.dtype == torch.float32
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_two_views_come_one_after_the_other_and_differ():
    images = torch.stack([torch.full((1, 16, 16), value) for value in (0.2, 0.8)])
    torch.manual_seed(0)
    views = Views(16, jitter=0.1).two(images)
    assert views.shape == (4, 1, 16, 16)
    assert not torch.equal(views[:2], views[2:])
    means = views.mean((1, 2, 3))
    assert (means[[0, 2]] < 0.4).all()  # of the dark picture
    assert (means[[1, 3]] > 0.6).all()


def test_each_picture_of_a_batch_is_seen_its_own_way():
    torch.manual_seed(0)
    seen = Views(16)(ramps(2))
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_seeds_decide():
    views, images = Views(16, noise=0.1), torch.rand(4, 1, 16, 16)
    seen = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        seen.append(views(images))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_only_what_may_be_mirrored_is():
    torch.manual_seed(0)
    assert (slopes(Views(16, flip=False)(ramps())) > 0).all()
    mirrored = slopes(Views(16)(ramps())) < 0
    assert 0 < mirrored.sum() < len(mirrored)


def test_without_cropping_jitter_and_mirroring_a_picture_stays_itself():
    torch.manual_seed(0)
    images = ramps(6)
    seen = Views(16, smallest=0.999, flip=False, jitter=0.0)(images)
    assert (seen - images).abs().mean() < 0.05


def test_noise_has_the_deviation_asked_for_and_jitter_moves_the_brightness():
    grey = torch.full((16, 1, 16, 16), 0.5)
    torch.manual_seed(0)
    plain = Views(16, jitter=0.0)(grey)
    torch.testing.assert_close(plain, grey)
    noisy = Views(16, jitter=0.0, noise=0.1)(grey)
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.1)
    jittered = Views(16, jitter=0.4)(grey).mean((1, 2, 3))
    assert float(jittered.std()) > 0.05


def test_no_gradient_goes_through():
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    assert not Views(16).two(images).requires_grad
    assert not list(Views(16).parameters())


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_two_processes_see_what_one_with_all_pictures_would(monkeypatch, noise):
    images, views_of = torch.rand(8, 3, 16, 16), Views(16, noise=noise)
    torch.manual_seed(5)
    whole = views_of(images)
    for module in (processes, views):
        monkeypatch.setattr(module, "processes", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(5)
        parts.append(views_of(images[4 * rank : 4 * rank + 4]))
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(parts[0], parts[1])
