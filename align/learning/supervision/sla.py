"""SLA: one label for what a picture shows and for how it was transformed, instead of the same label for all of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import contact_sheet
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import ConvEncoder, seeded
from align.wings.parts.labels import JointLabels
from align.wings.workbench import Workbench

# ---- the transforms ------------------------------------------------------------------------------------------------


def untransformed(images: Tensor) -> Tensor:
    """Return the pictures as they are, of shape (n, 1, channels, height, width): with M = 1, SLA is cross entropy."""
    return images[:, None]


def rotations(images: Tensor) -> Tensor:
    """Return the pictures turned by 0, 90, 180 and 270 degrees, of shape (n, 4, channels, side, side)."""
    return torch.stack([images.rot90(turns, (2, 3)) for turns in range(4)], 1)


def colour_permutations(images: Tensor) -> Tensor:
    """Return the pictures with their three channels in every order, the given one first, of shape (n, 6, 3, ...)."""
    return torch.stack([images[:, list(order)] for order in permutations(range(3))], 1)


Transform = Callable[[Tensor], Tensor]
"""From pictures (n, ...) to all that is made of them (n, M, ...), first the pictures as they are."""
TRANSFORMS: dict[str, Transform] = {"rotation": rotations, "colour": colour_permutations}

# ---- the objective -------------------------------------------------------------------------------------------------


def joint_loss(logits: Tensor, labels: Tensor, space: JointLabels, reduce: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return each picture's mean, or sum, over transforms of ``CE(sigma(t_j x), y M + j)``, of shape (n,).

    Args:
        logits: of shape (n, M, N * M), the j-th of the picture under transform j.
        labels: of shape (n,), classes.
        space: of N classes and M transforms.
        reduce: over the transforms.
    """
    transform = torch.arange(space.transforms, device=labels.device)
    each = F.cross_entropy(logits.transpose(1, 2), space.encode(labels[:, None], transform), reduction="none")
    return each.mean(1) if reduce == "mean" else each.sum(1)


