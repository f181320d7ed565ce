import pytest

from align.wings import trials
from align.wings.recipe import build_method_recipe, method_tree
from align.wings.trials import Store, Trials

TEXT = """
method: clip
data: mnist
trainer: {max_steps: 2, learning_rate: 0.001}
claim:
  says: s
  seeds: [11, 12, 13]
  arms:
    new: {}
    old: {settings.objective: supervised}
  tuning:
    figure: validation
    seeds: [1, 2]
    trials: [{trainer.learning_rate: 0.1}, {trainer.learning_rate: 0.2}]
  relations: [{figure: score, over: old}]
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Trials whose runs are a function of the recipe: nothing is trained."""
    ran = []

    def on(work):
        rate, seed, objective = work.recipe.trainer["learning_rate"], work.seed, work.recipe.settings.objective
        ran.append((objective, seed, rate))
        best = 0.2 if objective == "contrastive" else 0.1
        return {"validation": -abs(rate - best) + seed / 1000, "score": seed + rate}

    monkeypatch.setattr(trials, "on", on)
    monkeypatch.setattr(trials, "load_data", lambda name, settings: None)
    file = tmp_path / "r.yaml"

    def fresh(text=TEXT, earlier=None):
        file.write_text(text)
        tree = method_tree(file)
        store = Store(tmp_path / "runs", earlier or {})
        return Trials(tree, build_method_recipe(tree).claim, store, lambda line: None)

    return fresh, ran


def test_every_arm_is_tuned_on_seeds_of_its_own_and_then_compared(made):
    fresh, ran = made
    one = fresh()
    assert one.total == 2 * 2 * 2 + 2 * 3
    tried = one.tune()
    chosen = one.best(tried)
    assert chosen == {"new": {"trainer.learning_rate": 0.2}, "old": {"trainer.learning_rate": 0.1}}
    assert tried["new"][0][1] == pytest.approx(-0.1 + 0.0015)
    assert {seed for _, seed, _ in ran} == {1, 2}
    values = one.compare(chosen)
    assert values["new"]["score"] == pytest.approx([11.2, 12.2, 13.2])
    assert values["old"]["score"] == pytest.approx([11.1, 12.1, 13.1])
    assert len(ran) == one.total


def test_the_smallest_is_chosen_where_smaller_is_better(made):
    fresh, _ = made
    one = fresh(TEXT.replace("figure: validation", "figure: validation\n    smallest: true"))
    assert one.best(one.tune())["new"] == {"trainer.learning_rate": 0.1}


def test_only_what_is_missing_is_run(made):
    fresh, ran = made
    first = fresh()
    first.compare(first.best(first.tune()))
    del ran[:]
    again = fresh()
    again.compare(again.best(again.tune()))
    assert ran == []
    more = fresh(TEXT.replace("[11, 12, 13]", "[11, 12, 13, 14]"))
    more.compare(more.best(more.tune()))
    assert [seed for _, seed, _ in ran] == [14, 14]
    del ran[:]
    other = fresh(TEXT.replace("max_steps: 2", "max_steps: 3"))
    other.tune()
    assert len(ran) == 8  # another recipe: nothing of the old one counts


def test_results_of_a_whole_result_count_too_and_files_are_cleared(made, tmp_path):
    fresh, ran = made
    first = fresh()
    first.compare({})
    earlier = dict(first.done)
    assert len(list((tmp_path / "runs").glob("*.json"))) == 6
    first.store.clear()
    assert not (tmp_path / "runs").exists()
    del ran[:]
    fresh(earlier=earlier).compare({})
    assert ran == []


def test_a_figure_that_tuning_lacks(made):
    fresh, _ = made
    with pytest.raises(ValueError, match=r"claim.tuning: runs have no figure 'none'; they have score, validation"):
        fresh(TEXT.replace("figure: validation", "figure: none")).tune()


def test_an_arm_differs_only_in_what_it_says(made):
    fresh, _ = made
    one = fresh().trial("old", 11, {"trainer.learning_rate": 0.3})
    assert (one.recipe.settings.objective, one.recipe.seed, one.recipe.trainer["learning_rate"]) == (
        "supervised",
        11,
        0.3,
    )
    assert one.name.startswith("old-11-")
