"""What a projection head keeps from the features before it: exactly, for a linear network, and on digits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import embeddings, lines
from align.wings.extras import needed
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import MLP, ConvEncoder, Projected, seeded
from align.wings.parts.pairs import Pairs, cosines, info_nce
from align.wings.probes import knn_accuracy, linear_probe
from align.wings.views import Views
from align.wings.workbench import Workbench

# ---- the linear theorem ----------------------------------------------------------------------------------------------


def spectral_risk(first: Tensor, second: Tensor, sizes: Tensor, noises: Tensor) -> Tensor:
    """Return the expected spectral contrastive loss of ``f(x) = second @ first @ x``, without a bias.

    Feature i of a picture x has size ``sizes[i]``, and each view adds noise of deviation ``noises[i]`` of its own:
    ``E x x+' = diag(sizes^2)`` of two views of one picture, and ``E x x' = diag(sizes^2 + noises^2)`` of one view. With
    x and y of different pictures, ``L = -2 E f(x).f(x+) + E (f(x).f(y))^2``.

    Args:
        first: of shape (hidden, features).
        second: of shape (outputs, hidden).
        sizes: of shape (features,).
        noises: of shape (features,).
    """
    together, each = sizes.square(), sizes.square() + noises.square()
    product = second @ first
    gram = product.T @ product
    return -2 * (gram.diagonal() * together).sum() + (gram.square() * each[:, None] * each).sum()


def descent(first: Tensor, second: Tensor, sizes: Tensor, noises: Tensor) -> tuple[Tensor, Tensor]:
    """Return where both layers go: minus the gradient of :func:`spectral_risk`.

    ``W1' = W2^T G`` and ``W2' = G W1^T`` of one G, so that ``W1 W1^T - W2^T W2`` stays as it began.
    """
    together, each = sizes.square(), sizes.square() + noises.square()
    product = second @ first
    pull = 4 * (product * together - product @ (product.T @ product * each[:, None] * each))
    return second.T @ pull, pull @ first.T


def post_head(sizes: Tensor, noises: Tensor) -> Tensor:
    """Return the weight that each feature has in the minimiser after the head: ``size / (size^2 + noise^2)``."""
    return sizes / (sizes.square() + noises.square())


def pre_head(sizes: Tensor, noises: Tensor) -> Tensor:
    """Return the weight that each feature has before the head, where layers are balanced: the square root."""
    return post_head(sizes, noises).sqrt()


def imbalance(first: Tensor, second: Tensor) -> float:
    """Return ``|W1 W1^T - W2^T W2| / |W1 W1^T|``: near 0 where the start was small."""
    inner = first @ first.T
    return float((inner - second.T @ second).norm() / inner.norm())


def flow(sizes: Tensor, noises: Tensor, *, start: float, generator: torch.Generator) -> tuple[list[float], Tensor]:
    """Follow the gradient of :func:`spectral_risk` from a small random start until nothing moves.

    Args:
        sizes: of shape (features,), float64.
        noises: of shape (features,).
        start: scale of the start; the smaller, the longer weights stay near 0, and the better layers are balanced.
        generator: draws the start.

    Returns:
        Times, and at each both layers, of shape (times, 2, features, features).

    Raises:
        ValueError: the flow could not be followed.
    """
    width = len(sizes)
    begin = start * torch.randn(2, width, width, generator=generator, dtype=torch.float64) / width**0.5
    # a feature of size s that only one of the layers began with leaves 0 at the rate of (start s)^2 alone
    end = 1000 + 100 / (start * float(sizes.min())) ** 2

    def moved(_: float, at: Any) -> Any:
        first, second = torch.from_numpy(at).view(2, width, width)
        return torch.stack(descent(first, second, sizes, noises)).flatten().numpy()

    found = needed("scipy.integrate").solve_ivp(
        moved, (0, end), begin.flatten().numpy(), method="LSODA", rtol=1e-6, atol=1e-8
    )
    if not found.success:
        raise ValueError(f"the gradient flow could not be followed: {found.message}")
    return found.t.tolist(), torch.from_numpy(np.ascontiguousarray(found.y.T)).view(-1, 2, width, width)


# ---- the heads -------------------------------------------------------------------------------------------------------


class Reweighting(nn.Module):
    """A head that is not trained: the i-th feature is divided by ``kappa^i``.

    Args:
        features: how many.
        kappa: at least 1; 1 is no head.
    """

    factors: Tensor

    def __init__(self, features: int, kappa: float) -> None:
        super().__init__()
        self.register_buffer("factors", kappa ** -torch.arange(features).float())

    def forward(self, features: Tensor) -> Tensor:
        """Return the features reweighted."""
        return features * self.factors


def coarsened(labels: Tensor, classes: int, coarse: str) -> Tensor:
    """Return labels of fewer classes: ``remainder`` of half as many, ``half`` of two, ``fine`` of all."""
    if coarse == "remainder":
        return labels % (classes // 2)
    return labels if coarse == "fine" else (labels >= classes // 2).long()


# ---- the method ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionHeadSettings:
    """The head, what is taught through it, and the linear network's features."""

    head: Literal["mlp", "reweighting", "none"] = "mlp"
    """A trained head; the fixed one; or none, so that features before and after it are the same."""
    coarse: Literal["remainder", "half", "fine"] = "remainder"
    """What is taught: the class modulo half their number, which half it is in, or, the aligned control, the class."""
    kappa: float = 1.05
    """Of the fixed head."""
    temperature: float = 0.1
    """Of the supervised contrastive loss; the default is ours."""
    width: int = 16
    """Channels of the encoder's first layer."""
    features: int = 64
    """Width before the head, and after it: probes of both see as many numbers."""
    validation: float = 0.2
    """Share of the training pictures kept apart, which tuning looks at."""
    sizes: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0, 0.6, 1.2, 0.3])
    """Sizes of the linear network's features."""
    noises: list[float] = field(default_factory=lambda: [0.1, 0.6, 1.5, 0.1, 0.0, 0.1])
    """Deviations of the noise that views add to them."""
    start: float = 0.05
    """Deviation of the linear network's start; the theorem is of small ones."""

    def __post_init__(self) -> None:
        if not self.kappa >= 1:
            raise ValueError(f"kappa must be at least 1, got {self.kappa}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")
        if len(self.sizes) != len(self.noises) or not self.sizes:
            raise ValueError(f"sizes and noises must be as many, got {len(self.sizes)} and {len(self.noises)}")
        if not all(size > 0 for size in self.sizes) or not all(noise >= 0 for noise in self.noises):
            raise ValueError(f"sizes must be positive and noises no less than 0, got {self.sizes} and {self.noises}")
        if not 0 < self.start <= 1:
            raise ValueError(f"start must lie in (0, 1], got {self.start}")

    def made(self) -> nn.Module:
        """Return the head."""
        if self.head == "mlp":
            return MLP(self.features, self.features, self.features)
        return nn.Identity() if self.head == "none" else Reweighting(self.features, self.kappa)


