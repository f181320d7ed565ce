import pytest

from align.recipe.errors import MissingSettingError, Origin, RecipeError


@pytest.mark.parametrize(
    ("origin", "shown", "error"),
    [
        (Origin("r.yaml", 3), "r.yaml:3", "r.yaml:3: model.lora.r: too small"),
        (Origin("r.yaml"), "r.yaml", "r.yaml: model.lora.r: too small"),
        (Origin(), "default", "model.lora.r: too small"),
        (Origin(override="model.lora.r=0"), "command line", "command line: model.lora.r=0: too small"),
        (
            Origin(override="model.lora={r: 0}"),
            "command line",
            "command line: model.lora={r: 0}: model.lora.r: too small",
        ),
    ],
)
def test_every_origin_says_its_place_once(origin: Origin, shown: str, error: str) -> None:
    raised = RecipeError("too small", key="model.lora.r", origin=origin)
    assert str(origin) == shown
    assert str(raised) == error
    assert (raised.file, raised.line, raised.key) == (origin.file, origin.line, "model.lora.r")
    assert raised.message == "too small"


def test_a_missing_setting_names_itself_once() -> None:
    raised = MissingSettingError("model.path", origin=Origin("r.yaml", 2))
    assert str(raised) == "r.yaml:2: missing: model.path"
    assert raised.key == "model.path"
    assert isinstance(raised, ValueError)
