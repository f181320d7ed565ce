import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from align.vision.masked import mp3
from align.vision.masked.mp3 import Classifier, Encoder, Locator, Mp3, Mp3Settings
from align.wings.gallery import Gallery, Splits
from tests.alone import Alone

SMALL = Mp3Settings(width=8, heads=2, layers=2, patch=4)
PATCHES = 9


def encoder():
    torch.manual_seed(0)
    return Encoder(16, SMALL).double()


def pictures(n=3):
    return torch.rand(n, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def shuffled(images, order):
    """The pictures with their patches in another order: patch i is where patch order[i] was."""
    return mp3.pictures_of(mp3.patches_of(images, 4)[:, order], (12, 12), 4)


def method(**settings):
    made = Mp3(Mp3Settings(width=8, heads=2, layers=2, **settings))
    made.work, made.grid = Alone(), (3, 3)
    torch.manual_seed(0)
    net = Encoder(16, made.settings)
    return made, Locator(net, 8, PATCHES)


# ---- no leak of the place


def test_patches_are_the_picture_in_reading_order():
    images = torch.rand(2, 3, 8, 12)
    patches = mp3.patches_of(images, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[1, 4].view(3, 4, 4), images[1, :, 4:8, 4:8])
    assert torch.equal(mp3.pictures_of(patches, (8, 12), 4), images)


@pytest.mark.parametrize("context", [None, [[1, 4], [0, 8], [3, 7]]])
def test_the_encoder_does_not_know_the_order_of_patches(context):
    net, images, order = encoder(), pictures(), torch.randperm(PATCHES, generator=torch.Generator().manual_seed(2))
    kept = None if context is None else torch.tensor(context)
    moved = None if kept is None else order.argsort()[kept]
    one, other = net(images, kept), net(shuffled(images, order), moved)
    torch.testing.assert_close(other, one[:, order])
    assert not torch.allclose(one, one[:, order])


def test_the_order_of_the_context_says_nothing():
    net, images, kept = encoder(), pictures(), torch.tensor([[1, 4, 6], [0, 8, 2], [3, 7, 5]])
    torch.testing.assert_close(net(images, kept), net(images, kept.flip(1)))


def test_position_embeddings_tell_the_order():
    net, images, order = encoder(), pictures(), torch.arange(PATCHES).flip(0)
    positions = torch.randn(PATCHES, 8, dtype=torch.float64)
    found = net(shuffled(images, order), positions=positions)
    assert not torch.allclose(found, net(images, positions=positions)[:, order])


def test_patches_out_of_context_are_seen_by_themselves_alone():
    net, images = encoder(), pictures(1).requires_grad_()
    kept, some = torch.tensor([[2, 5]]), torch.randn(8, dtype=torch.float64)
    for patch in range(PATCHES):
        (gradient,) = torch.autograd.grad(net(images, kept)[0, patch] @ some, images)
        seen = mp3.patches_of(gradient, 4)[0].abs().amax(1).nonzero()[:, 0].tolist()
        assert seen == sorted({2, 5, patch})


def test_keys_and_values_out_of_context_get_no_gradient_in_any_layer():
    net, images, kept = encoder(), pictures(1), torch.tensor([[2, 5]])
    made = {}

    def keep(name):
        def hook(module, inputs, output):
            output.retain_grad()
            made[name] = output

        return hook

    for number, layer in enumerate(net.layers):
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(layer.attention, name).register_forward_hook(keep((number, name)))
    (net(images, kept) @ torch.randn(8, dtype=torch.float64)).sum().backward()
    for (_, name), output in made.items():
        touched = output.grad[0].abs().amax(1).nonzero()[:, 0].tolist()
        assert touched == (list(range(PATCHES)) if name == "q_proj" else [2, 5])


def test_all_patches_as_context_is_full_attention():
    net, images = encoder(), pictures()
    everything = torch.arange(PATCHES).expand(3, PATCHES)
    torch.testing.assert_close(net(images, everything), net(images))


def test_attention_is_the_papers():
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64)
    context = torch.tensor([[4, 1], [0, 2]])
    found, _ = mp3.context_attention(torch.nn.Identity(), q, k, v, context=context, scaling=0.5)
    for n in range(2):
        for head in range(2):
            keys, values = k[n, head, context[n]], v[n, head, context[n]]
            expected = torch.softmax(0.5 * q[n, head] @ keys.T, 1) @ values
            torch.testing.assert_close(found[n, :, head], expected)


