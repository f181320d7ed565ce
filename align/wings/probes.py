"""What frozen features are good for: nearest neighbours, a linear probe, retrieval, and the Fréchet distance."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from align.wings.extras import needed


def knn_accuracy(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, k: int = 5) -> float:
    """Return the share of test rows whose k nearest training rows, by cosine, agree on the right class."""
    classifier = needed("sklearn.neighbors").KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return float(classifier.fit(_array(train), labels.numpy()).score(_array(test), truth.numpy()))


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, strength: float = 1.0) -> float:
    """Return a logistic regression's accuracy on standardised features; ``strength`` is scikit-learn's ``C``."""
    pipeline = needed("sklearn.pipeline").make_pipeline
    scale = needed("sklearn.preprocessing").StandardScaler()
    probe = pipeline(scale, needed("sklearn.linear_model").LogisticRegression(C=strength, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe that has not converged is still the same probe for all arms
        probe.fit(_array(train), labels.numpy())
    return float(probe.score(_array(test), truth.numpy()))


def retrieval(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Return recall@1 and MAP@R of each row among all others, by classes (``pytorch-metric-learning``'s).

    Returns:
        ``recall_at_1`` and ``map_at_r``, both in [0, 1].
    """
    tester = needed("pytorch_metric_learning.utils.accuracy_calculator")
    knn = needed("pytorch_metric_learning.utils.inference").CustomKNN(
        needed("pytorch_metric_learning.distances").CosineSimilarity()
    )
    names = ("precision_at_1", "mean_average_precision_at_r")
    found = tester.AccuracyCalculator(include=names, knn_func=knn, device=torch.device("cpu")).get_accuracy(
        embeddings, labels
    )
    return {"recall_at_1": float(found[names[0]]), "map_at_r": float(found[names[1]])}


def recall_at(queries: Tensor, gallery: Tensor, truth: Tensor, ks: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """Return the share of queries whose right gallery row is among the k nearest by cosine.

    Args:
        queries: of shape (n, width).
        gallery: of shape (m, width).
        truth: of shape (n,), number of the right gallery row.
        ks: the ks.
    """
    z, g = (torch.nn.functional.normalize(rows, dim=1) for rows in (queries, gallery))
    order = (z @ g.T).topk(max(ks), dim=1).indices
    hits = order == truth[:, None]
    return {f"recall_at_{k}": float(hits[:, :k].any(1).double().mean()) for k in ks}


def utilisation(queries: Tensor, examples: Tensor) -> float:
    """Return queries' mean squared distance to their nearest example: less is better covered (as in Metrix).

    Args:
        queries: of shape (n, width).
        examples: of shape (m, width).
    """
    return float(torch.cdist(queries.double(), examples.double()).amin(1).square().mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared Fréchet distance of features taken as Gaussians, of shapes (n, width) and (m, width)."""
    first, second = _array(a).astype(np.float64), _array(b).astype(np.float64)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    middle = needed("scipy.linalg").sqrtm(one @ two)
    distance = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(one + two - 2 * np.real(middle))
    return float(max(distance, 0.0))


def of_features(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, prefix: str = "") -> Mapping[str, float]:
    """Return ``knn`` and ``linear`` accuracy of frozen features."""
    return {
        f"{prefix}knn": knn_accuracy(train, labels, test, truth),
        f"{prefix}linear": linear_probe(train, labels, test, truth),
    }


def _array(rows: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return rows.flatten(1).float().numpy()
