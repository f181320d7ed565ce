import pytest
import yaml

from align.recipe.disentangle import Calibrate, Normalise, Sparse, name_of_method
from align.recipe.errors import RecipeError
from align.recipe.load import load_recipe
from align.recipe.resolve import digest, resolved_yaml
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings

BASE = "model: {path: my-model}\ndata: {train: x.jsonl}\nobjective: dpo\n"


@pytest.fixture
def recipe(tmp_path):
    def read(more=""):
        file = tmp_path / "r.yaml"
        file.write_text(BASE + more)
        return load_recipe(file)

    return read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normalise", Normalise()),
        ("{name: normalise, limit: 3}", Normalise(limit=3.0)),
        ("{name: calibrate, ema: 0.5, norms: head}", Calibrate(ema=0.5, norms="head")),
        ("{name: sparse, mask: contrast, shared: 0.1}", Sparse(mask="contrast", shared=0.1)),
        ("null", None),
    ],
)
def test_methods_are_read_and_written(recipe, tmp_path, text, expected):
    found = recipe(f"disentangle: {text}\n")
    assert found.disentangle == expected
    (tmp_path / "again.yaml").write_text(resolved_yaml(found))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.disentangle == expected
    assert digest(again) == digest(found)
    if expected is not None:
        assert yaml.safe_load(resolved_yaml(found))["disentangle"]["name"] == name_of_method(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("disentangle: normalize", r"r.yaml:4: disentangle.name: no method 'normalize'; did you mean 'normalise'\?"),
        ("disentangle: {limit: 2}", "disentangle.name: one of normalise, calibrate, sparse|missing"),
        ("disentangle: {name: calibrate, emma: 1}", "has no setting 'emma'; did you mean 'ema'"),
        ("disentangle: {name: calibrate, ema: 1.0}", r"ema must lie in \[0, 1\)"),
        ("disentangle: {name: calibrate, every: 0}", "every must be greater than 0"),
        ("disentangle: {name: normalise, limit: 0.5}", "limit must be at least 1"),
        ("disentangle: {name: sparse, penalty: -1}", "penalty must be at least 0"),
        ("disentangle: {name: sparse, mask: contrast, shared: 2}", r"shared must lie in \[0, 1\]"),
        ("disentangle: {name: sparse, shared: 0.5}", "shared does not apply: mask is 'learned'"),
        ("disentangle: {name: sparse, mask: contrast, penalty: 0.5}", "penalty does not apply: mask is 'contrast'"),
        ("disentangle: 3", "expected a method"),
        ("diagnostics: {entanglement: {every: 0}}", "every must be greater than 0"),
        ("diagnostics: {entanglement: {pairs: 0}}", "pairs must be greater than 0, or null"),
        ("diagnostics: {verify: true}", "verify needs entanglement"),
        ("diagnostics: {entangelment: {}}", "did you mean 'entanglement'"),
    ],
)
def test_mistakes_name_their_place(recipe, text, says):
    with pytest.raises(RecipeError, match=says):
        recipe(text + "\n")


def test_diagnostics_are_off_unless_asked_for(recipe):
    assert recipe().diagnostics == DiagnosticsSettings()
    assert recipe("diagnostics: {entanglement: {}}\n").diagnostics.entanglement == EntanglementSettings()


def test_recipes_without_them_keep_their_digests(recipe):
    plain = digest(recipe())
    assert digest(recipe("diagnostics: {}\ndisentangle: null\n")) == plain
    assert digest(recipe("disentangle: normalise\n")) != plain


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("{}", DiagnosticsSettings()),
        ("{entanglement: {}}", DiagnosticsSettings(entanglement=EntanglementSettings())),
        (
            "{entanglement: {every: 3, pairs: null, optimiser: false}, verify: true}",
            DiagnosticsSettings(entanglement=EntanglementSettings(every=3, pairs=None, optimiser=False), verify=True),
        ),
    ],
)
def test_diagnostics_are_read_and_written(recipe, tmp_path, text, settings):
    found = recipe(f"diagnostics: {text}\n")
    assert found.diagnostics == settings
    (tmp_path / "again.yaml").write_text(resolved_yaml(found))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.diagnostics == settings
    assert digest(again) == digest(found)


def test_measuring_is_part_of_what_is_run(recipe):
    texts = ("", "diagnostics: {entanglement: {}}\n", "diagnostics: {entanglement: {every: 3}}\n")
    assert len({digest(recipe(text)) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("diagnostics:\n  entanglement:\n    every: 0\n", 6, "diagnostics.entanglement.every"),
        ("diagnostics:\n  entanglement:\n    pairs: 0\n", 6, "diagnostics.entanglement.pairs"),
        ("disentangle:\n  name: calibrate\n  ema: 1.0\n", 6, "disentangle.ema"),
        ("disentangle:\n  name: normalise\n  limit: 0.5\n", 6, "disentangle.limit"),
        ("disentangle:\n  name: normalize\n", 5, "disentangle.name"),
        ("disentangle:\n  name: sparse\n  penalti: 1\n", 6, "disentangle.penalti"),
    ],
)
def test_mistakes_name_file_line_and_key(recipe, text, line, key):
    with pytest.raises(RecipeError) as caught:
        recipe(text)
    assert str(caught.value.file).endswith("r.yaml")
    assert (caught.value.line, caught.value.key) == (line, key)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(number):
    with pytest.raises(ValueError, match="penalty must be at least 0 and finite"):
        Sparse(penalty=number)
    with pytest.raises(ValueError, match="limit must be at least 1 and finite"):
        Normalise(limit=number)