@method(
    title="Investigating the Benefits of Projection Head for Representation Learning",
    arxiv="2403.11391",
    venue="ICLR 2024",
    equation="after the head phi_i / (phi_i^2 + sigma_i^2), before it the square root of that",
    departures=(
        "the linear theorem is measured along the gradient flow of the expected loss, integrated, not by sampling",
        "SupCon on 5,000 digits with coarse labels and fine probes; no UrbanCars, no shifted ImageNet",
        "the non-linear theorem, of features that upper layers have lost, is not measured",
    ),
)
class ProjectionHead(Method):
    """Features grow more unequal with depth, so those before the head keep what the task made little of.

    Two measurements: the weights of a two-layer linear network's features against their closed form, and digits that
    are taught by coarse labels through a head, whose fine labels are then read before and after it.
    """

    Settings = ProjectionHeadSettings
    least_classes = 4
    quick = {
        "trainer.max_steps": 2,
        "trainer.eval_strategy": "no",
        "data.train_per_class": 20,
        "data.test_per_class": 10,
        "settings.width": 4,
        "settings.features": 8,
        "settings.sizes": [1.0, 0.6],
        "settings.noises": [0.1, 0.1],
        "settings.start": 0.1,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Measure the theorem, train on coarse labels, then read fine and coarse ones before and after the head."""
        self.work, settings = work, self.settings
        theorem = self.theorem()
        train, validation = work.data.train.split(settings.validation, work.seed)
        self.views = Views(train.images.shape[-1], smallest=0.6, flip=False, jitter=0.2)
        with seeded(work.seed):
            encoder = ConvEncoder(train.images.shape[1], settings.width, settings.features)
            self.net = Projected(encoder, settings.made())

        def figures() -> Mapping[str, float]:
            return {"validation_fine_before": self.read(self.net.encoder, train, validation)["fine"]}

        rows = Rows(images=train.images, labels=self.taught(train))
        work.train(self.net, self.losses, rows, figures=figures, couples_rows=True)
        return {**self.before_and_after(train, work.data.test), **figures(), **theorem}

    def taught(self, gallery: Gallery) -> Tensor:
        """Return the labels that are taught."""
        return coarsened(gallery.labels, len(gallery.classes), self.settings.coarse)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses, the mean over its two views."""
        _, embedded = model(self.views.two(batch["images"]))
        labels = batch["labels"].repeat(2)
        table = cosines(embedded, self.work.gather(embedded))
        pairs = Pairs.among(labels, self.work.gather(labels), self.work.place(labels))
        losses = info_nce(table, pairs, temperature=self.settings.temperature)
        return RowLosses(losses=losses.view(2, -1).mean(0), metrics={})

    # ---- what is read ------------------------------------------------------------------------------------------------

    def after(self, images: Tensor) -> Tensor:
        """Return what comes out of the head."""
        out: Tensor = self.net(images)[1]
        return out

    def read(self, of: Any, train: Gallery, test: Gallery) -> dict[str, float]:
        """Return how well a linear probe reads the classes, and what was taught, from some function of pictures.

        The probe standardises what it reads, to which the fixed head is no change; nearest neighbours (``knn``) do not.
        """
        known, asked = (self.work.over(of, part.images) for part in (train, test))
        return {
            "fine": linear_probe(known, train.labels, asked, test.labels),
            "coarse": linear_probe(known, self.taught(train), asked, self.taught(test)),
            "knn": knn_accuracy(known, train.labels, asked, test.labels),
        }

    def before_and_after(self, train: Gallery, test: Gallery) -> dict[str, float]:
        """Return what is read before and after the head, and the difference; draw both."""
        before, after = self.read(self.net.encoder, train, test), self.read(self.after, train, test)
        self.draw(test, self.net.encoder, "before")
        self.draw(test, self.after, "after")
        return {
            **{f"{name}_before": value for name, value in before.items()},
            **{f"{name}_after": value for name, value in after.items()},
            "fine_gap": before["fine"] - after["fine"],
            "knn_gap": before["knn"] - after["knn"],
        }

    def draw(self, test: Gallery, of: Any, where: str) -> None:
        """Draw the classes where they are before or after the head."""
        points = self.work.over(of, test.images)
        name = f"{where} the head"
        self.work.picture(f"{where}_the_head", lambda: embeddings(points, test.labels, test.classes, name))

    def theorem(self) -> dict[str, float]:
        """Return how far the linear network's weights are from their closed form, the largest relative error."""
        sizes, noises = (torch.tensor(one, dtype=torch.float64) for one in (self.settings.sizes, self.settings.noises))
        times, layers = flow(sizes, noises, start=self.settings.start, generator=self.work.generator())
        first, second = layers[-1]
        post, pre = (second @ first).norm(dim=0), first.norm(dim=0)
        self.work.picture("weights", lambda: course(times, layers))
        return {
            "post_error": float((post / post_head(sizes, noises) - 1).abs().max()),
            "pre_error": float((pre / pre_head(sizes, noises) - 1).abs().max()),
            "imbalance": imbalance(first, second),
            "inequality_post": float(post.max() / post.min()),
            "inequality_pre": float(pre.max() / pre.min()),
        }


def course(times: Sequence[float], layers: Tensor) -> Any:
    """Draw each feature's weight after the head as the flow goes on."""
    shown = range(1, len(times), max(1, len(times) // 60))
    weights = (layers[:, 1] @ layers[:, 0]).norm(dim=1)
    curves = {
        f"feature {i + 1}": ([times[k] for k in shown], weights[list(shown), i].tolist())
        for i in range(weights.shape[1])
    }
    return lines(curves, across="time of the gradient flow", up="weight after the head", logarithmic="x")
