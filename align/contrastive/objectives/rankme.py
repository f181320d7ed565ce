"""RankMe: which of many encoders will be of most use, told from the rank of their embeddings, without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from align.report.look import COLOURS, RUN_COLOURS, look
from align.trainers.base import RowLosses
from align.wings.extras import needed
from align.wings.gallery import Rows
from align.wings.method import Method, method
from align.wings.networks import MLP, ConvEncoder, Projected, seeded
from align.wings.parts.diagnostics import alpha_req, rankme, threshold_rank
from align.wings.parts.pairs import Pairs, cosines, info_nce
from align.wings.probes import of_features
from align.wings.views import Views
from align.wings.workbench import Workbench

CRITERIA = ("rankme", "rankme_of_features", "threshold_rank", "alpha_req")
WIDTH = "width_of_head"
"""No criterion but a control: a rank cannot be above it, so that knowing the width alone may order the encoders."""


def criteria(features: Tensor, embeddings: Tensor) -> dict[str, float]:
    """Return what each criterion says of one encoder; the largest is picked.

    Args:
        features: before the projection head, h, of shape (n, width).
        embeddings: after it, Z, of shape (n, width): neither normalised nor centred.

    Returns:
        ``rankme`` of Z, the paper's; ``rankme_of_features``, the same of h; ``threshold_rank`` of Z; and ``alpha_req``,
        minus the distance from 1 of the exponent of h's spectrum.
    """
    return {
        "rankme": rankme(embeddings),
        "rankme_of_features": rankme(features),
        "threshold_rank": float(threshold_rank(embeddings)),
        "alpha_req": -abs(alpha_req(features) - 1),
    }


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> float:
    """Return Spearman's correlation; 0 where one of the two is the same for all encoders and so ranks nothing."""
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return 0.0
    return float(needed("scipy.stats").spearmanr(scores, accuracies).statistic)


def regret(scores: Sequence[float], accuracies: Sequence[float]) -> float:
    """Return how much less accurate the encoder of the largest score is than the best one; ties take their mean."""
    picked = [accuracy for score, accuracy in zip(scores, accuracies, strict=True) if score == max(scores)]
    return max(accuracies) - sum(picked) / len(picked)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMeSettings:
    """The encoders, and by what one of them is picked."""

    criterion: Literal["rankme", "rankme_of_features", "threshold_rank", "alpha_req"] = "rankme"
    """What picks: the rank of embeddings; or the paper's comparators. All are measured in every run."""
    temperatures: list[float] = field(default_factory=lambda: [0.05, 0.2, 1.0, 5.0])
    """Of NT-Xent; with each of the widths an encoder."""
    embeddings: list[int] = field(default_factory=lambda: [2, 8, 64])
    """Widths of what the loss sees."""
    width: int = 16
    """Channels of the encoders' first layer."""
    features: int = 64
    """Width of what encoders say."""

    def __post_init__(self) -> None:
        if not all(one > 0 for one in self.temperatures):
            raise ValueError(f"temperatures must be positive, got {self.temperatures}")
        if not all(one > 1 for one in self.embeddings):
            raise ValueError(f"embeddings must be wider than 1, got {self.embeddings}")
        if len(self.members) < 3:
            raise ValueError(
                f"embeddings and temperatures must make 3 encoders or more to rank, got {len(self.members)}"
            )

    @property
    def members(self) -> list[tuple[float, int]]:
        """Temperature and width of each encoder."""
        return list(product(dict.fromkeys(self.temperatures), dict.fromkeys(self.embeddings)))


