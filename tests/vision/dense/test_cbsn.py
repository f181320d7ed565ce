from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from align.vision.dense import cbsn
from align.vision.dense.cbsn import Branch, Cbsn, CbsnSettings, ConditionalBlindSpot, MaskableConv


def network(channels=1, width=12, modules=2):
    torch.manual_seed(0)
    net = ConditionalBlindSpot(channels, width, modules)
    for number in net.parameters():
        if number.ndim == 1:  # biases that keep ReLUs open
            torch.nn.init.uniform_(number, 0.5, 1.0)
    return net.double()


def jacobian(function, image):
    """d f(x)[p] / d x of every pixel p, of shape (pixels, channels, height, width): a copy of the picture for each."""
    pixels = image.shape[2] * image.shape[3]
    copies = image.expand(pixels, -1, -1, -1).clone().requires_grad_()
    own = function(copies).flatten(2).diagonal(dim1=0, dim2=2)
    return torch.autograd.grad(own.sum(), copies)[0]


def own_gradients(found):
    """d f(x)[p] / d x[p] of every pixel and channel."""
    return found.flatten(2).diagonal(dim1=0, dim2=2)


def method(work=None, **settings):
    made = Cbsn(CbsnSettings(width=8, modules=1, **settings))
    made.work = work or SimpleNamespace(progress=1.0, over=lambda function, rows, batch_size: function(rows).detach())
    torch.manual_seed(0)
    made.net = ConditionalBlindSpot(1, 8, 1)
    return made


def batch(n=2, size=20):
    return {"images": torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1))}


# ---- the blind spot


def test_no_output_sees_its_own_pixel_and_with_the_switch_off_every_one_does():
    net, image = network().float(), torch.randn(1, 1, 11, 9)
    found = jacobian(lambda x: net.see(x, masked=True), image)
    assert (own_gradients(found) == 0).all()
    assert (found != 0).any()
    seeing = own_gradients(jacobian(lambda x: net.see(x, masked=False), image))
    assert (seeing != 0).double().mean() > 0.8  # but where all ReLUs are shut


