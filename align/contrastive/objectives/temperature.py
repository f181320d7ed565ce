"""What the temperature of a contrastive loss does: how it pushes hard negatives; and a loss that picks them itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import lines, similarity_histogram
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import MLP, ConvEncoder, Projected, seeded
from align.wings.parts.diagnostics import tolerance, uniformity
from align.wings.parts.pairs import Pairs, cosines, info_nce, simple
from align.wings.parts.selection import largest
from align.wings.probes import linear_probe, of_features
from align.wings.views import Views
from align.wings.workbench import Workbench

Objective = Callable[[Tensor, Pairs], Tensor]
"""From similarities of shape (rows, columns), and what the columns are, to the loss of each row."""

# ---- the losses: one family, its two limits, and the one that chooses ------------------------------------------------


def hardest(similarity: Tensor, pairs: Pairs, share: float) -> Pairs:
    """Return the pairs with only the most similar negatives of each row: a share of them, at least one.

    The threshold ``s_alpha`` above which a negative counts is each row's own quantile; no gradient goes through it.

    Args:
        similarity: of shape (rows, columns).
        pairs: what the columns are.
        share: of each row's negatives, in (0, 1].
    """
    most = int(pairs.negative.sum(1).max())
    budget = max(1, round(share * most))
    scores = similarity.detach().masked_fill(~pairs.negative, float("-inf"))
    return Pairs(pairs.positive, largest(scores, budget) & pairs.negative)


def hard_contrastive(similarity: Tensor, pairs: Pairs, *, temperature: float, share: float) -> Tensor:
    """Return each row's contrastive loss against its hardest negatives alone."""
    return info_nce(similarity, hardest(similarity, pairs, share), temperature=temperature)


def hinge(similarity: Tensor, pairs: Pairs) -> Tensor:
    """Return each row's ``max(0, hardest negative - positive)``: ``temperature * L`` as the temperature goes to 0.

    The contrastive loss itself goes to this divided by the temperature.
    """
    worst = similarity.masked_fill(~pairs.negative, float("-inf")).amax(1)
    own = similarity.where(pairs.positive, 0.0).sum(1) / pairs.positive.sum(1)
    return F.relu(worst - own)


def relative_penalties(objective: Objective, similarity: Tensor, pairs: Pairs) -> Tensor:
    """Return how an objective shares its push among each row's negatives: its gradient there, scaled to a sum of 1.

    For the contrastive loss this is ``softmax(s / temperature)`` over the negatives. A row that pushes
    nothing has zeros.
    """
    with torch.enable_grad():
        leaf = similarity.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective(leaf, pairs).sum(), leaf)
    pushed: Tensor = slope.where(pairs.negative, 0.0)
    return pushed / pushed.sum(1, keepdim=True).clamp_min(torch.finfo(pushed.dtype).tiny)


def spread(shares: Tensor) -> Tensor:
    """Return the entropy of each row's shares in nats: 0 where one negative gets all of the push."""
    entropies: Tensor = torch.special.entr(shares).sum(1)
    return entropies


# ---- the method ------------------------------------------------------------------------------------------------------

MOMENTS = 20
"""Parts of the training of which the uniformity is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureSettings:
    """The loss, and the network it trains."""

    objective: Literal["hard", "contrastive", "simple", "hinge"] = "hard"
    """The hard contrastive loss; the plain one it is compared with; or that one's limits of large and small
    temperature."""
    temperature: float = 1.0
    """Divides cosines, in the losses that have one."""
    share: float = 0.5
    """Of each row's negatives, how many the hard loss counts, the most similar first. The paper gives a threshold; the
    default is ours: among a batch's few negatives, fewer of them let small networks collapse to a point."""
    width: int = 16
    """Channels of the encoder's first layer."""
    features: int = 64
    """Width of what the encoder says."""
    embedding: int = 32
    """Width of what the loss sees."""
    validation: float = 0.2
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")

    def loss(self) -> Objective:
        """Return the objective the settings name."""
        return {
            "hard": lambda s, p: hard_contrastive(s, p, temperature=self.temperature, share=self.share),
            "contrastive": lambda s, p: info_nce(s, p, temperature=self.temperature),
            "simple": simple,
            "hinge": hinge,
        }[self.objective]