# ---- the context and the loss


def test_the_context_is_a_random_quarter():
    torch.manual_seed(0)
    found = mp3.random_context(400, 16, 0.75)
    assert found.shape == (400, 4)
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert (found.flatten().bincount(minlength=16) - 100).abs().max() < 45
    assert mp3.random_context(2, 16, 0.99).shape == (2, 1)
    assert mp3.random_context(1, 16, 0.0).sort().values.tolist() == [list(range(16))]


def test_the_loss_is_the_mean_cross_entropy_of_all_patches_that_show_anything():
    logits = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    counted = torch.tensor([[True, False, True, True], [True, True, True, True]])
    losses = mp3.position_losses(logits, mp3.smoothed_positions(2, 2, 0.0), counted)
    (found,) = torch.autograd.grad(losses.sum(), logits)
    shares = logits.detach().exp() / logits.detach().exp().sum(2, keepdim=True)
    for n, patches in enumerate(([0, 2, 3], [0, 1, 2, 3])):
        assert losses[n].item() == pytest.approx(sum(-math.log(float(shares[n, i, i])) for i in patches) / len(patches))
        for i in range(4):
            expected = (shares[n, i] - torch.eye(4)[i]) / len(patches) if i in patches else torch.zeros(4)
            torch.testing.assert_close(found[n, i], expected.double())


def test_a_blank_picture_loses_nothing():
    counted = mp3.has_content(torch.zeros(1, 4, 16), 0.05)
    assert float(mp3.position_losses(torch.randn(1, 4, 4), torch.eye(4), counted)) == 0


def test_blank_patches_are_those_without_contrast():
    patches = torch.tensor([[[0.0, 0.0], [0.7, 0.7], [0.2, 0.24], [0.2, 0.3]]])
    assert mp3.has_content(patches, 0.05).tolist() == [[False, False, False, True]]


def test_smoothed_targets_fall_with_the_distance_and_sharpen_to_the_position():
    targets = mp3.smoothed_positions(3, 4, 1.5)
    torch.testing.assert_close(targets.sum(1), torch.ones(12))
    # from the corner: one to the right, one below and to the right
    assert float(targets[0, 1] / targets[0, 0]) == pytest.approx(math.exp(-1 / 2.25), rel=1e-5)
    assert float(targets[0, 5] / targets[0, 0]) == pytest.approx(math.exp(-2 / 2.25), rel=1e-5)
    torch.testing.assert_close(mp3.smoothed_positions(3, 4, 0.05), torch.eye(12))
    assert torch.equal(mp3.smoothed_positions(3, 4, 0.0), torch.eye(12))


def test_smoothing_anneals_to_the_plain_loss():
    images = {"images": pictures().float()}

    def losses(progress, **settings):
        made, net = method(**settings)
        made.work.progress = progress
        torch.manual_seed(4)
        return made.place_losses(net, images).losses

    assert torch.equal(losses(1.0, smoothing=2.0), losses(1.0))
    assert not torch.allclose(losses(0.0, smoothing=2.0), losses(0.0))


def test_patches_in_the_context_are_asked_too():
    made, net = method()
    images = pictures().float()
    net.place.weight.data.zero_()
    losses = made.place_losses(net, {"images": images}).losses
    expected = [F.cross_entropy(net.place.bias[None], torch.tensor([i])) for i in range(PATCHES)]
    torch.testing.assert_close(losses, torch.stack(expected).mean().expand(3))


