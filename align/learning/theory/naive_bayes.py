"""Generative against discriminative: naive Bayes with one variance for all classes, and logistic regression."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from align.wings.drawing import lines
from align.wings.extras import needed
from align.wings.gallery import Gallery
from align.wings.method import Method, method
from align.wings.networks import ConvEncoder, seeded
from align.wings.workbench import Workbench

_checks = needed("sklearn.utils.validation")
_Estimator: Any = needed("sklearn.base").BaseEstimator
_Classifier: Any = needed("sklearn.base").ClassifierMixin

Floats = NDArray[np.float64]
EXCESS = 0.01
"""How far above the Bayes error a rule's error may be to count as learned."""


# ---- the rule ----------------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """What naive Bayes keeps of the rows it has seen.

    Attributes:
        size: of shape (K,), rows of each class.
        mean: of shape (K, n), of each class; zero where there are no rows.
        scatter: of shape (K, n), sums of squared deviations from that mean.
    """

    size: Floats
    mean: Floats
    scatter: Floats


def moments(rows: Floats, places: NDArray[np.intp], classes: int) -> Moments:
    """Return the moments of rows of shape (m, n), whose classes are ``places`` of shape (m,), in 0 ... K - 1."""
    member = np.equal.outer(np.arange(classes), places).astype(np.float64)
    size = member.sum(1)
    mean = member @ rows / np.maximum(size, 1)[:, None]
    return Moments(size, mean, member @ (rows - mean[places]) ** 2)


def merged(a: Moments, b: Moments) -> Moments:
    """Return the moments of two sets of rows together, without the rows (Chan, Golub and LeVeque 1979)."""
    size = a.size + b.size
    share = (b.size / np.maximum(size, 1))[:, None]
    apart = b.mean - a.mean
    return Moments(size, a.mean + share * apart, a.scatter + b.scatter + a.size[:, None] * share * apart**2)


def shared_variance(found: Moments, smoothing: float) -> Floats:
    """Return the classes' variances averaged by their shares of the rows, plus ``smoothing``, of shape (n,)."""
    variance: Floats = found.scatter.sum(0) / found.size.sum() + smoothing
    return variance


def linear_rule(found: Moments, smoothing: float) -> tuple[Floats, Floats]:
    """Return weights (K, n) and offsets (K,) of the log joint ``w_k x + b_k``, up to what all classes share.

    ``log pi_k - sum_j (x_j - mu_kj)^2 / (2 s_j)``, whose squares of x drop out since s is the same for all classes.
    A class without rows has an offset of minus infinity.
    """
    weights = found.mean / shared_variance(found, smoothing)
    with np.errstate(divide="ignore"):
        prior = np.log(found.size / found.size.sum())
    return weights, prior - (weights * found.mean).sum(1) / 2


class SharedVarianceNB(_Classifier, _Estimator):
    """Gaussian naive Bayes whose diagonal variance is one for all classes, so that its rule is linear.

    scikit-learn's ``GaussianNB`` has a variance for each class, and is a quadratic rule. A scikit-learn classifier.

    Args:
        smoothing: what is added to every variance.
    """

    classes_: NDArray[Any]
    moments_: Moments

    def __init__(self, smoothing: float = 1e-9) -> None:
        self.smoothing = smoothing

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Learn from these rows alone.

        Args:
            X: of shape (m, n).
            y: of shape (m,), classes.
        """
        return self._learn(X, y, None, anew=True)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learn from further rows; any cut of a stream into parts ends in the same rule.

        Args:
            X: of shape (m, n).
            y: of shape (m,), classes.
            classes: all there will be; needed at the first call.

        Raises:
            ValueError: the first call names no classes, a later one names others, or y has one that was not named.
        """
        return self._learn(X, y, classes, anew=not hasattr(self, "moments_"))

    def _learn(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None, *, anew: bool) -> Self:  # noqa: N803
        rows, y = _checks.validate_data(self, X, y, reset=anew, dtype=np.float64)
        needed("sklearn.utils.multiclass").check_classification_targets(y)
        streams = classes is not None or not anew
        named = np.unique(y if classes is None and anew else self.classes_ if classes is None else classes)
        if not anew and not np.array_equal(named, self.classes_):
            raise ValueError(f"classes {named} are not those of the first call, {self.classes_}")
        unknown = np.setdiff1d(y, named)
        if streams and len(unknown):
            raise ValueError(f"y has classes {unknown} that classes={named} does not name")
        new = moments(rows, np.searchsorted(named, y), len(named))
        self.classes_ = named
        self.moments_ = new if anew else merged(self.moments_, new)
        self.coef_, self.intercept_ = linear_rule(self.moments_, self.smoothing)
        return self

    def predict_log_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the log posteriors, of shape (m, K)."""
        _checks.check_is_fitted(self)
        rows = _checks.validate_data(self, X, reset=False, dtype=np.float64)
        joint = rows @ self.coef_.T + self.intercept_
        found: Floats = needed("scipy.special").log_softmax(joint, axis=1)
        return found

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the posteriors, of shape (m, K)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the likeliest classes, of shape (m,)."""
        places = self.predict_log_proba(X).argmax(1)
        return np.asarray(self.classes_[places])