@method(
    title="Understanding the Behaviour of Contrastive Loss",
    arxiv="2012.09740",
    venue="CVPR 2021",
    equation="L_i = -log(exp(s_ii/t) / (exp(s_ii/t) + sum_{s_ik >= s_alpha} exp(s_ik/t)))",
    departures=(
        "a small convolutional encoder, trained for some hundred steps on grey patches",
        "negatives are the other rows of the batch, of both views, not a memory bank",
        "the threshold s_alpha is a quantile of each row's own negatives in the batch (settings.share)",
        "the simple loss weighs the mean similarity with the negatives by 1",
    ),
)
class Temperature(Method):
    """Small temperatures spread embeddings evenly and push like from like; large ones do neither.

    Choosing the hardest negatives keeps embeddings even at any temperature. Uniformity and tolerance are those of
    held-out pictures' normalised embeddings; both move while a network trains, and ``uniformity_drift`` says by how
    much they still did at the end.
    """

    Settings = TemperatureSettings
    least_classes = 2
    quick = {
        "trainer.max_steps": 2,
        "trainer.eval_strategy": "no",
        "data.train_per_picture": 8,
        "data.test_per_picture": 4,
        "settings.width": 4,
        "settings.features": 8,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train the encoder, then measure its embeddings and probe its features."""
        settings, self.work, self.objective = self.settings, work, self.settings.loss()
        train, validation = work.data.train.split(settings.validation, work.seed)
        size = train.images.shape[-1]
        self.views = Views(size)
        with seeded(work.seed):
            encoder = ConvEncoder(train.images.shape[1], settings.width, settings.features)
            self.net = Watched(encoder, MLP(settings.features, settings.features, settings.embedding))

        def figures() -> Mapping[str, float]:
            features = [work.over(self.net.encoder, part.images) for part in (train, validation)]
            return {"validation_linear": linear_probe(features[0], train.labels, features[1], validation.labels)}

        work.train(self.net, self.losses, Rows(images=train.images), figures=figures, couples_rows=True)
        known, asked = (work.over(self.net.encoder, part.images) for part in (train, work.data.test))
        probes = of_features(known, train.labels, asked, work.data.test.labels)
        return {**probes, **figures(), **self.measured(work.data.test)}

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses, the mean over its two views."""
        _, embedded = model(self.views.two(batch["images"]))
        index = batch["index"].repeat(2)
        everyones = self.work.gather(embedded)
        table = cosines(embedded, everyones)
        pairs = Pairs.among(index, self.work.gather(index), self.work.place(index))
        losses = self.objective(table, pairs).view(2, -1).mean(0)
        evenness = uniformity(everyones.detach())
        self.net.remember(evenness, self.work.progress)
        hit = pairs.positive.gather(
            1, table.masked_fill(~(pairs.positive | pairs.negative), -2).argmax(1, keepdim=True)
        )
        shares = relative_penalties(self.objective, table, pairs)
        metrics = {"matched": hit[:, 0].float(), "penalty_entropy": spread(shares)}
        by_row = {name: values.view(2, -1).mean(0) for name, values in metrics.items()}
        return RowLosses(losses=losses, metrics={**by_row, "uniformity": torch.full_like(losses, evenness)})

    def measured(self, test: Gallery) -> dict[str, float]:
        """Return what held-out embeddings look like, and draw them."""
        embedded = self.work.over(lambda images: self.net(images)[1], test.images)
        table, place = cosines(embedded, embedded), torch.arange(len(test))
        others = Pairs(torch.zeros_like(table, dtype=torch.bool), place[:, None] != place)
        course = self.net.course()
        late = course[-max(1, len(course) // 4) :]
        alike = test.labels[:, None] == test.labels
        self.work.picture(
            "similarities", lambda: similarity_histogram(table[alike & others.negative], table[~alike], "classes")
        )
        curve = {"training batches": (torch.linspace(0, 1, len(course)).tolist(), course.tolist())}
        self.work.picture(
            "uniformity", lambda: lines(curve, across="share of the training", up="uniformity (lower is more even)")
        )
        return {
            "uniformity": uniformity(embedded),
            "tolerance": tolerance(embedded, test.labels),
            "uniformity_drift": float(late[-1] - late[0]),
            "penalty_entropy": self.attention(table, others),
        }

    def attention(self, table: Tensor, others: Pairs) -> float:
        """Return the mean entropy of the push over held-out negatives, as a share of what an even push has.

        Each picture's positive is itself, whose cosine is 1.
        """
        pairs = Pairs(~others.negative, others.negative)
        shares = relative_penalties(self.objective, table.double(), pairs)
        return float(spread(shares).mean() / others.negative.sum(1).double().log().mean())


class Watched(Projected):
    """An encoder with its head that remembers how even its embeddings were as it was trained.

    What it remembers is in buffers, so that checkpoints keep it.
    """

    moments: Tensor

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__(encoder, head)
        self.register_buffer("moments", torch.zeros(2, MOMENTS))

    def remember(self, evenness: float, progress: float) -> None:
        """Add the uniformity of a batch to that of its part of the training."""
        part = min(int(progress * MOMENTS), MOMENTS - 1)
        self.moments[:, part] += torch.tensor([evenness, 1.0], device=self.moments.device)

    def course(self) -> Tensor:
        """Return the mean uniformity of training batches in each part of the training that had steps."""
        total, steps = self.moments.cpu().unbind()
        return total[steps > 0] / steps[steps > 0]
