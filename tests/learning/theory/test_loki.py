"""Loki: the Fréchet mean by hand and by its limits, loci of trees and of any metric, and the estimator."""

import networkx as nx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from align.learning.theory.loki import (
    FrechetClassifier,
    Loki,
    LokiSettings,
    between_means,
    frechet_mean,
    frechet_median,
    locus,
    metric,
    next_greedy,
    next_on_tree,
    on_graph,
    reach,
    squared_distance,
    tempered,
    tree_locus,
)
from align.wings.data.digits import Settings as Digits
from align.wings.data.digits import load
from align.wings.recipe import MethodRecipe
from align.wings.workbench import Workbench


def probabilities(n, classes, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=n)


def tree(nodes, seed):
    """A random tree: node i hangs from any earlier one."""
    draws = np.random.default_rng(seed)
    return nx.Graph([(int(draws.integers(i)), i) for i in range(1, nodes)])


def on_a_line(n):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float)


# ---- the rule ----------------------------------------------------------------------------------------------------


def test_it_is_the_papers_formula():
    d = on_graph(tree(9, 3), range(9))
    observed, p = [0, 4, 7, 8], probabilities(50, 4)
    expected = [
        min(range(9), key=lambda y: sum(p_i * d[y, i] ** 2 for p_i, i in zip(row, observed, strict=True))) for row in p
    ]
    assert frechet_mean(p, d[observed]).tolist() == expected


def test_under_the_zero_one_metric_it_is_argmax():
    p = probabilities(200, 5)
    np.testing.assert_array_equal(frechet_mean(p, 1 - np.eye(5)), p.argmax(1))


def test_a_certain_predictor_is_taken_at_its_word():
    d = on_graph(tree(12, 1), range(12))
    observed = [2, 5, 11]
    assert frechet_mean(np.eye(3), d[observed]).tolist() == observed


def test_on_a_line_it_is_the_rounded_expectation_and_the_median_is_not():
    d, p = on_a_line(21), probabilities(300, 3)
    observed = np.array([0, 4, 20])
    expectation = p @ observed
    np.testing.assert_array_equal(frechet_mean(p, d[observed]), np.round(expectation))
    assert set(frechet_median(p, d[observed]).tolist()) <= set(observed.tolist())  # a median of points is one of them
    assert (frechet_median(p, d[observed]) != frechet_mean(p, d[observed])).any()


def test_temperature_is_that_of_the_logits():
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = np.exp(logits / 2.5)
    np.testing.assert_allclose(tempered(p, 2.5), q / q.sum(1, keepdims=True))
    np.testing.assert_allclose(tempered(p, 1.0), p)
    np.testing.assert_allclose(tempered(np.array([[0.0, 1.0]]), 3.0), [[0, 1]])


def test_the_squared_distance_is_of_what_was_said():
    assert squared_distance(np.array([0, 3]), np.array([2, 3]), on_a_line(4)) == 2.0


# ---- metrics -----------------------------------------------------------------------------------------------------


def test_distances_of_class_means():
    features = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 4.0]])
    places = np.array([0, 0, 1])
    np.testing.assert_allclose(between_means(features, places, 2), [[0, 4], [4, 0]])
    np.testing.assert_allclose(between_means(features, places, 2, squared=True), [[0, 16], [16, 0]])


def test_distances_on_a_hierarchy_count_weights():
    graph = nx.Graph([("root", "a"), ("root", "b")])
    graph.add_edge("b", "c", weight=2.5)
    np.testing.assert_allclose(on_graph(graph, ["a", "b", "c"]), [[0, 2, 4.5], [2, 0, 2.5], [4.5, 2.5, 0]])
    with pytest.raises(ValueError, match="no nodes"):
        on_graph(graph, ["a", "z"])
    graph.add_edge("x", "y")
    with pytest.raises(ValueError, match="not connected"):
        on_graph(graph, ["a", "x"])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.0, 1.0]], "shape"),
        ([[0.0, -1.0], [-1.0, 0.0]], "at least 0"),
        ([[0.0, float("nan")], [1.0, 0.0]], "finite"),
        ([[0.0, 1.0], [2.0, 0.0]], "symmetric"),
        ([[1.0, 1.0], [1.0, 0.0]], "0 from each class"),
    ],
)
def test_matrices_that_are_no_metric(matrix, message):
    with pytest.raises(ValueError, match=message):
        metric(matrix)


