"""Loki: a predictor of a few classes names any class there is, by the distances between classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from align.learning.theory.naive_bayes import SharedVarianceNB, quietly
from align.report.look import look
from align.wings.extras import needed
from align.wings.gallery import Gallery
from align.wings.method import Method, method
from align.wings.workbench import Workbench

_Estimator: Any = needed("sklearn.base").BaseEstimator
_Classifier: Any = needed("sklearn.base").ClassifierMixin

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Rule = Literal["frechet", "median", "argmax"]


# ---- the rule ----------------------------------------------------------------------------------------------------


def frechet_mean(probabilities: Floats, distances: Floats) -> Places:
    """Return ``argmin_y sum_i p_i d(y, lambda_i)^2`` of each row; of equals, the first.

    Args:
        probabilities: of shape (n, K), of the observed classes.
        distances: of shape (K, N), from each observed class to every class.
    """
    return np.asarray((probabilities @ distances**2).argmin(1))


def frechet_median(probabilities: Floats, distances: Floats) -> Places:
    """Return ``argmin_y sum_i p_i d(y, lambda_i)``: what is left where the square is forgotten."""
    return np.asarray((probabilities @ distances).argmin(1))


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Return ``softmax(log p / T)``: the softmax of the same logits at temperature T."""
    with np.errstate(divide="ignore"):
        found: Floats = needed("scipy.special").softmax(np.log(probabilities) / temperature, axis=1)
    return found


def squared_distance(predicted: Places, truth: Places, distances: Floats) -> float:
    """Return the mean squared distance from what was said to what is, the risk that the rule makes small."""
    return float((distances[predicted, truth] ** 2).mean())


# ---- metrics -----------------------------------------------------------------------------------------------------