# ---- how many rows it takes --------------------------------------------------------------------------------------


def class_means(classes: int) -> Floats:
    """Return each class's mean, the same in every coordinate: -1 for the first, 2^(k-1) for the k-th after it."""
    return np.array([-1.0] + [2.0 ** (k - 1) for k in range(1, classes)])


def variances(width: int) -> Floats:
    """Return the coordinates' variances, of shape (n,): n for half of them, 1 for the others."""
    return np.where(np.arange(width) < width // 2, float(width), 1.0)


def bayes_error(classes: int, width: int) -> float:
    """Return the least error any rule can have on the simulated classes.

    Means lie on a line and covariances are equal, so that the best rule cuts the line halfway between neighbours.
    """
    scale = math.sqrt((1 / variances(width)).sum())
    tails = [math.erfc(gap * scale / 2 / math.sqrt(2)) / 2 for gap in np.diff(class_means(classes))]
    return 2 * sum(tails) / classes


def simulated(rows: int, classes: int, width: int, draws: np.random.Generator) -> tuple[Floats, NDArray[np.intp]]:
    """Return rows of shape (rows, width) and their classes, which are equally likely."""
    labels = draws.integers(classes, size=rows)
    noise = draws.standard_normal((rows, width)) * np.sqrt(variances(width))
    return class_means(classes)[labels][:, None] + noise, labels.astype(np.intp)


def samples_needed(
    make: Callable[[], Any], classes: int, width: int, draws: np.random.Generator, *, most: int, tested: int = 4000
) -> int:
    """Return how many rows of one stream a classifier needs until its error is below Bayes + 1 %; at most ``most``.

    Sizes are doubled until they are enough, then grown by a tenth from the half of that; a size at which a class is
    still missing is not enough.
    """
    rows, labels = simulated(most, classes, width, draws)
    test, truth = simulated(tested, classes, width, draws)
    goal = bayes_error(classes, width) + EXCESS

    def enough(size: int) -> bool:
        if len(np.unique(labels[:size])) < classes:
            return False
        predicted = quietly(make().fit, rows[:size], labels[:size]).predict(test)
        return bool((predicted != truth).mean() < goal)

    size = classes
    while size < most and not enough(size):
        size = min(2 * size, most)
    enough_at, size = size, max(classes, size // 2)
    while size < enough_at and not enough(size):
        size = max(size + 1, round(1.1 * size))
    return min(size, enough_at)


def slope(widths: Sequence[int], samples: Sequence[float]) -> float:
    """Return the exponent a of ``samples ~ widths^a``, by least squares of the logarithms."""
    return float(np.polyfit(np.log(widths), np.log(samples), 1)[0])


def quietly(fit: Callable[..., Any], *data: Any) -> Any:
    """Fit, without a warning that a solver stopped at its last iteration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", needed("sklearn.exceptions").ConvergenceWarning)
        return fit(*data)


# ---- the method --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveBayesSettings:
    """Which rule, and what it is measured on."""

    classifier: Literal["naive_bayes", "logistic"] = "naive_bayes"
    """The method; or multinomial logistic regression on the same rows."""
    smoothing: float = 1e-9
    """Added to naive Bayes' variances."""
    strength: float = 1.0
    """Logistic regression's C on the frozen features; the simulation has the paper's 1."""
    widths: list[int] = field(default_factory=lambda: [50, 100, 200, 400])
    """Numbers of coordinates that are simulated."""
    classes: list[int] = field(default_factory=lambda: [2, 3])
    """Numbers of classes that are simulated."""
    streams: int = 3
    """Streams of simulated rows that counts are averaged over."""
    most: int = 4000
    """Rows of a stream; a rule that needs more counts as these."""
    features: Literal["pca", "random_conv", "pixels"] = "pca"
    """Frozen features: principal components of the pictures, an untrained convolutional network's, or pixels."""
    dimensions: int = 32
    """Width of the features, but for pixels."""
    per_class: list[int] = field(default_factory=lambda: [1, 2, 5, 10, 30, 100, 300])
    """Labelled pictures of each class, from few to many."""
    draws: int = 5
    """Subsets that accuracies are averaged over."""
    validation: float = 0.25
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if not (self.smoothing > 0 and math.isfinite(self.smoothing)):
            raise ValueError(f"smoothing must be positive and finite, got {self.smoothing}")
        if self.strength <= 0:
            raise ValueError(f"strength must be positive, got {self.strength}")
        for name, least in (("widths", 2), ("classes", 2), ("per_class", 1)):
            values = getattr(self, name)
            if not values or min(values) < least or len(set(values)) != len(values):
                raise ValueError(f"{name} must be different numbers of at least {least}, got {values}")
        if len(self.widths) < 2:
            raise ValueError(f"widths needs at least two for a slope, got {self.widths}")
        for name in ("streams", "most", "dimensions", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")


@method(
    title="Revisiting Discriminative vs. Generative Classifiers: Theory and Implications",
    arxiv="2302.02334",
    venue="ICML 2023",
    equation="log p(k | x) = log pi_k - sum_j (x_j - mu_kj)^2 / (2 s_j) + const, s_j = sum_k pi_k s_kj + eps",
    departures=(
        "frozen features are principal components of MNIST digits, not those of backbones trained on ImageNet",
        "how many rows a simulated rule needs is read off growing streams, by doubling and then in steps of a tenth",
    ),
)
class NaiveBayes(Method):
    """Naive Bayes with a shared variance learns from O(log n) rows, logistic regression from O(n) and then better."""

    Settings = NaiveBayesSettings
    least_classes = 2
    quick = {
        "settings.widths": [5, 10],
        "settings.streams": 1,
        "settings.most": 60,
        "settings.per_class": [1, 2, 5, 300],
        "settings.draws": 1,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Count the rows that simulated classes take, then classify frozen features by few labels and by many."""
        figures = self.simulate(work)
        kept, validation = work.data.train.split(self.settings.validation, work.seed)
        train, apart, test = (self.frozen(work, kept, part) for part in (kept, validation, work.data.test))
        on_test, on_apart = [], []
        for count in self.settings.per_class:
            scores = [self.fitted_on(kept, train, count, work.seed + 1000 * i) for i in range(self.settings.draws)]
            on_test.append(float(np.mean([s.score(test, work.data.test.labels.numpy()) for s in scores])))
            on_apart.append(float(np.mean([s.score(apart, validation.labels.numpy()) for s in scores])))
            figures[f"accuracy_{count}"] = on_test[-1]
        curve = {self.settings.classifier: (self.settings.per_class, on_test)}
        work.picture(
            "by_labels",
            lambda: lines(curve, across="labels a class", up="accuracy", title="frozen features", logarithmic="x"),
        )
        return {**figures, "validation_accuracy": float(np.mean(on_apart))}

    def simulate(self, work: Workbench) -> dict[str, float]:
        """Return how many rows each simulation takes, and the exponent of their growth with the coordinates."""
        figures: dict[str, float] = {}
        curves = {}
        for classes in self.settings.classes:
            counts = [self.needs(classes, width, work.seed) for width in self.settings.widths]
            figures |= {f"samples_{classes}_{n}": c for n, c in zip(self.settings.widths, counts, strict=True)}
            figures[f"slope_{classes}"] = slope(self.settings.widths, counts)
            curves[f"{classes} classes"] = (self.settings.widths, counts)
        title = f"{self.settings.classifier}: rows until Bayes + {EXCESS:.0%}"
        work.picture("samples", lambda: lines(curves, across="coordinates", up="rows", title=title, logarithmic="xy"))
        return figures

    def needs(self, classes: int, width: int, seed: int) -> float:
        """Return the mean over streams of the rows a simulation takes; both rules see the same streams."""
        found = []
        for stream in range(self.settings.streams):
            draws = np.random.default_rng([seed, classes, width, stream])
            found.append(samples_needed(lambda: self.rule(1.0), classes, width, draws, most=self.settings.most))
        return float(np.mean(found))

    def rule(self, strength: float) -> Any:
        """Return the classifier that the settings name, not yet fitted."""
        if self.settings.classifier == "naive_bayes":
            return SharedVarianceNB(self.settings.smoothing)
        return needed("sklearn.linear_model").LogisticRegression(C=strength, max_iter=1000)

    def fitted_on(self, kept: Gallery, features: Floats, count: int, seed: int) -> Any:
        """Return the rule fitted on some pictures of each class, scaled by a MinMax of these very pictures."""
        numbered = Gallery(
            images=kept.images, labels=kept.labels, classes=kept.classes, more={"row": torch.arange(len(kept))}
        ).per_class(count, seed)
        scaled = needed("sklearn.pipeline").make_pipeline(
            needed("sklearn.preprocessing").MinMaxScaler(), self.rule(self.settings.strength)
        )
        return quietly(scaled.fit, features[numbered.more["row"].numpy()], numbered.labels.numpy())

    def frozen(self, work: Workbench, kept: Gallery, gallery: Gallery) -> Floats:
        """Return a gallery's features, of shape (n, width); no label has a part in them."""
        flat = gallery.images.flatten(1)
        if self.settings.features == "random_conv":
            with seeded(work.seed):
                net = ConvEncoder(gallery.images.shape[1], features=self.settings.dimensions).eval().to(work.device)
            return work.over(net, gallery.images).double().numpy()
        if self.settings.features == "pca":
            size = min(self.settings.dimensions, *kept.images.flatten(1).shape)
            pca = needed("sklearn.decomposition").PCA(size, random_state=work.seed).fit(kept.images.flatten(1).numpy())
            return np.asarray(pca.transform(flat.numpy()), dtype=np.float64)
        return flat.double().numpy()