# ---- what can be said at all -------------------------------------------------------------------------------------


def test_between_two_ends_of_a_path_every_label_is_reached():
    d = on_a_line(8)[[0, 7]]
    assert locus(d) == set(range(8))
    p = np.linspace(0, 1, 400)
    assert set(frechet_mean(np.stack([p, 1 - p], 1), d).tolist()) == set(range(8))


@pytest.mark.parametrize("seed", range(4))
def test_the_locus_of_a_tree_is_what_brute_force_finds(seed):
    graph = tree(10, seed)
    d = on_graph(graph, range(10))
    observed = np.random.default_rng(seed).choice(10, 3, replace=False).tolist()
    found = tree_locus(graph, observed)
    assert found == locus(d[observed])
    said = frechet_mean(probabilities(4000, 3, seed) ** 2, d[observed])  # any weights do, they need no sum of 1
    assert set(said.tolist()) <= found
    edges = [
        np.eye(3)[i] * t + np.eye(3)[j] * (1 - t) for i in range(3) for j in range(i) for t in np.linspace(0, 1, 99)
    ]
    assert set(frechet_mean(np.array(edges), d[observed]).tolist()) == found


@pytest.mark.parametrize("seed", range(4))
def test_the_farthest_node_adds_most_and_greedy_choice_agrees_with_brute_force(seed):
    graph = tree(10, seed + 20)
    d = on_graph(graph, range(10))
    observed = np.random.default_rng(seed).choice(10, 2, replace=False).tolist()
    sizes = {one: len(tree_locus(graph, [*observed, one])) for one in graph if one not in observed}
    assert sizes[next_on_tree(graph, observed)] == max(sizes.values())
    assert sizes[next_greedy(d, observed)] == max(sizes.values())
    found = reach(d, observed)
    assert found["locus"] == len(tree_locus(graph, observed))
    assert found["locus_after_greedy"] == max(sizes.values())
    assert found["locus_after_any"] == pytest.approx(np.mean(list(sizes.values())))


def test_one_observed_class_reaches_itself():
    assert tree_locus(tree(6, 0), [3]) == {3}
    assert locus(on_a_line(6)[[3]]) == {3}


# ---- the estimator -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ends():
    """A predictor that knows the two ends of a line, and points between them."""
    draws = np.random.default_rng(0)
    rows = np.concatenate([draws.normal(0, 1, (40, 1)), draws.normal(4, 1, (40, 1))])
    predictor = LogisticRegression().fit(rows, np.repeat(["cold", "hot"], 40))
    return predictor, ["cold", "cool", "mild", "warm", "hot"], np.linspace(0, 4, 200)[:, None]


def test_the_estimator_names_classes_that_were_never_seen(ends):
    predictor, names, rows = ends
    said = FrechetClassifier(predictor, on_a_line(5), labels=names).fit().predict(rows)
    assert set(said) == set(names)
    order = [names.index(one) for one in said]
    assert order == sorted(order)


def test_the_switch_goes_to_the_predictors_own_words(ends):
    predictor, names, rows = ends
    said = FrechetClassifier(predictor, on_a_line(5), labels=names, rule="argmax").fit().predict(rows)
    np.testing.assert_array_equal(said, predictor.predict(rows))
    median = FrechetClassifier(predictor, on_a_line(5), labels=names, rule="median").fit().predict(rows)
    assert set(median) <= {"cold", "hot"}


def test_temperature_spreads_what_is_said(ends):
    predictor, names, rows = ends

    def middle(temperature):
        found = FrechetClassifier(predictor, on_a_line(5), labels=names, temperature=temperature).fit().predict(rows)
        return int(np.isin(found, names[1:-1]).sum())

    assert middle(0.2) < middle(1.0) < middle(4.0)


def test_logits_are_refused(ends):
    predictor, names, rows = ends

    class Raw:
        classes_ = predictor.classes_

        @staticmethod
        def predict_proba(rows):
            return np.stack([-predictor.decision_function(rows), predictor.decision_function(rows)], 1)

    with pytest.raises(ValueError, match="softmax"):
        FrechetClassifier(Raw(), on_a_line(5), labels=names).fit().predict(rows)


