"""The section ``spo``: defaults that are ours, and what cannot be meant."""

import pytest

from align.recipe.spo import DegreeHeadSettings, DegreeSettings, SpoSettings


def test_shares_are_evenly_spaced():
    assert DegreeSettings(degrees=5).removed == [0, 0.25, 0.5, 0.75, 1]
    assert DegreeSettings(degrees=3, shares=[0, 0.2, 0.9]).removed == [0, 0.2, 0.9]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degrees": 1}, "degrees must be at least 2"),
        ({"shares": [0, 0.5]}, "one number for each of 4 degrees, got 2"),
        ({"degrees": 2, "shares": [0.1, 0.5]}, "must rise from 0"),
        ({"degrees": 3, "shares": [0, 0.5, 0.5]}, "must rise from 0"),
        ({"degrees": 2, "shares": [0, 1.5]}, "at most 1"),
        ({"extractor": "rack"}, "no extractor 'rack'"),
        ({"mask_token": "_"}, "removal is 'delete'"),
    ],
)
def test_versions_that_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message):
        DegreeSettings(**settings)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (DegreeHeadSettings, {"depth": 0}, "depth must be at least 1"),
        (DegreeHeadSettings, {"learning_rate": -1.0}, "learning_rate must be at least 0"),
        (SpoSettings, {"gamma": -0.1}, "gamma must be at least 0"),
        (SpoSettings, {"gamma_rejected": float("inf")}, "gamma_rejected must be at least 0 and finite"),
        (
            SpoSettings,
            {"gamma_rejected": 0.2, "versions": DegreeSettings(sides="chosen")},
            "gamma_rejected would not be used: versions are made of the chosen side alone",
        ),
        (
            SpoSettings,
            {"gamma": 0.3, "gamma_rejected": 0.2, "versions": DegreeSettings(sides="rejected")},
            "gamma would not be used",
        ),
        (
            SpoSettings,
            {"head": DegreeHeadSettings(shared=True), "versions": DegreeSettings(sides="rejected")},
            "head.shared would not be used",
        ),
    ],
)
def test_other_settings_that_cannot_be_meant(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


def test_weights_of_sides():
    assert SpoSettings(gamma=0.3).gammas == {"chosen": 0.3, "rejected": 0.3}
    assert SpoSettings(gamma=0.3, gamma_rejected=0.0).gammas["rejected"] == 0
    assert DegreeSettings(sides="chosen").degraded_sides == ("chosen",)