@pytest.mark.parametrize("kernel", [3, 5])
def test_blindness_leaks_through_other_dilations(kernel):
    image = torch.randn(1, 2, 8, 8)

    def leak(dilation):
        torch.manual_seed(0)
        branch = Branch(2, 2, kernel, dilation)
        return float(own_gradients(jacobian(lambda x: branch(x, True), image)).abs().max())

    assert leak(None) == leak(kernel // 2 + 1) == 0
    assert leak(1) > 0
    assert leak(kernel // 2) > 0


def test_the_switch_leaves_the_weights_and_masks_one_tap():
    torch.manual_seed(0)
    conv, image = MaskableConv(3, 5), torch.randn(2, 3, 7, 7)
    assert torch.equal(conv(image, masked=False), F.conv2d(image, conv.weight, conv.bias, padding=2))
    middle = F.conv2d(image, conv.weight[:, :, 2:3, 2:3])
    torch.testing.assert_close(conv(image, masked=True), conv(image, masked=False) - middle)
    assert (conv.weight[:, :, 2, 2] != 0).all()
    assert "around" not in conv.state_dict()


# ---- the objective


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_downsampling_is_undone_and_takes_every_nth_pixel(stride):
    images = torch.randn(3, 2, 20, 10)
    coarse = cbsn.shuffled_down(images, stride)
    assert coarse.shape == (3 * stride**2, 2, 20 // stride, 10 // stride)
    assert torch.equal(cbsn.shuffled_up(coarse, stride), images)
    assert torch.equal(coarse[stride**2 - 1], images[0, :, stride - 1 :: stride, stride - 1 :: stride])


def test_subsampling_keeps_one_pixel_of_each_cell():
    images, cells = torch.arange(2 * 16.0).view(2, 1, 4, 4), torch.tensor([[[0, 1], [2, 3]], [[3, 2], [1, 0]]])
    expected = [[[[0, 3], [12, 15]]], [[[16 + 5, 16 + 6], [16 + 9, 16 + 10]]]]
    assert cbsn.subsampled(images, cells).tolist() == expected
    drawn = cbsn.random_cells(torch.zeros(50, 3, 8, 8))
    assert drawn.shape == (50, 4, 4)
    assert set(drawn.unique().tolist()) == {0, 1, 2, 3}


def test_the_loss_is_the_papers_in_value_and_gradient():
    net, image = network(channels=2, modules=1), torch.randn(2, 2, 10, 10, dtype=torch.float64)
    cells, a, weight = cbsn.random_cells(image), 0.3, 2.0
    blind, whole, small = net(image, 5, cells)
    itself, invariant = cbsn.distance(whole, image), cbsn.invariance(whole, small, cells)
    ours = cbsn.total(cbsn.distance(blind, image), itself, invariant, ramp=a, weight=weight).mean()
    found = torch.autograd.grad(ours, list(net.parameters()))
    assert all(one.any() for one in found)

    def kept(x):  # row, column and cell spelt out
        picked = torch.empty(2, 2, 5, 5, dtype=torch.float64)
        for n in range(2):
            for i in range(5):
                for j in range(5):
                    down, right = divmod(int(cells[n, i, j]), 2)
                    picked[n, :, i, j] = x[n, :, 2 * i + down, 2 * j + right]
        return picked

    coarse = torch.zeros_like(image)
    for down in range(5):
        for right in range(5):
            coarse[:, :, down::5, right::5] = net.see(image[:, :, down::5, right::5], masked=True)
    l_blind, l_self = (coarse - image).abs().mean(), (net.see(image, masked=False) - image).abs().mean()
    target = net.see(kept(image), masked=True).detach()
    l_inv = (kept(net.see(image, masked=False)) - target).abs().mean()
    paper = l_blind + a * (l_self + weight * l_inv)
    torch.testing.assert_close(ours, paper)
    for one, other in zip(found, torch.autograd.grad(paper, list(net.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_no_gradient_goes_through_the_target_and_other_cells_are_another_loss():
    whole = torch.randn(2, 1, 8, 8, requires_grad=True)
    small = torch.randn(2, 1, 4, 4, requires_grad=True)
    cells = torch.zeros(2, 4, 4, dtype=torch.long)
    cbsn.invariance(whole, small, cells).sum().backward()
    assert small.grad is None
    assert (whole.grad[:, :, ::2, ::2] != 0).all()
    assert whole.grad.count_nonzero() == 2 * 16
    # the identity is invariant under the same choice of pixels, and under no other
    assert not cbsn.invariance(whole, cbsn.subsampled(whole, cells), cells).any()
    assert cbsn.invariance(whole, cbsn.subsampled(whole, cells), cells + 1).all()


def test_the_forward_uses_the_given_cells_for_the_target():
    net, image = network(), torch.randn(1, 1, 10, 10, dtype=torch.float64)
    cells = cbsn.random_cells(image)
    _, _, small = net(image, 5, cells)
    assert not small.requires_grad
    assert torch.equal(small, net.see(cbsn.subsampled(image, cells), masked=True))


def test_normalising_is_undone_and_flat_pictures_stay_finite():
    images = torch.rand(3, 1, 10, 10, dtype=torch.float64)
    known, mean, deviation = cbsn.normalised(images)
    torch.testing.assert_close(known.mean((1, 2, 3)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(known.std((1, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(known * deviation + mean, images)
    flat = cbsn.normalised(torch.full((1, 1, 10, 10), 0.5))
    assert not flat[0].any()
    assert float(flat[2]) == pytest.approx(1 / 10)


def test_the_method_learns_the_same_whatever_the_brightness_and_contrast():
    made, rows = method(), batch()
    torch.manual_seed(3)
    one = made.losses(made.net, rows).losses
    torch.manual_seed(3)
    other = made.losses(made.net, {"images": 0.3 * rows["images"] + 0.4}).losses
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_turned_pictures_are_the_eight_of_a_square():
    image = torch.arange(9.0).view(1, 3, 3)
    torch.manual_seed(0)
    found = {tuple(row.flatten().tolist()) for row in cbsn.turned(image.expand(200, 1, 3, 3))}
    assert len(found) == 8
    assert tuple(range(9)) in found
    assert all(sorted(one) == list(range(9)) for one in found)


# ---- the switch to the baselines


def gradients(made, seed=5):
    torch.manual_seed(seed)
    found = made.losses(made.net, batch())
    return found, torch.autograd.grad(found.losses.sum(), list(made.net.parameters()))


def test_before_the_ramp_begins_the_method_is_the_downsampled_baseline():
    start = SimpleNamespace(progress=0.0)
    method_losses, method_gradients = gradients(method(start))
    baseline_losses, baseline_gradients = gradients(method(start, objective="downsampled"))
    assert torch.equal(method_losses.losses, baseline_losses.losses)
    for one, other in zip(method_gradients, baseline_gradients, strict=True):
        assert torch.equal(one, other)
        assert one.any()
    assert not torch.equal(gradients(method())[0].losses, baseline_losses.losses)


def test_the_plain_baseline_is_the_downsampled_one_of_stride_one():
    plain, _ = gradients(method(objective="plain"))
    assert torch.equal(plain.losses, gradients(method(objective="downsampled", stride=1))[0].losses)
    assert not torch.equal(plain.losses, gradients(method(objective="downsampled"))[0].losses)


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)])
def test_the_ramp_rises_to_one_and_stays(progress, ramp):
    made = method(SimpleNamespace(progress=progress))
    found, _ = gradients(made)
    m = found.metrics
    torch.testing.assert_close(found.losses, m["blind"] + ramp * (m["itself"] + 2 * m["invariance"]))


def test_only_the_method_is_used_without_its_blind_spot():
    noisy = batch(size=21)["images"]
    known, mean, deviation = cbsn.normalised(noisy)
    made = method()
    torch.testing.assert_close(made.denoised(noisy), made.net.see(known, masked=False) * deviation + mean)
    made = method(objective="plain")
    torch.testing.assert_close(made.denoised(noisy), made.net.see(known, masked=True) * deviation + mean)
    made = method(objective="downsampled", test_stride=2)
    coarse = made.net.see(F.pad(known, (0, 1, 0, 1), mode="reflect")[:, :, 1::2, ::2], masked=True)
    torch.testing.assert_close(made.denoised(noisy)[:, :, 1::2, ::2], (coarse * deviation + mean)[:, :, :10, :11])


# ---- what is measured, and what is refused


def test_fidelity_agrees_with_scikit_image():
    generator = torch.Generator().manual_seed(0)
    clean = F.interpolate(torch.rand(2, 1, 8, 8, generator=generator), size=40, mode="bilinear")
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    found = cbsn.fidelity(noisy, clean)
    a, b = noisy.numpy().astype(np.float64)[:, 0], clean.numpy().astype(np.float64)[:, 0]
    psnr = [peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(b, a, strict=True)]
    assert found["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = [structural_similarity(x, y, **options) for x, y in zip(b, a, strict=True)]
    assert found["ssim"] == pytest.approx(np.mean(ssim), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", 0),
        ("test_stride", 0),
        ("width", 0),
        ("modules", 0),
        ("invariance", -1.0),
        ("ramp", 0.0),
        ("validation", 1.0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        CbsnSettings(**{name: value})


def test_pictures_that_cannot_be_cut_are_refused():
    from align.wings.gallery import Gallery, Splits

    images = torch.rand(4, 1, 24, 24)
    gallery = Gallery(images=images, labels=torch.zeros(4, dtype=torch.long), classes=("all",))
    work = SimpleNamespace(data=Splits(train=gallery, test=gallery), seed=1)
    with pytest.raises(ValueError, match="multiple of 10 pixels, got 24"):
        Cbsn(CbsnSettings()).run(work)