def metric(distances: ArrayLike) -> Floats:
    """Return a matrix of distances, of shape (N, N), if it is one; the triangle may be violated, as by squares.

    Raises:
        ValueError: it is not square, not symmetric, not finite, negative, or not zero from a class to itself.
    """
    found = np.asarray(distances, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"distances must be of shape (N, N), got {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("distances must be finite and at least 0")
    if np.diag(found).any() or not np.allclose(found, found.T):
        raise ValueError("distances must be symmetric, and 0 from each class to itself")
    return found


def on_graph(graph: Any, labels: Sequence[Any]) -> Floats:
    """Return the lengths of the shortest paths between labels, of shape (N, N).

    Args:
        graph: a ``networkx`` graph, such as a hierarchy; the edges' ``weight`` counts, 1 where there is none.
        labels: nodes of it.

    Raises:
        ValueError: a label is no node, or no path leads to it.
    """
    missing = [label for label in labels if label not in graph]
    if missing:
        raise ValueError(f"labels {missing} are no nodes of the hierarchy")
    lengths = needed("networkx").single_source_dijkstra_path_length
    found = [lengths(graph, label) for label in labels]
    apart = [label for label in labels if label not in found[0]]
    if apart:
        raise ValueError(f"labels {apart} are not connected with {labels[0]!r}")
    return metric([[row[label] for label in labels] for row in found])


def between_means(features: Floats, places: Places, classes: int, *, squared: bool = False) -> Floats:
    """Return Euclidean distances between the classes' mean features, or their squares, of shape (N, N).

    Args:
        features: of shape (n, width), of training rows: test rows would tell of themselves.
        places: of shape (n,), the rows' classes.
        classes: how many, N; each needs a row.
        squared: whether the metric is the squared distance, whose square the rule then takes once more.
    """
    means = np.stack([features[places == place].mean(0) for place in range(classes)])
    kind = "sqeuclidean" if squared else "euclidean"
    return metric(needed("scipy.spatial.distance").cdist(means, means, kind))


# ---- what can be said at all -------------------------------------------------------------------------------------


def locus(distances: Floats) -> set[int]:
    """Return the classes that some probabilities make a Fréchet mean, ties included.

    Args:
        distances: of shape (K, N), from each observed class to every class.
    """
    squares = distances**2
    return {place for place in range(squares.shape[1]) if _reachable(squares, place)}


def _reachable(squares: Floats, place: int) -> bool:
    """Whether a linear program has p with ``sum_i p_i (d^2(lambda_i, y) - d^2(lambda_i, y')) <= 0`` for every y'."""
    observed = len(squares)
    worse = (squares[:, [place]] - squares).T
    found = needed("scipy.optimize").linprog(
        np.zeros(observed), A_ub=worse, b_ub=np.zeros(len(worse)), A_eq=np.ones((1, observed)), b_eq=[1.0]
    )
    return bool(found.status == 0)


def tree_locus(tree: Any, observed: Sequence[Any]) -> set[Any]:
    """Return the nodes on the paths between observed nodes of a tree: its locus, where every node is a class."""
    path = needed("networkx").shortest_path
    first, *others = observed
    return {first}.union(*(path(tree, first, other) for other in others))


def next_on_tree(tree: Any, observed: Sequence[Any]) -> Any:
    """Return the node farthest from the locus: observed next, it adds most to it. Of equals, the tree's first."""
    reached = tree_locus(tree, observed)
    away = needed("networkx").multi_source_dijkstra_path_length(tree, reached)
    return max(tree, key=lambda node: away[node])


def reach(distances: Floats, observed: Sequence[int]) -> dict[str, float]:
    """Return the size of the locus now, and with one class more: the greedy choice, and the mean over all choices."""
    sizes = {place: len(locus(distances[[*observed, place]])) for place in _others(distances, observed)}
    return {
        "locus": float(len(locus(distances[list(observed)]))),
        "locus_after_greedy": float(max(sizes.values())),
        "locus_after_any": float(np.mean(list(sizes.values()))),
    }


def next_greedy(distances: Floats, observed: Sequence[int]) -> int:
    """Return the class whose observation makes the locus largest, in any metric. Of equals, the first.

    Args:
        distances: of shape (N, N).
        observed: classes observed so far, fewer than N.
    """
    return max(_others(distances, observed), key=lambda place: len(locus(distances[[*observed, place]])))


def _others(distances: Floats, observed: Sequence[int]) -> list[int]:
    return [place for place in range(len(distances)) if place not in set(observed)]


# ---- around a predictor ------------------------------------------------------------------------------------------


class FrechetClassifier(_Classifier, _Estimator):
    """A fitted classifier whose probabilities are read as a Fréchet mean over more classes than it was fitted on.

    A scikit-learn classifier; nothing is trained, :meth:`fit` only looks at the predictor and the distances.

    Args:
        predictor: fitted, with ``predict_proba`` and ``classes_``.
        distances: of shape (N, N), between all classes.
        labels: what the N classes are called; 0 ... N - 1 where absent.
        temperature: of the probabilities; above 1 evens them out.
        rule: ``frechet``; ``median``, without the square; or ``argmax``, what the predictor says itself.
    """

    def __init__(
        self,
        predictor: Any,
        distances: ArrayLike,
        *,
        labels: Sequence[Any] | None = None,
        temperature: float = 1.0,
        rule: Rule = "frechet",
    ) -> None:
        self.predictor, self.distances, self.labels = predictor, distances, labels
        self.temperature, self.rule = temperature, rule

    def fit(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Self:  # noqa: N803
        """Look up the predictor's classes among the labels; rows that are given are not looked at.

        Raises:
            ValueError: the distances are no metric of the labels, or the predictor knows a class that is no label.
        """
        self.distances_ = metric(self.distances)
        self.classes_ = np.arange(len(self.distances_)) if self.labels is None else np.asarray(self.labels)
        if len(self.classes_) != len(self.distances_):
            raise ValueError(f"labels: {len(self.classes_)} of them, and distances between {len(self.distances_)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        place = {label: at for at, label in enumerate(self.classes_.tolist())}
        strangers = [one for one in np.asarray(self.predictor.classes_).tolist() if one not in place]
        if strangers:
            raise ValueError(f"labels lack the predictor's classes {strangers}")
        self.observed_ = np.array([place[one] for one in np.asarray(self.predictor.classes_).tolist()])
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return a label a row.

        Raises:
            ValueError: the predictor returns no probabilities.
        """
        needed("sklearn.utils.validation").check_is_fitted(self)
        found = np.asarray(self.predictor.predict_proba(X), dtype=np.float64)
        if (found < 0).any() or not np.allclose(found.sum(1), 1, atol=1e-4):
            raise ValueError("predict_proba returned rows that are no probabilities; of logits, take the softmax first")
        probabilities, distances = tempered(found, self.temperature), self.distances_[self.observed_]
        if self.rule == "argmax":
            return np.asarray(self.classes_[self.observed_[probabilities.argmax(1)]])
        rule = frechet_mean if self.rule == "frechet" else frechet_median
        return np.asarray(self.classes_[rule(probabilities, distances)])


# ---- the method --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LokiSettings:
    """The rule, the metric, and the predictor it reads."""

    rule: Rule = "frechet"
    """The method; without the square, for which nothing speaks; or the predictor's own argmax."""
    temperature: float = 1.0
    """Of the predictor's probabilities."""
    seen: int = 6
    """Classes that the predictor is fitted on, chosen by the run's seed."""
    choices: int = 5
    """Choices of those classes that the figures are means over: which classes are missing decides about much."""
    metric: Literal["euclidean", "squared", "hierarchy", "given"] = "euclidean"
    """Between class means of the training pictures; or from ``edges``; or ``distances``."""
    edges: list[list[str]] = field(default_factory=list)
    """Pairs of nodes that a hierarchy joins; every class is a node."""
    distances: list[list[float]] = field(default_factory=list)
    """Distances between all classes."""
    predictor: Literal["logistic", "neighbours", "naive_bayes"] = "logistic"
    """What predicts the seen classes: logistic regression, five nearest neighbours, or shared-variance naive Bayes."""
    strength: float = 1.0
    """Logistic regression's C."""
    validation: float = 0.25
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.strength <= 0:
            raise ValueError(f"strength must be positive, got {self.strength}")
        if self.choices < 1:
            raise ValueError(f"choices must be at least 1, got {self.choices}")
        if self.seen < 4:
            raise ValueError(f"seen must be at least 4, since tuning takes two of them away, got {self.seen}")
        if (self.metric == "hierarchy") != bool(self.edges) or any(len(edge) != 2 for edge in self.edges):
            raise ValueError("edges are pairs of nodes, and go with metric: hierarchy, which needs them")
        if (self.metric == "given") != bool(self.distances):
            raise ValueError("distances go with metric: given, which needs them")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")


@method(
    title="Geometry-Aware Adaptation for Pretrained Models",
    arxiv="2307.12226",
    venue="NeurIPS 2023",
    equation="y = argmin_y sum_i p_i d(y, lambda_i)^2 over all classes y, lambda_i the observed ones",
    departures=(
        "a classifier of ten digits of which it has seen six, not of ImageNet; the metric is that of the class means",
        "the post-hoc rule only, not the variant that trains through it by a straight-through gradient",
    ),
)
class Loki(Method):
    """A predictor of some classes names the others too: by the Fréchet mean of its probabilities among all classes."""

    Settings = LokiSettings
    least_classes = 4
    quick = {"settings.choices": 1}

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Fit the predictor on the seen classes of several choices, and classify held-out pictures of all classes."""
        train = work.data.train
        classes = len(train.classes)
        if self.settings.seen >= classes:
            raise ValueError(f"settings.seen must be less than the {classes} classes, got {self.settings.seen}")
        distances = self.distances(train)
        found = []
        for choice in range(self.settings.choices):
            order = torch.randperm(classes, generator=work.generator(choice)).tolist()
            seen = sorted(order[: self.settings.seen])
            predicted = self.classifier(train, seen, distances).predict(_flat(work.data.test))
            found.append({**self.judged(predicted, work.data.test, seen, distances), **reach(distances, seen)})
            found[-1]["validation_squared_distance"] = self.validate(work, seen)
        names = [f"{name}{'' if place in seen else ' (unseen)'}" for place, name in enumerate(train.classes)]
        truth = work.data.test.labels.numpy()
        work.picture("confusion", lambda: confusion(predicted, truth, names, self.settings.rule))
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def judged(self, predicted: Places, test: Gallery, seen: Sequence[int], distances: Floats) -> dict[str, float]:
        """Return how far what was said is from what is, and how often it is right, on classes seen and unseen."""
        truth = test.labels.numpy()
        new, right = ~np.isin(truth, seen), predicted == truth
        return {
            "squared_distance": squared_distance(predicted, truth, distances),
            "accuracy": float(right.mean()),
            "seen_accuracy": float(right[~new].mean()),
            "unseen_accuracy": float(right[new].mean()),
            "says_unseen": float((~np.isin(predicted, seen)).mean()),
        }

    def distances(self, train: Gallery) -> Floats:
        """Return the metric between all classes, from training pictures or from what the settings give."""
        if self.settings.metric == "given":
            found = metric(self.settings.distances)
            if len(found) != len(train.classes):
                raise ValueError(
                    f"settings.distances: {len(found)} rows, and the data has {len(train.classes)} classes"
                )
            return found
        if self.settings.metric == "hierarchy":
            graph = needed("networkx").Graph([tuple(edge) for edge in self.settings.edges])
            return on_graph(graph, train.classes)
        squared = self.settings.metric == "squared"
        return between_means(_flat(train), train.labels.numpy(), len(train.classes), squared=squared)

    def classifier(self, train: Gallery, seen: Sequence[int], distances: Floats) -> FrechetClassifier:
        """Return the rule around a predictor fitted on the training pictures of the seen classes alone."""
        rows = torch.isin(train.labels, torch.tensor(seen)).nonzero()[:, 0]
        known = train.take(rows)
        settings = self.settings
        logistic = needed("sklearn.linear_model").LogisticRegression(C=settings.strength, max_iter=1000)
        neighbours = needed("sklearn.neighbors").KNeighborsClassifier(5)
        predictors = {"logistic": logistic, "neighbours": neighbours, "naive_bayes": SharedVarianceNB()}
        predictor = quietly(predictors[settings.predictor].fit, _flat(known), known.labels.numpy())
        return FrechetClassifier(predictor, distances, temperature=settings.temperature, rule=settings.rule).fit()

    def validate(self, work: Workbench, seen: Sequence[int]) -> float:
        """Return the squared distance where two of the seen classes at a time play unseen; of no others' labels.

        The run's unseen classes have no part in it: a tuned run knows no more of them than their distances.
        """
        kept, apart = work.data.train.split(self.settings.validation, work.seed)
        distances = self.distances(kept)
        here = apart.take(torch.isin(apart.labels, torch.tensor(seen)).nonzero()[:, 0])
        place = {label: at for at, label in enumerate(seen)}
        truth = np.array([place[label] for label in here.labels.tolist()])
        among = distances[np.ix_(seen, seen)]
        found = []
        for first in range(0, len(seen) - 1, 2):
            fitted = [label for at, label in enumerate(seen) if at not in (first, first + 1)]
            predictor = self.classifier(kept, fitted, distances).predictor
            options = {"temperature": self.settings.temperature, "rule": self.settings.rule}
            within = FrechetClassifier(predictor, among, labels=seen, **options).fit()
            predicted = np.array([place[label] for label in within.predict(_flat(here)).tolist()])
            found.append(squared_distance(predicted, truth, among))
        return float(np.mean(found))


def confusion(predicted: Places, truth: Places, names: Sequence[str], title: str) -> Figure:
    """Draw what held-out pictures of each class are taken for, as shares of the class."""
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (truth, predicted), 1)
    with look(9, axes__grid=False):
        figure = Figure(figsize=(5.2, 4.6), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("said")
        axes.set_ylabel("is")
        axes.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    return figure


def _flat(gallery: Gallery) -> Floats:
    return gallery.images.flatten(1).double().numpy()
