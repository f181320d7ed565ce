"""Metrix: mixup for metric learning, where what a mixed example is depends on the anchor it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import contact_sheet, embeddings
from align.wings.extras import needed
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import seeded
from align.wings.parts.composer import ClassBatches
from align.wings.parts.pairs import Pairs
from align.wings.parts.selection import largest
from align.wings.probes import retrieval, utilisation
from align.wings.workbench import Workbench

Function = Callable[[Tensor], Tensor]


def unchanged(x: Tensor) -> Tensor:
    """Return what is given."""
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """A metric loss ``T(S+(sum over positives of r+(s)) + S-(sum over negatives of r-(s)))`` of an anchor.

    Attributes:
        pull: r+, of the cosine with a positive.
        push: r-, of the cosine with a negative.
        near: S+.
        far: S-.
        outer: T.
        averaged: whether each sum is divided by the number of its terms that are not 0.
    """

    pull: Function
    push: Function
    near: Function = unchanged
    far: Function = unchanged
    outer: Function = unchanged
    averaged: bool = False

    def __call__(self, similarity: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """Return the loss of each anchor, of shape (anchors,); with labels of 0 and 1, the loss without mixup.

        Args:
            similarity: cosines of anchors and examples, of shape (anchors, examples).
            labels: how much each example is a positive of the anchor, in [0, 1], of the same shape.
            counted: which examples the anchor is compared with, of the same shape.
        """
        positive = (labels * self.pull(similarity)).where(counted, 0.0)
        negative = ((1 - labels) * self.push(similarity)).where(counted, 0.0)
        return self.outer(self.near(self._total(positive)) + self.far(self._total(negative)))

    def _total(self, terms: Tensor) -> Tensor:
        return terms.sum(1) / (terms != 0).sum(1).clamp_min(1) if self.averaged else terms.sum(1)


def contrastive(margin: float) -> Additive:
    """Return ``r+ = 1 - s`` and ``r- = [s - margin]+``, averaged; the 1 makes no gradient, and a loss of at least 0."""
    return Additive(pull=lambda s: 1 - s, push=lambda s: (s - margin).relu(), averaged=True)


def multi_similarity(beta: float, gamma: float, margin: float) -> Additive:
    """Return ``r+ = e^{-beta (s - m)}``, ``r- = e^{gamma (s - m)}``, ``S+ = log(1 + x) / beta``, ``S-`` with gamma."""
    return Additive(
        pull=lambda s: (-beta * (s - margin)).exp(),
        push=lambda s: (gamma * (s - margin)).exp(),
        near=lambda x: x.log1p() / beta,
        far=lambda x: x.log1p() / gamma,
    )


def proxy_anchor(scale: float, margin: float) -> Additive:
    """Return ``r+ = e^{-scale (s - m)}``, ``r- = e^{scale (s + m)}`` and ``S = log(1 + x)``; anchors are proxies."""
    return Additive(
        pull=lambda s: (-scale * (s - margin)).exp(),
        push=lambda s: (scale * (s + margin)).exp(),
        near=torch.log1p,
        far=torch.log1p,
    )


def relative_label(share: float | Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return how much mixed examples are positives of an anchor: ``share`` if the first is, the rest if the second.

    Args:
        share: of the first in the mixture, in [0, 1].
        first: whether the first example is a positive, bool; the anchor is one of itself.
        second: whether the second is.
    """
    return share * first + (1 - share) * second


def mixed_cosines(anchors: Tensor, examples: Tensor, share: float) -> Tensor:
    """Return the cosines of anchors with ``share * first + (1 - share) * second``, of shape (anchors, n, n).

    All pairs of examples are mixed without being made: a mixture's products and norm follow from the examples'.

    Args:
        anchors: of shape (anchors, width), normalised.
        examples: of shape (n, width), normalised or not.
        share: of the first.
    """
    products, gram = anchors @ examples.T, examples @ examples.T
    along = share * products[:, :, None] + (1 - share) * products[:, None, :]
    own = gram.diagonal()
    squared = share**2 * own[:, None] + (1 - share) ** 2 * own[None] + 2 * share * (1 - share) * gram
    return along / squared.clamp_min(1e-12).sqrt()


def mixed_pairs(pairs: Pairs, own: Tensor | None) -> Tensor:
    """Return which (first, second) are mixed for each anchor, of shape (anchors, n, n): first a positive, second not.

    Args:
        pairs: what the examples are to the anchors.
        own: where the anchor is among the examples, bool; given, the anchor itself is mixed with its negatives, else
            each of its positives is.
    """
    first = pairs.positive if own is None else own
    return first[:, :, None] & pairs.negative[:, None, :]


