import pytest

from align.recipe.sync import ReferenceSyncSettings


@pytest.mark.parametrize(
    ("settings", "message"), [({"alpha": 0.0}, "alpha must lie in"), ({"every": 0}, "every must be")]
)
def test_what_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message):
        ReferenceSyncSettings(**settings)
