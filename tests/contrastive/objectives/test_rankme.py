"""RankMe: what the criteria are taken of, how a pick is judged, and that a sweep trains each encoder as alone."""

import pytest
import torch

from align.contrastive.objectives.rankme import (
    CRITERIA,
    RankMe,
    RankMeSettings,
    Sweep,
    criteria,
    rank_correlation,
    regret,
    scatter,
)
from align.wings.parts.diagnostics import alpha_req, rankme, threshold_rank
from align.wings.parts.pairs import Pairs, cosines, info_nce
from align.wings.views import Views
from tests.alone import Alone

SETTINGS = RankMeSettings(temperatures=[0.1, 1.0], embeddings=[3, 6], width=4, features=8)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_rank_is_of_embeddings_as_they_are_and_the_comparators_of_what_they_say():
    h, z = random(40, 8).relu(), random(40, 5, seed=1) @ torch.diag(torch.tensor([9.0, 5.0, 2.0, 1.0, 1e-4]).double())
    found = criteria(h, z)
    assert found == {
        "rankme": rankme(z),
        "rankme_of_features": rankme(h),
        "threshold_rank": threshold_rank(z),
        "alpha_req": -abs(alpha_req(h) - 1),
    }
    assert tuple(found) == CRITERIA
    normalised, centred = z / z.norm(dim=1, keepdim=True), z - z.mean(0)
    assert found["rankme"] != pytest.approx(rankme(normalised), rel=1e-3)
    assert found["rankme"] != pytest.approx(rankme(centred), rel=1e-4)


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [0.1, 0.5, 0.6, 0.9]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [0.9, 0.6, 0.5, 0.1]) == pytest.approx(-1)
    # d = (1, -1, 0, 0): 1 - 6 * 2 / (4 * 15)
    assert rank_correlation([1, 2, 3, 4], [0.2, 0.1, 0.3, 0.4]) == pytest.approx(0.8)


def test_what_is_the_same_for_all_ranks_nothing():
    assert rank_correlation([3, 3, 3], [0.1, 0.2, 0.3]) == 0
    assert rank_correlation([1, 2, 3], [0.2, 0.2, 0.2]) == 0


def test_regret_by_hand_and_ties_are_a_draw():
    assert regret([1.0, 5.0, 2.0], [0.5, 0.7, 0.9]) == pytest.approx(0.2)
    assert regret([1.0, 5.0, 2.0], [0.5, 0.9, 0.7]) == 0
    assert regret([5.0, 5.0, 2.0], [0.5, 0.7, 0.9]) == pytest.approx(0.3)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_criterion_chooses_whose_figures_are_the_runs(criterion):
    columns = {
        "rankme": [1.0, 2.0, 3.0],
        "rankme_of_features": [3.0, 2.0, 1.0],
        "threshold_rank": [2.0, 2.0, 2.0],
        "alpha_req": [-1.0, -0.2, -0.5],
        "linear": [0.1, 0.2, 0.6],
        "knn": [0.2, 0.1, 0.5],
    }
    found = RankMe(RankMeSettings(criterion=criterion, temperatures=[0.2])).figures(columns)
    for name, correlation, lost in zip(CRITERIA, (1, -1, 0, 0.5), (0, 0.5, 0.3, 0.4), strict=True):
        assert found[f"spearman_{name}"] == pytest.approx(correlation)
        assert found[f"regret_{name}"] == pytest.approx(lost)
    assert found["spearman"] == found[f"spearman_{criterion}"]
    assert found["regret"] == found[f"regret_{criterion}"]
    assert found["regret_by_chance"] == pytest.approx(0.3)
    assert found["saved_over_chance"] == pytest.approx(0.3 - found["regret"])
    assert found["lead_over_features"] == pytest.approx(2)
    assert found["spearman_width_of_head"] == pytest.approx(1)  # the heads are 2, 8 and 64 wide
    assert found["lead_over_width"] == pytest.approx(0)
    assert found["best_linear"] == 0.6


def batch(n=8):
    images = torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"images": images, "index": torch.arange(n), "weight": torch.ones(n)}


def made(settings=SETTINGS):
    method = RankMe(settings)
    method.work, method.views, method.sweep = Alone(), Views(16), Sweep(settings, 1, seed=0)
    return method


def test_encoders_are_every_temperature_with_every_width_and_start_alike():
    assert SETTINGS.members == [(0.1, 3), (0.1, 6), (1.0, 3), (1.0, 6)]
    assert len(RankMeSettings().members) == 12
    members = made().sweep.members
    assert [member.head.layers[-1].out_features for member in members] == [3, 6, 3, 6]
    for member in members[1:]:
        for mine, first in zip(member.encoder.parameters(), members[0].encoder.parameters(), strict=True):
            assert torch.equal(mine, first)
            assert mine is not first


def test_each_encoder_is_pulled_as_if_it_were_alone():
    method = made()
    torch.manual_seed(0)
    found = method.losses(method.sweep, batch())
    found.losses.sum().backward()
    torch.manual_seed(0)
    views = method.views.two(batch()["images"])
    total = 0
    for (temperature, _), member in zip(SETTINGS.members, made().sweep.members, strict=True):
        z = member(views)[1]
        rows = info_nce(cosines(z, z), Pairs.of_two_views(8), temperature=temperature)
        losses = (rows[:8] + rows[8:]) / 2
        losses.sum().backward()
        total = total + losses.detach()
        mine = method.sweep.members[SETTINGS.members.index((temperature, _))]
        for inside, alone in zip(mine.parameters(), member.parameters(), strict=True):
            torch.testing.assert_close(inside.grad, alone.grad)
    torch.testing.assert_close(found.losses.detach(), total)


def test_fewer_pictures_than_the_widest_head_are_refused():
    class Few:
        class data:  # noqa: N801
            train = torch.zeros(5)

    with pytest.raises(ValueError, match=r"^settings.embeddings: a rank of 6 cannot show in 5 pictures"):
        RankMe(SETTINGS).run(Few())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperatures": [0.1, 0.0]}, "^temperatures must be positive"),
        ({"embeddings": [1, 4, 8]}, "^embeddings must be wider"),
        ({"temperatures": [0.1, 0.1], "embeddings": [4, 8]}, "^embeddings and temperatures must make 3"),
    ],
)
def test_settings_say_what_is_wrong_with_them(given, message):
    with pytest.raises(ValueError, match=message):
        RankMeSettings(**given)


def test_the_drawing_has_a_point_for_every_encoder():
    figure = scatter([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4], SETTINGS.members)
    points = [len(one.get_offsets()) for one in figure.axes[0].collections]
    assert points == [2, 2]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "6", "3", "6"]
