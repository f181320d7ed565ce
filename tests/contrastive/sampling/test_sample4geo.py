"""Sample4Geo: the loss retyped, turns beside the data's own geometry, who is mined when, and runs that go on."""

import math
import shutil
from types import SimpleNamespace

import pytest
import torch

from align.contrastive.sampling import sample4geo
from align.contrastive.sampling.sample4geo import PlaceEncoder, Sample4Geo, Sample4GeoSettings, smoothed_info_nce
from align.wings.data import terrain
from align.wings.gallery import Gallery, Rows
from align.wings.networks import seeded
from align.wings.parts.composer import NeighbourBatches
from align.wings.parts.pairs import Pairs, info_nce
from align.wings.recipe import load_method_recipe
from align.wings.run import run_method
from align.wings.trainer import COMPOSER_FILE, stacked
from tests.alone import Alone

SMALL = {"width": 4, "features": 8, "embedding": 8, "reach": 6, "select": 4}


@pytest.fixture(scope="module")
def places():
    return terrain.load(terrain.Settings(train=30, test=12)).train


def made(places, **changes):
    method = Sample4Geo(Sample4GeoSettings(**{**SMALL, **changes}))
    with seeded(0):
        method.net = PlaceEncoder(method.settings, places.images[0], places.more["ground"][0])
    method.work, method.train = Alone(), places
    rows = Rows(satellite=places.images, ground=places.more["ground"])
    return method, stacked([{**row, "filler": False} for row in rows.__getitems__(range(10))])


# ---- the objective -------------------------------------------------------------------------------------------------


def papers_loss(q, r, scale, smoothing):
    """Mean over both directions of cross-entropy with (1 - eps) on the pair and eps spread over all, in float64."""
    table, n = scale * q @ r.T, len(q)
    target = (1 - smoothing) * torch.eye(n, dtype=torch.float64) + smoothing / n
    one_way = -(target * (table - table.logsumexp(1, keepdim=True))).sum(1)
    other = -(target * (table - table.logsumexp(0, keepdim=True))).sum(0)
    return (one_way + other) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_the_loss_is_the_papers(places, smoothing):
    method, batch = made(places, smoothing=smoothing, augment=False)
    method.net.double().eval()
    batch = {name: column.double() if column.is_floating_point() else column for name, column in batch.items()}
    found = method.losses(method.net, batch).losses
    r, q, scale = method.net(batch["satellite"], batch["ground"])
    expected = papers_loss(q, r, scale, smoothing)
    torch.testing.assert_close(found, expected)
    own, theirs = (torch.autograd.grad(one.mean(), list(method.net.parameters())) for one in (found, expected))
    torch.testing.assert_close(own, theirs)


def test_without_smoothing_it_is_info_nce():
    table = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    own = torch.arange(5)
    found = smoothed_info_nce(table, own, torch.tensor(12.0), 0.0)
    known = info_nce(table, Pairs.matching(own, own), temperature=1 / 12)
    torch.testing.assert_close(found, known)
    torch.testing.assert_close(*(torch.autograd.grad(one.sum(), table)[0] for one in (found, known)))


def test_the_temperature_is_learned_from_where_it_begins(places):
    method, batch = made(places, temperature=0.2)
    assert method.net.log_scale.exp().item() == pytest.approx(5)
    method.losses(method.net, batch).losses.mean().backward()
    assert method.net.log_scale.grad.abs() > 0


def test_embeddings_of_both_kinds_are_normalised(places):
    method, batch = made(places)
    above, below, _ = method.net(batch["satellite"], batch["ground"])
    torch.testing.assert_close(torch.cat([above, below]).norm(dim=1), torch.ones(20))


# ---- the two views -------------------------------------------------------------------------------------------------


def test_turned_pictures_are_those_of_a_turned_place(places):
    above = places.images
    ground = terrain.unrolled(above, 48, 12)
    quarters, chosen = torch.arange(30) % 4, torch.arange(30) % 3 == 0
    for one, other in (
        sample4geo.turned(above, ground, quarters),
        sample4geo.mirrored(above, ground, chosen),
        sample4geo.mirrored(*sample4geo.turned(above, ground, quarters), chosen),
    ):
        torch.testing.assert_close(terrain.unrolled(one, 48, 12), other)
        assert not torch.equal(one, above)
    still, _ = sample4geo.turned(above, ground, quarters)
    assert torch.equal(still[quarters == 0], above[quarters == 0])


