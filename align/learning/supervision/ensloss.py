"""EnsLoss: every mini-batch has a loss of its own, drawn among the convex calibrated ones by its derivative alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import lines
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import MLP, seeded
from align.wings.workbench import Workbench

BELOW_ZERO = 1e-6
"""Taken off every derivative, so that it is negative wherever the margin is."""

# ---- the ensemble ------------------------------------------------------------------------------------------------


def inverse_box_cox(values: Tensor, power: float) -> Tensor:
    """Return ``(1 + power * r)_+^(1 / power)``, which is ``e^r`` at 0: never negative, and growing with r."""
    if power == 0:
        return values.exp()
    return (1 + power * values).clamp_min(0).pow(1 / power)


def random_derivative(margins: Tensor, draws: Tensor, power: float = 0.0) -> Tensor:
    """Return the derivatives, at a batch's margins, of one loss drawn by chance; of shape (n,), without gradient.

    A loss is convex where its derivative does not fall with the margin, so the draws are sorted as the margins are; a
    convex loss is calibrated where its derivative at 0 is negative, so they are all negative. At least -1; beyond a
    margin of 1 divided by it, so that the loss has a tail as of a logarithm.

    Args:
        margins: of shape (n,), ``y f(x)`` with y in {-1, 1}.
        draws: of shape (n,), standard normal.
        power: of the Box-Cox transform.
    """
    margins = margins.detach()
    drawn = (-inverse_box_cox(draws.to(margins), power)).clamp_min(-1).sort().values
    derivative = torch.empty_like(margins)
    derivative[margins.argsort()] = drawn
    return torch.where(margins > 1, derivative / margins, derivative) - BELOW_ZERO


def ensemble_losses(margins: Tensor, derivative: Tensor) -> Tensor:
    """Return losses of shape (n,) whose derivatives by the margins are ``derivative``; their values mean nothing."""
    return derivative.detach() * margins


# ---- fixed losses of the margin ----------------------------------------------------------------------------------


def logistic(margins: Tensor) -> Tensor:
    """Return ``log(1 + e^-z)``: binary cross-entropy."""
    return F.softplus(-margins)


def hinge(margins: Tensor) -> Tensor:
    """Return ``(1 - z)_+``."""
    return (1 - margins).clamp_min(0)


def exponential(margins: Tensor) -> Tensor:
    """Return ``e^-z``."""
    return (-margins).exp()


def focal(margins: Tensor, focus: float = 2.0) -> Tensor:
    """Return ``-(1 - p)^focus log p`` with ``p = sigmoid(z)``."""
    return (-margins).sigmoid().pow(focus) * F.softplus(-margins)


FIXED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "bce": logistic,
    "hinge": hinge,
    "exponential": exponential,
    "focal": focal,
}


# ---- the method --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsLossSettings:
    """The loss, and what makes the network over-fit."""

    loss: Literal["ensemble", "bce", "hinge", "exponential", "focal"] = "ensemble"
    """The method; or one fixed loss."""
    period: int = -1
    """Epochs until the Box-Cox power is drawn anew from U(-1, 1); -1 leaves it at 0."""
    clip: float = 10.0
    """Norm that gradients of the exponential loss are cut to."""
    momentum: float = 0.9
    """Of the gradient descent."""
    width: int = 128
    """Of the two hidden layers."""
    rows: int = 400
    """Training pictures, chosen by the run's seed."""
    noise_features: int = 400
    """Features that say nothing, standard normal, beside the pixels."""
    flips: float = 0.1
    """Share of the training labels that are wrong; labels tuning looks at are as wrong, test labels are right."""
    validation: float = 0.5
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if self.period == 0 or self.period < -1:
            raise ValueError(f"period must be at least 1, or -1 for never, got {self.period}")
        if self.clip <= 0:
            raise ValueError(f"clip must be positive, got {self.clip}")
        for name, least in (("rows", 1), ("width", 1), ("noise_features", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")
        if not 0 <= self.flips < 0.5:
            raise ValueError(f"flips must lie in [0, 0.5), got {self.flips}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")


@method(
    title="EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification",
    arxiv="2409.00908",
    venue="ICML 2025",
    equation="g = max(-BC^-1(r), -1), r ~ N(0, 1), sorted as the margins z; g / z for z > 1; loss = mean stop(g) z",
    departures=(
        "digits, even or odd, among noise features and with wrong labels, not pairs of CIFAR-10's classes",
        "draws depend on the seed and the step alone, so that all processes and a continued run draw the same loss",
    ),
)
class EnsLoss(Method):
    """Stochastic gradients of a random convex calibrated loss a batch, so that no single loss is over-fitted."""

    Settings = EnsLossSettings
    least_classes = 2
    quick = {
        "trainer.max_steps": 2,
        "trainer.save_strategy": "no",
        "trainer.per_device_train_batch_size": 16,
        "settings.rows": 40,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train a network on few noisy rows until it fits them, and see what it says of clean ones."""
        settings, train = self.settings, work.data.train
        kept, validation = train.split(settings.validation, work.seed)
        if settings.rows > len(kept):
            raise ValueError(f"settings.rows: {len(kept)} pictures are left to train on, {settings.rows} are asked for")
        chosen = kept.take(torch.randperm(len(kept), generator=work.generator(1))[: settings.rows])
        scale = Scale(chosen)
        inputs = {
            name: scale(gallery, settings.noise_features, work.generator(2 + at))
            for at, (name, gallery) in enumerate(
                {"train": chosen, "validation": validation, "test": work.data.test}.items()
            )
        }
        signs = {
            "train": flipped(sides(chosen), settings.flips, work.generator(5)),
            "validation": flipped(sides(validation), settings.flips, work.generator(6)),
            "test": sides(work.data.test),
        }
        with seeded(work.seed):
            net = MLP(inputs["train"].shape[1], settings.width, settings.width, 1)
        self.work = work

        def figures() -> Mapping[str, float]:
            found = {name: work.over(net, inputs[name])[:, 0] * signs[name] for name in inputs}
            return {f"{name}_accuracy": float((z > 0).double().mean()) for name, z in found.items()}

        optimizer = work.sgd(net.parameters(), settings.momentum)
        forced = {"max_grad_norm": settings.clip} if settings.loss == "exponential" else {}
        rows = Rows(inputs=inputs["train"], signs=signs["train"])
        work.train(net, self.losses, rows, figures=figures, couples_rows=True, optimizer=optimizer, **forced)
        self.draw()
        return figures()

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each row loses; of the ensemble, only its derivative by the margin is meant."""
        margins = model(batch["inputs"])[:, 0] * batch["signs"]
        right = {"right": (margins.detach() > 0).float()}
        if self.settings.loss != "ensemble":
            return RowLosses(losses=FIXED[self.settings.loss](margins), metrics=right)
        everyones = self.work.gather(margins.detach())
        draws = torch.randn(len(everyones), generator=self.work.generator(10 + self.work.step))
        derivative = random_derivative(everyones, draws.to(everyones), self.power())
        return RowLosses(losses=ensemble_losses(margins, derivative[self.work.place(margins)]), metrics=right)

    def power(self) -> float:
        """Return the Box-Cox power of the present period."""
        if self.settings.period < 0:
            return 0.0
        together = int(self.work.recipe.trainer["per_device_train_batch_size"]) * self.work.processes
        whole = bool(self.work.recipe.trainer.get("dataloader_drop_last"))
        epoch = self.work.step // (self.settings.rows // together if whole else -(-self.settings.rows // together))
        draw = torch.rand((), generator=self.work.generator(-1 - epoch // self.settings.period))
        return float(2 * draw - 1)

    def draw(self) -> None:
        """Draw what three batches of the same margins have for derivatives, and two fixed losses beside them."""
        at = torch.linspace(-2, 4, 25, requires_grad=True)
        curves = {}
        for name in ("bce", "hinge"):
            (slope,) = torch.autograd.grad(FIXED[name](at).sum(), at)
            curves[name] = (at.tolist(), slope.tolist())
        for which in range(3):
            draws = torch.randn(len(at), generator=self.work.generator(-which - 1))
            curves[f"draw {which + 1}"] = (at.tolist(), random_derivative(at, draws).tolist())
        self.work.picture(
            "derivatives", lambda: lines(curves, across="margin", up="derivative", title="one batch each")
        )


# ---- rows among noise --------------------------------------------------------------------------------------------


class Scale:
    """Pixels at mean 0 and variance 1 over a gallery, and noise beside them.

    Args:
        gallery: whose pixels are measured; a pixel that is the same in all its pictures stays 0 there.
    """

    def __init__(self, gallery: Gallery) -> None:
        pixels = gallery.images.flatten(1)
        self.mean, self.spread = pixels.mean(0), pixels.std(0).clamp_min(0.05)

    def __call__(self, gallery: Gallery, noise_features: int, generator: torch.Generator) -> Tensor:
        """Return features of shape (n, pixels + noise_features)."""
        pixels = (gallery.images.flatten(1) - self.mean) / self.spread
        return torch.cat([pixels, torch.randn(len(gallery), noise_features, generator=generator)], 1)


def sides(gallery: Gallery) -> Tensor:
    """Return 1 for odd class numbers and -1 for even ones, of shape (n,): of two classes, the second and the first."""
    return gallery.labels.remainder(2).float() * 2 - 1


def flipped(signs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the signs with a share of them, chosen by chance, the other way round."""
    rows = torch.randperm(len(signs), generator=generator)[: round(share * len(signs))]
    return signs * torch.ones_like(signs).index_fill(0, rows, -1.0)