def test_estimators_that_cannot_be(ends):
    predictor, names, _ = ends
    with pytest.raises(ValueError, match="5 of them, and distances between 4"):
        FrechetClassifier(predictor, on_a_line(4), labels=names).fit()
    with pytest.raises(ValueError, match=r"lack the predictor's classes \['hot'\]"):
        FrechetClassifier(predictor, on_a_line(2), labels=["cold", "cool"]).fit()
    with pytest.raises(ValueError, match="temperature"):
        FrechetClassifier(predictor, on_a_line(5), labels=names, temperature=0.0).fit()


# ---- the method --------------------------------------------------------------------------------------------------


def bench(tmp_path, **settings):
    recipe = MethodRecipe(
        method="loki",
        settings=LokiSettings(**({"choices": 1} | settings)),
        data="digits",
        data_settings=Digits(),
        trainer={"seed": 1},
    )
    return Workbench(recipe, load(Digits()), tmp_path, keeps=False)


def run(tmp_path, **settings):
    work = bench(tmp_path, **settings)
    return Loki(work.recipe.settings).run(work)


def test_under_the_zero_one_metric_the_method_is_its_baseline(tmp_path):
    same = (1 - np.eye(10)).tolist()
    rules = [run(tmp_path, metric="given", distances=same, rule=rule) for rule in ("frechet", "argmax")]
    assert rules[0] == rules[1]
    assert rules[0]["squared_distance"] == pytest.approx(1 - rules[0]["accuracy"])
    assert rules[0]["says_unseen"] == 0


def test_a_hierarchy_of_pairs(tmp_path):
    edges = [[str(digit), f"pair {digit // 2}"] for digit in range(10)] + [[f"pair {i}", "root"] for i in range(5)]
    found = run(tmp_path, metric="hierarchy", edges=edges, predictor="naive_bayes")
    assert 0 < found["squared_distance"] < 16
    assert found["locus"] >= 6


def test_the_metric_is_of_training_pictures_and_the_predictor_of_seen_ones(tmp_path):
    work = bench(tmp_path, predictor="neighbours")
    method, train = Loki(work.recipe.settings), work.data.train
    d = method.distances(train)
    means = [train.images[train.labels == k].double().mean(0) for k in range(10)]
    assert d[2, 7] == pytest.approx(float((means[2] - means[7]).norm()))
    assert method.classifier(train, [1, 3, 5, 8], d).predictor.classes_.tolist() == [1, 3, 5, 8]


def test_validation_looks_at_no_label_of_an_unseen_class(tmp_path):
    work = bench(tmp_path)
    method, seen = Loki(work.recipe.settings), [0, 1, 2, 3, 4, 5]
    expected = method.validate(work, seen)
    kept, apart = work.data.train.split(0.25, work.seed)

    class Data:
        class train:  # noqa: N801
            @staticmethod
            def split(share, seed):
                known = (apart.labels < 6).nonzero()[:, 0]
                return kept, apart.take(known)  # the unseen classes' validation pictures are gone

    work.data = Data
    assert method.validate(work, seen) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "^temperature"),
        ({"strength": -1.0}, "^strength"),
        ({"choices": 0}, "^choices"),
        ({"seen": 3}, "^seen"),
        ({"metric": "hierarchy"}, "^edges"),
        ({"edges": [["a", "b"]]}, "^edges"),
        ({"metric": "hierarchy", "edges": [["a"]]}, "^edges"),
        ({"metric": "given"}, "^distances"),
        ({"distances": [[0.0]]}, "^distances"),
        ({"validation": 1.0}, "^validation"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        LokiSettings(**settings)


def test_settings_that_the_data_cannot_have(tmp_path):
    with pytest.raises(ValueError, match=r"settings\.seen must be less than the 10"):
        run(tmp_path, seen=10)
    with pytest.raises(ValueError, match=r"settings\.distances: 2 rows"):
        run(tmp_path, metric="given", distances=[[0.0, 1.0], [1.0, 0.0]])