def hardest_only(similarity: Tensor, pairs: Pairs) -> Pairs:
    """Return the pairs, with only the most similar negative of each anchor; similarity is of shape (anchors, n)."""
    among = similarity.masked_fill(~pairs.negative, float("-inf"))
    return Pairs(pairs.positive, pairs.negative & largest(among, 1))


def mixtures(pictures: Tensor, mixed: Tensor, share: float) -> Tensor:
    """Return ``share * first + (1 - share) * second`` for each (anchor, first, second) that is mixed, in order."""
    _, first, second = mixed.nonzero().unbind(1)
    return share * pictures[first] + (1 - share) * pictures[second]


def spread(values: Tensor, mixed: Tensor) -> Tensor:
    """Return a table with the values where something is mixed, in their order, and 0 elsewhere."""
    return values.new_zeros(mixed.shape).masked_scatter(mixed, values)


# ---- the method ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MetrixSettings:
    """Which loss, and where examples are mixed for it."""

    mix: Literal["none", "input", "feature", "embedding"] = "embedding"
    """Where examples are mixed; or not at all, the baseline."""
    loss: Literal["contrastive", "multi_similarity", "proxy_anchor"] = "multi_similarity"
    """The metric loss."""
    weight: float = 0.4
    """Of the mixed loss, beside the clean one's 1."""
    concentration: float = 2.0
    """Of the Beta distribution that mixing shares are drawn from."""
    margin: float = 0.5
    """Of the contrastive loss: cosine that negatives may have; and the offset of multi-similarity."""
    beta: float = 2.0
    """Sharpness of multi-similarity's positives."""
    gamma: float = 50.0
    """Sharpness of multi-similarity's negatives."""
    proxy_scale: float = 32.0
    """Sharpness of proxy-anchor."""
    proxy_margin: float = 0.1
    """Margin of proxy-anchor."""
    each: int = 10
    """Rows of a class in a batch."""
    seen: int = 5
    """Classes to train on; retrieval is tested on the others."""
    width: int = 16
    """Channels of the first layer."""
    embedding: int = 64
    """Width of the space that is searched."""

    def __post_init__(self) -> None:
        for name in ("concentration", "beta", "gamma", "proxy_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.weight >= 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")
        if self.each < 2:
            raise ValueError(f"each must be at least 2, for an anchor to have positives, got {self.each}")
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")
        if self.seen < 2:
            raise ValueError(f"seen must be at least 2, for an anchor to have negatives, got {self.seen}")


class Mixing(NamedTuple):
    """What a step mixes: the first example's share, and whether anchors or their positives are the first."""

    share: float
    anchors: bool