def test_putting_together_averages_what_meets():
    patches = torch.tensor([[[1.0], [2.0], [6.0]]])
    assert mp3.put_together(patches, torch.tensor([[2, 0, 0]])).flatten().tolist() == [4, 0, 1]
    whole = mp3.patches_of(pictures(), 4)
    assert torch.equal(mp3.put_together(whole, torch.arange(PATCHES).expand(3, PATCHES)), whole)


# ---- the switch to the baselines


class Bench:
    """A workbench that trains nothing and remembers what it was asked for."""

    def __init__(self, seed=1):
        images = torch.rand(60, 1, 12, 12, generator=torch.Generator().manual_seed(0))
        gallery = Gallery(images=images, labels=torch.arange(60) % 2, classes=("a", "b"))
        self.data, self.seed, self.progress, self.stages = Splits(train=gallery, test=gallery), seed, 0.0, {}

    def train(self, model, losses, rows, *, stage="main", figures=None, **forced):
        begin = {name: value.clone() for name, value in model.state_dict().items()}
        self.stages[stage] = SimpleNamespace(begin=begin, rows=rows, forced=forced, model=model)
        if stage == mp3.PRETRAIN:
            with torch.no_grad():
                model.encoder.embed.bias += 1

    def over(self, function, rows):
        with torch.no_grad():
            return function(rows)

    def picture(self, name, draw):
        draw()

    def generator(self):
        return torch.Generator().manual_seed(self.seed)


def run(**settings):
    work = Bench()
    made = {"width": 8, "heads": 2, "layers": 2, "labels_per_class": 3, "validation": 0.2, **settings}
    return work, Mp3(Mp3Settings(**made)).run(work)


def test_no_pretraining_steps_is_training_from_scratch():
    scratch, figures = run(pretrain_steps=0)
    assert set(scratch.stages) == {"main"}
    assert set(figures) == {"top1", "validation_top1"}
    pretrained, more = run(pretrain_steps=5)
    assert set(more) - set(figures) == {"placed", "placed_by_chance"}
    assert more["placed_by_chance"] == pytest.approx(1 / PATCHES)
    assert pretrained.stages[mp3.PRETRAIN].forced["max_steps"] == 5
    a, b = scratch.stages["main"].begin, pretrained.stages["main"].begin
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == ["encoder.embed.bias"]
    for name, column in scratch.stages["main"].rows.columns.items():
        assert torch.equal(column, pretrained.stages["main"].rows.columns[name])


def test_pretraining_sees_all_pictures_and_no_labels_and_the_classifier_few():
    work, _ = run(pretrain_steps=5)
    assert set(work.stages[mp3.PRETRAIN].rows.columns) == {"images", "index"}
    assert len(work.stages[mp3.PRETRAIN].rows) == 48
    assert work.stages["main"].rows.columns["labels"].bincount().tolist() == [3, 3]


@pytest.mark.parametrize("positions", [True, False])
def test_only_the_classifier_gets_positions(positions):
    work, _ = run(pretrain_steps=5, positions=positions)
    assert not any("positions" in name for name in work.stages[mp3.PRETRAIN].begin)
    assert ("positions" in work.stages["main"].begin) is positions


def test_without_positions_the_classifier_cannot_tell_a_shuffled_picture():
    net, images, order = encoder(), pictures(), torch.arange(PATCHES).flip(0)
    bare = Classifier(net, 8, 4, None).double()
    torch.testing.assert_close(bare(shuffled(images, order)), bare(images))
    placed = Classifier(net, 8, 4, PATCHES).double()
    assert not torch.allclose(placed(shuffled(images, order)), placed(images), atol=1e-6)


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pretrain_steps", -1), ("smoothing", -0.1), ("contrast", -0.1), ("labels_per_class", 0)),
        *(("masked", 1.0), ("validation", 0.0), ("width", 47)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        Mp3Settings(**{name: value})


def test_pictures_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"^settings.patch: 12 x 12 pixels are not cut into patches of 5"):
        run(patch=5)