def distilled(single: Tensor, aggregated: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Return each picture's ``CE(single, y) + T^2 KL(softmax(aggregated / T) || softmax(single / T))``, of shape (n,).

    Args:
        single: logits of the head that sees only the picture as it is, of shape (n, N).
        aggregated: of the same shape, the teacher; gets no gradient.
        labels: of shape (n,).
        temperature: T.
    """
    taught = (aggregated.detach() / temperature).log_softmax(1)
    divergence = F.kl_div((single / temperature).log_softmax(1), taught, reduction="none", log_target=True).sum(1)
    return F.cross_entropy(single, labels, reduction="none") + temperature**2 * divergence


def augmented_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each picture's mean over transforms of ``CE(sigma(t_j x), y)``: the class must not depend on them, (n,).

    Args:
        logits: of shape (n, M, N).
        labels: of shape (n,).
    """
    wanted = labels[:, None].expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").mean(1)


def multi_task_loss(logits: Tensor, turned: Tensor, labels: Tensor, coefficient: float = 1.0) -> Tensor:
    """Return :func:`augmented_loss` and the coefficient times the mean of ``CE(which transform, j)``, of shape (n,).

    Args:
        logits: of the classes, of shape (n, M, N).
        turned: of the transforms, of shape (n, M, M).
        labels: of shape (n,).
        coefficient: of the second task; 0 leaves the first.
    """
    transform = torch.arange(turned.shape[1], device=labels.device).expand(turned.shape[:2])
    told = F.cross_entropy(turned.transpose(1, 2), transform, reduction="none").mean(1)
    return augmented_loss(logits, labels) + coefficient * told


# ---- the network ---------------------------------------------------------------------------------------------------

Heads = Mapping[str, Tensor]


class Classifier(nn.Module):
    """An encoder with a linear head for every question asked of it.

    Args:
        encoder: from pictures to features.
        sizes: how many answers each head has.
    """

    def __init__(self, encoder: ConvEncoder, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({name: nn.Linear(encoder.features, size) for name, size in sizes.items()})

    def forward(self, transformed: Tensor) -> dict[str, Tensor]:
        """Return each head's logits, of shape (n, M, answers); of ``single`` for the picture as it is, (n, answers).

        Args:
            transformed: of shape (n, M, channels, height, width).
        """
        features = self.encoder(transformed.flatten(0, 1)).unflatten(0, transformed.shape[:2])
        return {name: head(features[:, 0] if name == "single" else features) for name, head in self.heads.items()}


# ---- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaSettings:
    """What is learned of transformed pictures, and by what."""

    objective: Literal["sla", "sla_sd", "plain", "augmentation", "multi_task"] = "sla"
    """Joint labels; joint labels that a further head, which needs one picture only, is taught by; or the baselines on
    the same network: no transforms, transforms with the labels as they are, and which transform as a second task."""
    transform: Literal["rotation", "colour"] = "rotation"
    """By multiples of 90 degrees, M = 4; or of the three colour channels, M = 6."""
    reduce: Literal["mean", "sum"] = "mean"
    """Over the transforms in the joint loss; the official code sums on large data."""
    temperature: float = 1.0
    """Of the distillation, in ``sla_sd``."""
    coefficient: float = 1.0
    """Of the second task, in ``multi_task``; 0 is ``augmentation``."""
    momentum: float = 0.9
    """Of stochastic gradient descent."""
    width: int = 16
    """Channels of the encoder's first layer."""
    features: int = 64
    """Width of what the encoder puts out."""
    depth: int = 3
    """Its layers."""
    validation: float = 0.25
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.coefficient < 0:
            raise ValueError(f"coefficient must be at least 0, got {self.coefficient}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")


@method(
    title="Self-supervised Label Augmentation via Input Transformations",
    arxiv="1910.05872",
    venue="ICML 2020",
    equation="L = mean_j CE(s(t_j x), y M + j); P(i | x) = softmax_i mean_j s_ij(t_j x)",
    departures=(
        "a convolutional network of three layers on few digits in the place of ResNets on CIFAR",
        "learning rates follow the recipe's schedule, not steps at a half and three quarters",
        "pictures are not cropped or mirrored besides, in any arm",
    ),
)
class Sla(Method):
    """Pictures and how they were transformed are classified together, so that no two labels must be the same."""

    Settings = SlaSettings
    least_classes = 2
    quick = {"trainer.max_steps": 2, "trainer.eval_strategy": "no"}

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train a classifier, and classify held-out pictures by themselves and by all that is made of them."""
        self.work = work
        train, validation = work.data.train.split(self.settings.validation, work.seed)
        self.prepare(train)
        with seeded(work.seed):
            encoder = ConvEncoder(
                train.images.shape[1], self.settings.width, self.settings.features, self.settings.depth
            )
            self.net = Classifier(encoder, self.sizes())
        rows = Rows(pixel_values=train.images, labels=train.labels)

        def figures() -> Mapping[str, float]:
            return {f"validation_{name}": value for name, value in self.accuracies(validation).items()}

        work.train(
            self.net,
            self.losses,
            rows,
            figures=figures,
            optimizer=work.sgd(self.net.parameters(), self.settings.momentum),
        )
        self.draw(work.data.test)
        return {**self.accuracies(work.data.test), **figures()}

    def prepare(self, gallery: Gallery) -> None:
        """Choose the transforms and the space of labels.

        Raises:
            ValueError: the pictures cannot be transformed so.
        """
        channels, height, width = gallery.images.shape[1:]
        if self.settings.transform == "colour" and channels != 3:
            raise ValueError(f"settings.transform: colour needs pictures of three channels, and these have {channels}")
        if self.settings.transform == "rotation" and height != width:
            raise ValueError(f"settings.transform: rotation needs square pictures, and these have {height} x {width}")
        plain = self.settings.objective == "plain"
        self.transform = untransformed if plain else TRANSFORMS[self.settings.transform]
        self.space = JointLabels(len(gallery.classes), self.transform(gallery.images[:1]).shape[1])

    def sizes(self) -> dict[str, int]:
        """Return which heads the objective needs, and how many answers each has."""
        classes, transforms = self.space.classes, self.space.transforms
        if self.settings.objective in ("augmentation", "multi_task"):
            further = {"transform": transforms} if self.settings.objective == "multi_task" else {}
            return {"classes": classes, **further}
        return {"joint": self.space.size, **({"single": classes} if self.settings.objective == "sla_sd" else {})}

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses under all its transforms."""
        answers = model(self.transform(batch["pixel_values"]))
        single, _ = self.classified(answers)
        right = (single.argmax(1) == batch["labels"]).float()
        return RowLosses(losses=self.lost(answers, batch["labels"]), metrics={"right": right})

    def lost(self, answers: Heads, labels: Tensor) -> Tensor:
        """Return the loss of each picture, of shape (n,), from the heads' logits."""
        if self.settings.objective == "augmentation":
            return augmented_loss(answers["classes"], labels)
        if self.settings.objective == "multi_task":
            return multi_task_loss(answers["classes"], answers["transform"], labels, self.settings.coefficient)
        loss = joint_loss(answers["joint"], labels, self.space, self.settings.reduce)
        if self.settings.objective == "sla_sd":
            aggregated = self.space.aggregate(answers["joint"])
            loss = loss + distilled(answers["single"], aggregated, labels, self.settings.temperature)
        return loss

    # ---- what comes out ----------------------------------------------------------------------------------------

    def classified(self, answers: Heads) -> tuple[Tensor, Tensor]:
        """Return class logits of each picture as it is, and of all that is made of it, both of shape (n, N)."""
        if "classes" in answers:
            return answers["classes"][:, 0], answers["classes"].mean(1)
        aggregated = self.space.aggregate(answers["joint"])
        return answers.get("single", answers["joint"][:, 0, :: self.space.transforms]), aggregated

    def logits(self, gallery: Gallery) -> tuple[Tensor, Tensor]:
        """Return :meth:`classified` of a gallery's pictures."""
        self.net.eval()

        def both(images: Tensor) -> Tensor:
            return torch.stack(self.classified(self.net(self.transform(images))), 1)

        single, aggregated = self.work.over(both, gallery.images).unbind(1)
        return single, aggregated

    def accuracies(self, gallery: Gallery) -> dict[str, float]:
        """Return the share of right answers by one picture, by all that is made of it, and as the objective answers.

        Joint labels answer by all, everything else by one. All looks M times where one looks once, so that a baseline
        is to be compared with ``sla_sd`` too, which looks once, and by its own ``aggregated``.
        """
        names = ("single", "aggregated")
        pairs = zip(names, self.logits(gallery), strict=True)
        found = {name: float((logits.argmax(1) == gallery.labels).double().mean()) for name, logits in pairs}
        return {"accuracy": found["aggregated" if self.settings.objective == "sla" else "single"], **found}

    def draw(self, test: Gallery) -> None:
        """Draw held-out pictures under all transforms, with the class each is taken for by itself."""
        shown = test.take(torch.randperm(len(test), generator=self.work.generator())[:6])
        made = self.transform(shown.images)
        answers = {name: part.cpu() for name, part in self.net(made.to(self.work.device)).items()}
        each = answers["classes"] if "classes" in answers else self.space.by_transform(answers["joint"])
        of_each = each.argmax(-1).flatten().tolist()
        titles = [f"taken for {test.classes[label]}" for label in of_each]
        columns = self.space.transforms
        caption = "each picture under every transform"
        self.work.picture("transforms", lambda: contact_sheet(made.flatten(0, 1), titles, columns, caption))