def test_both_pictures_are_augmented_together_three_turns_of_four_and_every_other_mirrored(places):
    method, _ = made(places)
    above = places.images[:1].expand(2000, -1, -1, -1)
    ground = terrain.unrolled(above, 48, 12)
    one, other = method.augmented(above, ground)
    torch.testing.assert_close(terrain.unrolled(one[:50], 48, 12), other[:50])
    whole = places.images[0]
    turns = {
        (k, flip): whole.rot90(k, (1, 2)).flip(2) if flip else whole.rot90(k, (1, 2))
        for k in range(4)
        for flip in (False, True)
    }
    seen = {which: int((one == picture).flatten(1).all(1).sum()) for which, picture in turns.items()}
    assert sum(seen.values()) == 2000
    assert all(count == pytest.approx(250, abs=60) for count in seen.values())
    method.work.step = 1
    assert not torch.equal(method.augmented(above, ground)[0], one)


def test_augmentation_is_the_same_for_two_processes(places):
    method, batch = made(places)
    whole = method.augmented(batch["satellite"], batch["ground"])

    class Second(Alone):
        processes = 2

        def place(self, rows):
            return torch.arange(len(rows)) + 5

    method.work = Second()
    half = method.augmented(batch["satellite"][5:], batch["ground"][5:])
    assert torch.equal(half[0], whole[0][5:])
    assert torch.equal(half[1], whole[1][5:])


# ---- neighbours ----------------------------------------------------------------------------------------------------


def test_distances_are_of_radians_latitude_first():
    latitude, longitude = torch.tensor([0.0, 0.0, 60.0, 60.0, 90.0]), torch.tensor([0.0, 90.0, 0.0, 1.0, 33.0])
    found = sample4geo.haversine(latitude, longitude)
    assert found[0, 1].item() == pytest.approx(math.pi / 2)
    assert found[0, 2].item() == pytest.approx(math.pi / 3)
    assert found[0, 4].item() == pytest.approx(math.pi / 2)
    assert found[2, 3].item() == pytest.approx(math.radians(0.5), rel=1e-4)  # a degree of longitude is half as long
    assert torch.equal(found.diagonal(), torch.zeros(5).double())


def test_neighbours_on_the_map_are_the_closest_and_never_the_place_itself(places):
    method, _ = made(places)
    radius = math.cos(math.radians(50))
    at = torch.stack([places.more["latitude"], places.more["longitude"] * radius], 1)
    expected = torch.cdist(at, at).fill_diagonal_(math.inf).argsort(1)[:, :6]
    found = method.close_by()
    assert found.shape == (30, 6)
    assert (found == expected).double().mean() > 0.95  # but for ties in the last digit
    assert not (found == torch.arange(30)[:, None]).any()


def test_mined_places_are_similar_without_the_pair_by_a_network_in_evaluation(places):
    method, _ = made(places)
    method.net.train()
    before = [buffer.clone() for buffer in method.net.buffers()]
    found = method.look_alikes()
    assert method.net.training
    assert all(torch.equal(one, other) for one, other in zip(before, method.net.buffers(), strict=True))
    method.net.eval()
    with torch.no_grad():
        above, below, _ = method.net(places.images, places.more["ground"])
    for row, others in enumerate(found.tolist()):
        ranked = (above @ below[row]).argsort(descending=True).tolist()
        assert others == [other for other in ranked if other != row][:6]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("random", [None] * 12),
        ("gps", ["map"] + [None] * 11),
        ("similarity", [None] * 4 + ["mined", None, None, None] * 2),
        ("both", ["map", None, None, None] + ["mined", None, None, None] * 2),
    ],
)
def test_who_is_drawn_with_whom_in_which_epoch(sampling, expected, monkeypatch):
    monkeypatch.setattr(Sample4Geo, "close_by", lambda self: "map")
    monkeypatch.setattr(Sample4Geo, "look_alikes", lambda self: "mined")
    method = Sample4Geo(Sample4GeoSettings(sampling=sampling, gps_epochs=4, mine_every=4))
    assert [method.neighbours(epoch) for epoch in range(12)] == expected


