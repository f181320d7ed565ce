import json
from pathlib import Path

import pytest

from align.cli.claims import claimed
from align.wings import claims, trials
from align.wings.claims import LIMIT, is_fresh, listed, read_result, results_folder, run_claim, told
from align.wings.recipe import build_method_recipe, digest, method_tree

TEXT = """
method: clip
data: mnist
claim:
  says: A says more
    than B.
  seeds: [11, 12, 13]
  arms: {new: {}, old: {settings.objective: supervised}}
  untuned: nothing to tune
  relations:
    - {figure: score, over: old, by: 0.5}
    - {figure: score, at_least: 100.0, asserted: false}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    def on(work):
        return {"score": work.seed + (work.recipe.settings.objective == "contrastive")}

    monkeypatch.setattr(trials, "on", on)
    monkeypatch.setattr(trials, "load_data", lambda name, settings: None)
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    return file


def test_a_claim_is_run_written_read_and_told(recipe, tmp_path):
    said = []
    found = run_claim(recipe, tmp_path / "out", said.append)
    assert found["verdict"] == "holds"
    assert found["effect"] == 1.0
    assert found["interval"] == [1.0, 1.0]
    assert found["arms"]["new"]["score"] == [12, 13, 14]
    assert found["command"] == "align claims run mine"
    assert found["versions"]["torch"]
    assert [r["word"] for r in found["relations"]] == ["holds", "does not hold"]
    assert read_result("mine", tmp_path / "out") == json.loads(json.dumps(found))
    assert (tmp_path / "out" / "mine.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "out" / "mine.runs").exists()
    assert any("6/6" in line for line in said)
    text = told(found, build_method_recipe(method_tree(recipe)).claim)
    assert "A says more than B." in text
    assert "score: new over old by 0.5: +1 [+1, +1], holds" in text
    assert "(reported, not asserted)" in text
    assert "verdict: holds" in text
    assert "nothing was tuned: nothing to tune" in text


def test_the_same_command_runs_nothing_twice(recipe, tmp_path, monkeypatch):
    run_claim(recipe, tmp_path, lambda line: None)
    monkeypatch.setattr(trials, "on", lambda work: pytest.fail("ran again"))
    said = []
    run_claim(recipe, tmp_path, said.append)
    assert "there is a result of this recipe" in said[0]
    # another level: judged anew, from the same runs
    recipe.write_text(TEXT.replace("by: 0.5", "by: 2.0"))
    assert run_claim(recipe, tmp_path, said.append)["verdict"] == "does not hold"


def test_freshness_is_of_the_present_recipe(recipe, tmp_path):
    before = listed({"mine": recipe}, tmp_path)[0]
    assert (before["verdict"], before["fresh"], before["effect"]) == ("not run", False, None)
    run_claim(recipe, tmp_path, lambda line: None)
    (after,) = listed({"mine": recipe}, tmp_path)
    assert list(after)[:9] == ["name", "wing", "paper", "verdict", "effect", "interval", "seeds", "seconds", "fresh"]
    assert (after["name"], after["wing"], after["seeds"], after["fresh"]) == ("mine", "contrastive", 3, True)
    recipe.write_text(TEXT.replace("[11, 12, 13]", "[11, 12, 14]"))
    assert not listed({"mine": recipe}, tmp_path)[0]["fresh"]
    result, claim = read_result("mine", tmp_path), build_method_recipe(method_tree(recipe)).claim
    assert not is_fresh(result, recipe)
    assert "the recipe has changed since" in told(result, claim, fresh=False)
    assert "the recipe has changed since" not in told(result, claim)


def test_a_result_of_other_code_is_told_and_run_again(recipe, tmp_path, monkeypatch):
    run_claim(recipe, tmp_path, lambda line: None)
    assert listed({"mine": recipe}, tmp_path)[0]["same_code"]
    monkeypatch.setattr(trials, "code_digest", lambda method, source: "another")
    (line,) = listed({"mine": recipe}, tmp_path)
    assert (line["fresh"], line["same_code"]) == (True, False)
    result, claim = read_result("mine", tmp_path), build_method_recipe(method_tree(recipe)).claim
    assert "has changed since: the command runs all of it again" in told(result, claim, same_code=False)
    said = []
    assert run_claim(recipe, tmp_path, said.append)["code"] == "another"
    assert sum("s; about" in line for line in said) == 6


def test_what_came_out_before_stays_told(recipe, tmp_path):
    recipe.write_text(TEXT + "  tried:\n    - Seeds 1 to 3,\n      inconclusive.\n")
    found = run_claim(recipe, tmp_path, lambda line: None)
    assert found["tried"] == ["Seeds 1 to 3, inconclusive."]
    assert "before: Seeds 1 to 3, inconclusive." in told(found, build_method_recipe(method_tree(recipe)).claim)


def test_pictures_of_ones_own_that_changed_are_run_again(recipe, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"one")
    recipe.write_text(TEXT.replace("data: mnist", f"data: {{path: {pictures}}}"))
    first, said = run_claim(recipe, tmp_path, lambda line: None), []
    run_claim(recipe, tmp_path, said.append)
    assert "there is a result" in said[0]
    (pictures / "b.png").write_bytes(b"two")
    assert not listed({"mine": recipe}, tmp_path)[0]["same_code"]
    assert run_claim(recipe, tmp_path, said.append)["code"] != first["code"]
    assert sum("s; about" in line for line in said) == 6


def test_versions_are_those_the_runs_were_made_with(recipe, tmp_path, monkeypatch):
    assert run_claim(recipe, tmp_path, lambda line: None)["versions"] == trials.versions()
    monkeypatch.setattr(trials, "versions", lambda: {"torch": "99"})
    recipe.write_text(TEXT.replace("[11, 12, 13]", "[11, 12, 13, 14]"))
    found = run_claim(recipe, tmp_path, lambda line: None)
    assert found["versions"]["torch"].endswith(" and 99")
    assert {run["versions"]["torch"] for run in found["runs"] if run["seed"] == 14} == {"99"}


def test_a_recipe_without_a_claim_and_a_broken_result(recipe, tmp_path):
    recipe.write_text("method: clip\ndata: mnist\n")
    with pytest.raises(ValueError, match="has no section 'claim'"):
        run_claim(recipe, tmp_path, lambda line: None)
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ValueError, match="is no result of a claim"):
        read_result("mine", tmp_path)
    (tmp_path / "mine.json").write_text('{"something": "else"}')
    assert read_result("mine", tmp_path) is None


COMMITTED = claimed()


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_committed_results_are_of_the_present_recipes(name):
    path = COMMITTED[name]
    found = read_result(path.stem, results_folder())
    if found is None:
        pytest.skip(f"not run: align claims run {path.stem}")
    assert found["digest"] == digest(build_method_recipe(method_tree(path)), with_claim=True)
    claim = build_method_recipe(method_tree(path)).claim
    assert claim.long or found["cpu_seconds"] <= LIMIT
    assert found["verdict"] in ("holds", "does not hold", "inconclusive")
    judged = claims.judged(claim, found["arms"])
    assert judged["verdict"] == found["verdict"]
    assert judged["effect"] == pytest.approx(found["effect"])
    assert Path(results_folder() / f"{path.stem}.png").is_file()
