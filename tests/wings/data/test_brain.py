import pytest
import torch

from align.wings.data import brain
from align.wings.data.brain import HEIGHTS, Settings, load, patient, template

SMALL = Settings(train_patients=3, test_patients=2, slices=6, size=32)


@pytest.fixture(scope="module")
def splits():
    return load(SMALL)


def test_slices_of_patients(splits):
    for gallery, patients in ((splits.train, 3), (splits.test, 2)):
        assert gallery.images.shape == (6 * patients, 1, 32, 32)
        assert gallery.more["tissue"].shape == (6 * patients, 32, 32)
        assert gallery.more["patient"].tolist() == [i for i in range(patients) for _ in range(6)]
        assert [HEIGHTS[label] for label in gallery.labels[:6].tolist()] == [h for h in HEIGHTS for _ in range(2)]
        assert 0 <= gallery.images.min() < gallery.images.max() <= 1


def test_tissues_are_where_the_brain_is_and_white_matter_is_brightest(splits):
    """In a T1 picture white matter is brighter than grey, and both than what is around the brain."""
    images, tissue = splits.train.images[:, 0], splits.train.more["tissue"]
    assert set(tissue.unique().tolist()) == {0, 1, 2}
    means = [float(images[tissue == kind].mean()) for kind in range(3)]
    assert means[0] < means[1] < means[2]
    assert (tissue[:, 0] == 0).all()  # the rim of a picture
    assert (tissue[:, :, 0] == 0).all()


def test_the_head_lies_upright_and_its_front_is_up():
    """Halves mirror each other from left to right; the hindbrain, at the back, is the lowest part of the brain."""
    volume = template(64)
    inside = volume[1] + volume[2]
    mirrored = (inside - inside.flip(2)).abs().mean() / inside.mean()
    assert mirrored < 0.2
    assert (inside - inside.flip(1)).abs().mean() / inside.mean() > 3 * mirrored
    assert inside.sum((1, 2)).argmax() > 64 * 0.3
    lowest = inside[: int(64 * 0.2)].sum((0, 2))
    assert lowest[32:].sum() > lowest[:32].sum()


def test_patients_differ_by_their_warp_and_brightness():
    volume, generator = template(32), torch.Generator().manual_seed(0)
    same = patient(volume, Settings(size=32, warp=0.0, brightness=0.0), generator)
    torch.testing.assert_close(same, volume, atol=1e-4, rtol=0)
    moved = patient(volume, Settings(size=32, brightness=0.0), generator)
    assert 0.005 < (moved - volume).abs().mean() < 0.1
    lit = patient(volume, Settings(size=32, warp=0.0), generator)
    torch.testing.assert_close(lit[1:], volume[1:], atol=1e-4, rtol=0)
    bright = volume[0] > 0.2
    exponents = lit[0][bright].clamp(1e-3, 0.999).log() / volume[0][bright].clamp(1e-3, 0.999).log()
    assert exponents.std() < 0.05 * exponents.mean()
    assert abs(float(exponents.mean()) - 1) > 0.01


def test_the_seed_decides(splits):
    assert torch.equal(load(SMALL).test.images, splits.test.images)
    other = load(Settings(train_patients=3, test_patients=2, slices=6, size=32, seed=1))
    assert not torch.equal(other.train.images, splits.train.images)


WRONG = [{"train_patients": 0}, {"test_patients": 0}, {"slices": 0}, {"size": 8}, {"size": 161}, {"warp": 0.2}]


@pytest.mark.parametrize("wrong", [*WRONG, {"brightness": 2.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must"):
        Settings(**wrong)


def test_a_release_without_the_template_is_named(monkeypatch):
    template.cache_clear()
    monkeypatch.setattr(brain, "FILE", "nothing_{}.nii")
    with pytest.raises(ValueError, match=r"does not carry nothing_t1.nii"):
        template(16)