@method(
    title="RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank",
    arxiv="2210.02885",
    venue="ICML 2023",
    equation="RankMe(Z) = exp(-sum_k p_k log p_k), p_k = sigma_k(Z) / |sigma(Z)|_1 + 1e-7",
    departures=(
        "NT-Xent alone, a dozen small convolutional encoders on grey patches, trained equally long on the same views",
        "what is predicted is a linear probe on the same pictures' held-out halves, not on other data sets",
        "alpha-ReQ is taken of the features, and picks the exponent nearest 1: both are our choice",
    ),
)
class RankMe(Method):
    """A sweep of encoders of one method and one network, ranked without labels and, to see how well, with them.

    The encoders differ in temperature and width of the head, and in nothing else: they start from one seed, see the
    same views, and take the same number of steps. They share an optimiser that treats every number by itself, so each
    is trained as it would be alone.
    """

    Settings = RankMeSettings
    least_classes = 2
    quick = {
        "trainer.max_steps": 2,
        "trainer.per_device_train_batch_size": 16,
        "data.train_per_picture": 4,
        "data.test_per_picture": 4,
        "settings.temperatures": [0.2, 1.0],
        "settings.embeddings": [2, 8],
        "settings.width": 4,
        "settings.features": 8,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train the sweep, then compare what the criteria say of its encoders with what probes find."""
        self.work, train = work, work.data.train
        if len(train) < max(self.settings.embeddings):
            raise ValueError(
                f"settings.embeddings: a rank of {max(self.settings.embeddings)} cannot show in {len(train)} pictures"
            )
        self.views = Views(train.images.shape[-1])
        self.sweep = Sweep(self.settings, train.images.shape[1], work.seed)
        # clipping by the norm of all gradients would let one encoder slow the others
        work.train(self.sweep, self.losses, Rows(images=train.images), couples_rows=True, max_grad_norm=0.0)
        found = [self.probed(member) for member in self.sweep.members]
        columns = {name: [one[name] for one in found] for name in found[0]}
        work.picture("rank", lambda: scatter(columns["rankme"], columns["linear"], self.settings.members))
        return self.figures(columns)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses, summed over the encoders."""
        index = batch["index"].repeat(2)
        pairs = Pairs.among(index, self.work.gather(index), self.work.place(index))
        rows = []
        for (temperature, _), embedded in zip(
            self.settings.members, model(self.views.two(batch["images"])), strict=True
        ):
            table = cosines(embedded, self.work.gather(embedded))
            rows.append(info_nce(table, pairs, temperature=temperature).view(2, -1).mean(0))
        return RowLosses(losses=torch.stack(rows).sum(0), metrics={})

    def probed(self, member: Projected) -> dict[str, float]:
        """Return what the criteria say of an encoder on its training pictures, and how good its features are."""
        train, test = self.work.data.train, self.work.data.test
        features = self.work.over(member.encoder, train.images)
        embeddings = self.work.over(lambda images: member(images)[1], train.images)
        asked = self.work.over(member.encoder, test.images)
        return {**criteria(features, embeddings), **of_features(features, train.labels, asked, test.labels)}

    def figures(self, columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Return how the criteria do, the chosen one's also without a name, and what picking by chance loses."""
        linear = columns["linear"]
        found = {"best_linear": max(linear), "regret_by_chance": max(linear) - sum(linear) / len(linear)}
        found[f"spearman_{WIDTH}"] = rank_correlation([float(width) for _, width in self.settings.members], linear)
        for name in CRITERIA:
            found[f"spearman_{name}"] = rank_correlation(columns[name], linear)
            found[f"regret_{name}"] = regret(columns[name], linear)
        chosen = self.settings.criterion
        return {
            "spearman": found[f"spearman_{chosen}"],
            "regret": found[f"regret_{chosen}"],
            "spearman_knn": rank_correlation(columns[chosen], columns["knn"]),
            "lead_over_features": found["spearman_rankme"] - found["spearman_rankme_of_features"],
            "lead_over_width": found["spearman_rankme"] - found[f"spearman_{WIDTH}"],
            "saved_over_chance": found["regret_by_chance"] - found[f"regret_{chosen}"],
            **found,
        }


class Sweep(nn.Module):
    """Encoders side by side, each with a head of its own.

    Args:
        settings: which ones.
        channels: of the pictures.
        seed: each encoder starts from.
    """

    def __init__(self, settings: RankMeSettings, channels: int, seed: int) -> None:
        super().__init__()
        members = []
        for _, embedding in settings.members:
            with seeded(seed):
                encoder = ConvEncoder(channels, settings.width, settings.features)
                members.append(Projected(encoder, MLP(settings.features, settings.features, embedding)))
        self.members: Sequence[Projected] = nn.ModuleList(members)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return each encoder's embeddings."""
        return [member(images)[1] for member in self.members]


def scatter(ranks: Sequence[float], accuracies: Sequence[float], members: Sequence[tuple[float, int]]) -> Figure:
    """Draw each encoder's accuracy over its rank: a colour a temperature, a number the width of its head."""
    with look(9):
        figure = Figure(figsize=(5.4, 3.8), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        for place, temperature in enumerate(dict.fromkeys(one for one, _ in members)):
            rows = [row for row, (one, _) in enumerate(members) if one == temperature]
            colour = COLOURS[RUN_COLOURS[place % len(RUN_COLOURS)]]
            across, up = [ranks[row] for row in rows], [accuracies[row] for row in rows]
            axes.scatter(across, up, s=26, color=colour, label=f"temperature {temperature:g}")
            for row in rows:
                at = (ranks[row], accuracies[row])
                axes.annotate(str(members[row][1]), at, xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.set_xlabel("RankMe of embeddings")
        axes.set_ylabel("linear probe on features")
        axes.set_title("encoders of one sweep; numbers are the heads' widths", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    return figure