class MetricNet(nn.Module):
    """Convolutions to features and one linear layer to embeddings; with proxies of the classes where there are any.

    Normalised within each picture: over a batch, mixed pictures would change what clean ones are normalised by.
    """

    def __init__(self, settings: MetrixSettings, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in ((channels, settings.width), (settings.width, 4 * settings.width)):
            layers += [nn.Conv2d(into, out, 3, stride=2, padding=1), nn.GroupNorm(4, out), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * settings.width, settings.embedding)
        self.clean = clean_loss(settings)

    def embed(self, images: Tensor) -> Tensor:
        """Return normalised embeddings."""
        return F.normalize(self.head(self.encoder(images)), dim=1)

    def forward(self, images: Tensor, further: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return the pictures' embeddings before they are normalised, and the embeddings of further pictures.

        Args:
            images: of shape (n, channels, height, width).
            further: makes pictures from the normalised embeddings, without gradient; None for none.
        """
        found = self.head(self.encoder(images))
        more = found.new_zeros(0, found.shape[1])
        if further is not None:
            more = self.embed(further(F.normalize(found.detach(), dim=1)))
        return found, more


def clean_loss(settings: MetrixSettings) -> Any:
    """Return ``pytorch-metric-learning``'s loss, a module of embeddings and labels."""
    losses = needed("pytorch_metric_learning.losses")
    if settings.loss == "contrastive":
        cosine = needed("pytorch_metric_learning.distances").CosineSimilarity()
        return losses.ContrastiveLoss(pos_margin=1, neg_margin=settings.margin, distance=cosine)
    if settings.loss == "multi_similarity":
        return losses.MultiSimilarityLoss(alpha=settings.beta, beta=settings.gamma, base=settings.margin)
    return losses.ProxyAnchorLoss(settings.seen, settings.embedding, settings.proxy_margin, settings.proxy_scale)


def additive_loss(settings: MetrixSettings) -> Additive:
    """Return the same loss, of labels between 0 and 1."""
    if settings.loss == "contrastive":
        return contrastive(settings.margin)
    if settings.loss == "multi_similarity":
        return multi_similarity(settings.beta, settings.gamma, settings.margin)
    return proxy_anchor(settings.proxy_scale, settings.proxy_margin)


@method(
    title="It Takes Two to Tango: Mixup for Deep Metric Learning",
    arxiv="2106.04990",
    venue="ICLR 2022",
    equation="l(a) + w T(S+(sum_v y_v r+(s(a, v))) + S-(sum_v (1-y_v) r-(s(a, v)))), v = mix(x,x'), y_v = mix(y,y')",
    departures=(
        "a small network on scikit-learn's digits, trained on half of the classes and tested on the others",
        "the contrastive loss is of cosines, as the paper writes it, not of distances as in its code",
        "one weight of the mixed loss for all places and kinds of pairs",
        "proxies are not mixed themselves, only positives with negatives, and learn at the network's rate",
        "rates fall linearly, gradients are clipped by norm, and tuning looks at other rows of the tested classes",
        "sharpness and margins are pytorch-metric-learning's usual ones, not the paper's",
    ),
)
class Metrix(Method):
    """Examples between classes teach a metric to find classes it has not seen."""

    Settings = MetrixSettings
    least_classes = 4
    quick = {"trainer.max_steps": 3, "trainer.eval_strategy": "no"}

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train on some classes, and retrieve held-out rows of the others."""
        self.work, whole = work, work.data.train
        if len(whole.classes) < self.settings.seen + 2:
            raise ValueError(f"seen: {self.settings.seen} of {len(whole.classes)} classes leave fewer than two others")
        order = torch.randperm(len(whole.classes), generator=work.generator())
        seen, unseen = order[: self.settings.seen], order[self.settings.seen :]
        # rows of unseen classes that are neither trained on nor tested on are what tuning looks at
        train, validation, test = of_classes(whole, seen), of_classes(whole, unseen), of_classes(work.data.test, unseen)
        with seeded(work.seed):
            self.net = MetricNet(self.settings, train.images.shape[1])
        self.mixed_loss = additive_loss(self.settings)
        batch = work.arguments().train_batch_size * work.processes
        sampler = ClassBatches(train.labels, each=self.settings.each, batch=batch, seed=work.seed)

        def found(gallery: Gallery) -> dict[str, float]:
            return retrieval(work.over(self.net.embed, gallery.images), gallery.labels)

        def figures() -> Mapping[str, float]:
            return {f"validation_{name}": value for name, value in found(validation).items()}

        rows = Rows(pixel_values=train.images, labels=train.labels)
        work.train(self.net, self.losses, rows, sampler=sampler, figures=figures, couples_rows=True)
        self.draw(train, test)
        return {**found(test), **figures(), **self.covered(train, test)}

    # ---- losses ------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the clean loss of the whole batch for each row, and what each row loses to mixed examples."""
        labels, mixing = self.work.gather(batch["labels"]), self.drawn(self.work.step)
        hard: list[Tensor] = []

        def pictures(embedded: Tensor) -> Tensor:
            anchors, pairs, own = self.compared(embedded, batch["labels"], labels)
            hardest = hardest_only(anchors @ self.work.gather(embedded).T, pairs)
            hard.append(mixed_pairs(hardest, own if mixing.anchors else None))
            return mixtures(self.work.gather(batch["pixel_values"]), hard[0], mixing.share)

        found, further = model(batch["pixel_values"], pictures if self.settings.mix == "input" else None)
        everyones = self.work.gather(found)
        clean = self.net.clean(everyones, labels).expand(len(found))
        if self.settings.mix == "none":
            return RowLosses(losses=clean, metrics={"clean": clean.detach()})
        anchors, pairs, own = self.compared(F.normalize(found, dim=1), batch["labels"], labels)
        if self.settings.mix == "input":
            counted = hard[0]
            similarity = spread((anchors[counted.nonzero()[:, 0]] * further).sum(1), counted)
        else:
            counted = mixed_pairs(pairs, own if mixing.anchors else None)
            examples = everyones if self.settings.mix == "feature" else F.normalize(everyones, dim=1)
            similarity = mixed_cosines(anchors, examples, mixing.share)
        mixed = self.of_mixed(similarity, counted, pairs, own, mixing.share)
        if len(mixed) != len(found):  # anchors are proxies, of which there are other numbers than of rows
            mixed = mixed.mean().expand(len(found))
        metrics = {"clean": clean.detach(), "mixed": mixed.detach()}
        return RowLosses(losses=clean + self.settings.weight * mixed, metrics=metrics)

    def drawn(self, step: int) -> Mixing:
        """Return what a step mixes, the same on every process: a share by Beta, and one of two kinds of pairs."""
        generator = np.random.default_rng((self.work.seed, step))
        share = float(generator.beta(self.settings.concentration, self.settings.concentration))
        return Mixing(share=share, anchors=bool(generator.random() < 0.5))

    def compared(self, embedded: Tensor, labels: Tensor, everyones: Tensor) -> tuple[Tensor, Pairs, Tensor | None]:
        """Return anchors, what everyone's rows are to them, and where the anchors themselves are among the rows."""
        if self.settings.loss == "proxy_anchor":
            proxies = F.normalize(self.net.clean.proxies, dim=1)
            return proxies, Pairs.matching(torch.arange(len(proxies), device=labels.device), everyones), None
        alike = labels[:, None] == everyones[None]
        own = F.one_hot(self.work.place(labels), len(everyones)).bool()
        return embedded, Pairs(alike & ~own, ~alike), own

    def of_mixed(self, similarity: Tensor, counted: Tensor, pairs: Pairs, own: Tensor | None, share: float) -> Tensor:
        """Return what each anchor loses to its mixtures; tables are of shape (anchors, first, second)."""
        alike = pairs.positive if own is None else pairs.positive | own
        labels = relative_label(share, alike[:, :, None], alike[:, None, :])
        return self.mixed_loss(similarity.flatten(1), labels.flatten(1), counted.flatten(1))

    # ---- what mixing covers ------------------------------------------------------------------------------------

    def mixed_rows(self, train: Gallery) -> Tensor:
        """Return embeddings of training rows, each mixed by chance with one of another class where training mixes."""
        first = torch.randperm(len(train), generator=self.work.generator(1))
        second = torch.randperm(len(train), generator=self.work.generator(2))
        apart = train.labels[first] != train.labels[second]
        first, second = first[apart], second[apart]
        generator, concentration = np.random.default_rng(self.work.seed), self.settings.concentration
        share = torch.tensor(generator.beta(concentration, concentration, (len(first), 1)), dtype=torch.float32)
        if self.settings.mix == "input":
            grown = share[:, :, None, None]
            return self.work.over(self.net.embed, grown * train.images[first] + (1 - grown) * train.images[second])
        rows = self.work.over(lambda images: self.net(images)[0], train.images)
        rows = rows if self.settings.mix == "feature" else F.normalize(rows, dim=1)
        return F.normalize(share * rows[first] + (1 - share) * rows[second], dim=1)

    def covered(self, train: Gallery, test: Gallery) -> dict[str, float]:
        """Return how well the training rows cover the classes that training has not seen, without and with mixtures."""
        queries, rows = (self.work.over(self.net.embed, one.images) for one in (test, train))
        found = {"utilisation": utilisation(queries, rows)}
        if self.settings.mix != "none":
            found["utilisation_with_mixed"] = utilisation(queries, torch.cat([rows, self.mixed_rows(train)]))
        return found

    def draw(self, train: Gallery, test: Gallery) -> None:
        """Draw the embeddings of unseen classes, and pictures between two classes."""
        embedded = self.work.over(self.net.embed, test.images)
        self.work.picture("unseen", lambda: embeddings(embedded, test.labels, test.classes, "classes not trained on"))
        first, second = (train.images[train.labels == label][:3] for label in (0, 1))
        shares = torch.linspace(1, 0, 8).tolist()
        between = torch.stack([share * first + (1 - share) * second for share in shares], 1).flatten(0, 1)
        titles = [f"{share:.2f}" for share in shares] * len(first)
        self.work.picture("mixed", lambda: contact_sheet(between, titles, 8, "mixtures, and their labels to the first"))


def of_classes(gallery: Gallery, classes: Tensor) -> Gallery:
    """Return the pictures of some classes, which are numbered in the order given."""
    place = torch.full((len(gallery.classes),), -1)
    place[classes] = torch.arange(len(classes))
    kept = gallery.take((place[gallery.labels] >= 0).nonzero()[:, 0])
    names = tuple(gallery.classes[number] for number in classes.tolist())
    return replace(kept, labels=place[kept.labels], classes=names)
