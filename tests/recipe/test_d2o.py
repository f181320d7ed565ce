"""The section ``d2o``: the paper's 11 samples, and what cannot be meant."""

import pytest

from align.recipe.d2o import D2oSettings, OnlineSettings
from align.recipe.sync import ReferenceSyncSettings


def test_defaults():
    assert (D2oSettings().samples, D2oSettings().online) == (11, None)
    assert OnlineSettings() == OnlineSettings(warmup=200, every=50)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (D2oSettings, {"samples": 0}, "samples must be greater than 0"),
        (D2oSettings, {"temperature": 0.0}, "temperature must be greater than 0"),
        (D2oSettings, {"top_p": 1.5}, r"top_p must lie in \(0, 1\]"),
        (D2oSettings, {"online": OnlineSettings(), "level": "instance"}, "online does not apply"),
        (
            D2oSettings,
            {"samples_reference": "some/model", "samples_reference_sync": ReferenceSyncSettings()},
            "leave samples_reference out",
        ),
        (OnlineSettings, {"every": 0}, "every must be greater than 0"),
        (OnlineSettings, {"warmup": -1}, "warmup must be at least 0"),
    ],
)
def test_what_cannot_be_meant(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)