def test_the_baseline_differs_in_its_batches_alone(places):
    drawn = {}
    for sampling in ("random", "both"):
        method, batch = made(places, sampling=sampling)
        composer = NeighbourBatches(30, batch=10, select=4, reach=6, neighbours=method.neighbours, seed=2)
        drawn[sampling] = (list(composer), method.losses(method.net, batch).losses)
    assert torch.equal(drawn["random"][1], drawn["both"][1])
    assert drawn["random"][0] == torch.randperm(30, generator=torch.Generator().manual_seed(2 * 1_000_003)).tolist()
    assert drawn["both"][0] != drawn["random"][0]
    assert sorted(drawn["both"][0]) == list(range(30))


def test_a_harder_batch_has_harder_negatives(places):
    method, _ = made(places, augment=False)
    flat, table = places.images.flatten(1), method.close_by()
    differ = torch.cdist(flat, flat)
    assert differ.gather(1, table[:, :3]).mean() < 0.8 * differ.mean()


# ---- runs ----------------------------------------------------------------------------------------------------------

RECIPE = """
method: sample4geo
settings: {width: 4, features: 8, embedding: 8, reach: 8, select: 4, gps_epochs: 1, mine_every: 1, validation: 0.1}
data: {name: terrain, train: 50, test: 12}
trainer: {max_steps: 10, per_device_train_batch_size: 8, learning_rate: 0.02, logging_steps: 5, save_steps: 7, seed: 4}
"""


@pytest.fixture
def recorded(monkeypatch):
    """Rows of each step, step by step."""
    rows = []
    losses = Sample4Geo.losses

    def recording(self, model, batch):
        rows.append(batch["index"].tolist())
        return losses(self, model, batch)

    monkeypatch.setattr(Sample4Geo, "losses", recording)
    monkeypatch.setattr(Sample4Geo, "draw", lambda self, test: None)
    return rows


def test_a_run_that_goes_on_within_an_epoch_draws_the_same_rows(tmp_path, recorded):
    file, whole = tmp_path / "r.yaml", tmp_path / "whole"
    file.write_text(RECIPE)
    found = run_method(load_method_recipe(file, [f"output.dir={whole}"]))
    drawn = list(recorded)
    assert len(drawn) == 10
    assert len({row for batch in drawn[:5] for row in batch}) == 40  # 45 places, 5 batches of 8 an epoch
    assert len({row for batch in drawn[5:] for row in batch}) == 40

    def resumed(name, *, composer):
        copy = tmp_path / name
        shutil.copytree(whole, copy)
        for done in (copy / "summary.json", copy / "finished.pt"):
            done.unlink()
        for checkpoint in copy.glob("checkpoint-*"):
            if checkpoint.name != "checkpoint-7":  # two steps into the second epoch, whose neighbours were mined
                shutil.rmtree(checkpoint)
        if not composer:
            (copy / "checkpoint-7" / COMPOSER_FILE).unlink()
        recorded.clear()
        return run_method(load_method_recipe(file, [f"output.dir={copy}"]))

    again = resumed("again", composer=True)
    assert recorded == drawn[7:]
    assert again["figures"] == found["figures"]
    resumed("without", composer=False)  # mined again, by a network that has learned since
    assert recorded != drawn[7:]


def test_data_without_places_is_refused(tmp_path):
    other = Gallery(images=torch.rand(2, 3, 8, 8), labels=torch.zeros(2), classes=("a",))
    work = SimpleNamespace(data=SimpleNamespace(train=other, test=other))
    with pytest.raises(ValueError, match="data: these pictures have no ground, latitude, longitude"):
        Sample4Geo(Sample4GeoSettings()).run(work)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gps_epochs": 0}, "gps_epochs must be at least 1"),
        ({"mine_every": 0}, "mine_every must be at least 1"),
        ({"select": 0}, "select must lie in 1"),
        ({"select": 65}, r"select must lie in 1 \.\.\. reach \(64\)"),
        ({"smoothing": 1.0}, "smoothing must lie in"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"validation": 0.0}, "validation must lie in"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Sample4GeoSettings(**changes)
