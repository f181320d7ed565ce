"""What embeddings look like, without training: rank, uniformity, tolerance, hardness."""

import torch
from torch import Tensor

RANKME_EPSILON = 1e-7


def rankme(embeddings: Tensor) -> float:
    """Return RankMe, the exponential of the entropy of normalised singular values (Garrido et al. 2023).

    Between 1 and the embeddings' width; neither centred nor normalised first. It says something about runs of one
    method and one network beside each other, not about a run alone.

    Args:
        embeddings: of shape (n, width), n at least the width for the rank to be able to show.

    Raises:
        ValueError: there is nothing, or it is not finite.
    """
    if embeddings.ndim != 2 or not embeddings.numel() or not embeddings.isfinite().all():
        raise ValueError(f"rankme needs finite embeddings of shape (n, width), got {tuple(embeddings.shape)}")
    values = torch.linalg.svdvals(embeddings.double())
    share = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny) + RANKME_EPSILON
    return float((-(share * share.log()).sum()).exp())


def threshold_rank(embeddings: Tensor, tolerance: float = 1e-3) -> int:
    """Return how many singular values are more than a share of the largest: the classical comparator of RankMe."""
    values = torch.linalg.svdvals(embeddings.double())
    return int((values > tolerance * values[0]).sum())


def alpha_req(embeddings: Tensor) -> float:
    """Return the exponent of the power law that the covariance's eigenvalues follow (Agrawal et al. 2022)."""
    centred = embeddings.double() - embeddings.double().mean(0)
    values = torch.linalg.svdvals(centred).square()
    values = values[values > values[0] * 1e-12]
    place, height = torch.arange(1, len(values) + 1).double().log(), values.log()
    place = place - place.mean()
    return float(-(place * (height - height.mean())).sum() / place.square().sum())


def uniformity(embeddings: Tensor, sharpness: float = 2.0) -> float:
    """Return ``log mean exp(-2 |z_i - z_j|^2)`` over pairs of normalised rows (Wang, Isola 2020); lower: more even."""
    z = torch.nn.functional.normalize(embeddings, dim=1)
    return float(torch.pdist(z).square().mul(-sharpness).exp().mean().log())


def tolerance(embeddings: Tensor, labels: Tensor) -> float:
    """Return the mean cosine of rows of one class (Wang, Liu 2021): higher lets semantically close rows be close."""
    z = torch.nn.functional.normalize(embeddings, dim=1)
    alike = (labels[:, None] == labels[None, :]) & ~torch.eye(len(labels), dtype=torch.bool)
    return float((z @ z.T)[alike].mean())


def hardness(similarity: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Return each row's relative penalty of its negatives, ``softmax(s / t)`` over them, of shape (rows, columns)."""
    return (similarity / temperature).masked_fill(~negative, float("-inf")).softmax(1)
