"""Sample4Geo: pictures from the ground find their place on satellite pictures, trained on batches of hard negatives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from align.report.look import COLOURS, RUN_COLOURS, look
from align.trainers.base import RowLosses
from align.wings.drawing import contact_sheet, similarity_histogram
from align.wings.extras import needed
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import ConvEncoder, seeded
from align.wings.parts.composer import NeighbourBatches, nearest
from align.wings.probes import recall_at
from align.wings.workbench import Workbench

# ---- the objective ---------------------------------------------------------------------------------------------


def smoothed_info_nce(similarity: Tensor, own: Tensor, scale: Tensor, smoothing: float) -> Tensor:
    """Return each row's cross-entropy of ``softmax(scale * similarity)`` with its own column, smoothed.

    The target is ``1 - smoothing`` at the own column plus ``smoothing / columns`` at every one.

    Args:
        similarity: cosines of shape (rows, columns).
        own: number of each row's column, of shape (rows,).
        scale: a number, one over the temperature.
        smoothing: in [0, 1).
    """
    return F.cross_entropy(scale * similarity, own, reduction="none", label_smoothing=smoothing)


def haversine(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Return the distances of places on a sphere of radius 1, of shape (n, n).

    Args:
        latitude: in degrees, of shape (n,).
        longitude: in degrees, of shape (n,).
    """
    metric = needed("sklearn.metrics").DistanceMetric.get_metric("haversine")
    return torch.tensor(metric.pairwise(torch.stack([latitude, longitude], 1).double().deg2rad().numpy()))


def turned(satellite: Tensor, ground: Tensor, quarters: Tensor) -> tuple[Tensor, Tensor]:
    """Turn satellite pictures by quarters, anticlockwise, and roll the panoramas by as many quarters to the left.

    Args:
        satellite: of shape (n, channels, side, side).
        ground: of shape (n, channels, height, width), the width a multiple of 4.
        quarters: of shape (n,), in 0 ... 3.
    """
    satellite, ground = satellite.clone(), ground.clone()
    for quarter in range(1, 4):
        here = quarters == quarter
        satellite[here] = satellite[here].rot90(quarter, (2, 3))
        ground[here] = ground[here].roll(-quarter * ground.shape[3] // 4, 3)
    return satellite, ground


def mirrored(satellite: Tensor, ground: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror both pictures of the chosen rows from left to right.

    Args:
        satellite: of shape (n, channels, side, side).
        ground: of shape (n, channels, height, width).
        chosen: of shape (n,), bool.
    """
    flipped = chosen[:, None, None, None]
    return satellite.flip(3).where(flipped, satellite), ground.flip(3).where(flipped, ground)


# ---- the method ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample4GeoSettings:
    """How batches are composed, and what is trained on them."""

    sampling: Literal["random", "gps", "similarity", "both"] = "both"
    """Neighbours on the map first and similar pictures later; one of them alone; or batches by chance, the baseline."""
    gps_epochs: int = 4
    """Epochs before the first mining, with batches of neighbours on the map, or by chance without ``gps``."""
    mine_every: int = 4
    """Epochs from one mining of similar pictures to the next."""
    reach: int = 64
    """Nearest places that neighbours are chosen from."""
    select: int = 32
    """Neighbours that each place brings into its batch: half the nearest ones, half by chance from the others."""
    smoothing: float = 0.1
    """Of the labels."""
    temperature: float = 0.07
    """Where the learned temperature begins."""
    augment: bool = True
    """Whether both pictures are turned and mirrored together."""
    width: int = 16
    """Channels of the first layer."""
    features: int = 64
    """Channels of the last layer."""
    embedding: int = 64
    """Width of the space both pictures end in."""
    validation: float = 0.15
    """Share of the training places kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        if self.gps_epochs < 1:
            raise ValueError(f"gps_epochs must be at least 1, got {self.gps_epochs}")
        if self.mine_every < 1:
            raise ValueError(f"mine_every must be at least 1, got {self.mine_every}")
        if not 0 < self.select <= self.reach:
            raise ValueError(f"select must lie in 1 ... reach ({self.reach}), got {self.select}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {self.smoothing}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")


class PlaceEncoder(nn.Module):
    """Convolutions that both kinds of pictures share, a linear layer each to one space, and a learned temperature.

    Args:
        settings: sizes.
        satellite: one picture from above.
        ground: one picture from the ground.
    """

    def __init__(self, settings: Sample4GeoSettings, satellite: Tensor, ground: Tensor) -> None:
        super().__init__()
        self.layers = ConvEncoder(3, settings.width, settings.features, depth=2).layers
        places = [-(-side // 4) for side in (*satellite.shape[1:], *ground.shape[1:])]
        self.above = nn.Linear(settings.features * places[0] * places[1], settings.embedding)
        self.below = nn.Linear(settings.features * places[2] * places[3], settings.embedding)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    def from_above(self, satellite: Tensor) -> Tensor:
        """Return normalised embeddings of satellite pictures."""
        return F.normalize(self.above(self.layers(2 * satellite - 1).flatten(1)), dim=1)

    def from_ground(self, ground: Tensor) -> Tensor:
        """Return normalised embeddings of ground pictures."""
        return F.normalize(self.below(self.layers(2 * ground - 1).flatten(1)), dim=1)

    def forward(self, satellite: Tensor, ground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings of both, and the factor of their cosines."""
        return self.from_above(satellite), self.from_ground(ground), self.log_scale.exp()


@method(
    title="Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation",
    arxiv="2303.11851",
    venue="ICCV 2023",
    equation="L = 1/2 mean_i [CE_eps(softmax_j(s cos(q_i, r_j)), i) + CE_eps(softmax_j(s cos(r_i, q_j)), i)]",
    departures=(
        "a few convolutions on random terrain, with a linear layer a view, for one ConvNeXt-B on photographs",
        "haversine distances are of radians; the official code passes degrees",
        "neighbour batches keep row 0, which the official code drops by accident",
        "a small map and small batches: 64 rows, neighbours from the 64 nearest places, 32 of them a seed",
        "the only augmentations are the paired turn and mirror image; no jitter of colours and no dropped patches",
    ),
)
class Sample4Geo(Method):
    """Ground and satellite pictures of a place meet, in batches of places that are neighbours or look alike."""

    Settings = Sample4GeoSettings
    quick = {
        "trainer.max_steps": 4,
        "trainer.eval_strategy": "no",
        "trainer.per_device_train_batch_size": 16,
        "data.train": 60,
        "data.test": 20,
        "settings.reach": 8,
        "settings.select": 4,
        "settings.gps_epochs": 1,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train on composed batches, then find held-out ground pictures among the satellite's."""
        whole, test = work.data.train, work.data.test
        missing = {"ground", "latitude", "longitude"} - set(whole.more)
        if missing:
            raise ValueError(f"data: these pictures have no {', '.join(sorted(missing))}; name data such as terrain")
        self.work = work
        self.train, validation = whole.split(self.settings.validation, work.seed)
        with seeded(work.seed):
            self.net = PlaceEncoder(self.settings, whole.images[0], whole.more["ground"][0])
        self.composer = NeighbourBatches(
            len(self.train),
            batch=work.arguments().train_batch_size * work.processes,
            select=self.settings.select,
            reach=self.settings.reach,
            neighbours=self.neighbours,
            seed=work.seed,
        )

        def figures() -> Mapping[str, float]:
            # validation places are sought among all places of their map, which is as crowded as the test map
            found = self.found(validation, among=self.train)
            return {f"validation_{name}": value for name, value in found.items()}

        rows = Rows(satellite=self.train.images, ground=self.train.more["ground"])
        work.train(self.net, self.losses, rows, sampler=self.composer, figures=figures, couples_rows=True)
        self.draw(test)
        return {**self.found(test), **figures(), "scale": float(self.net.log_scale.detach().exp())}

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each place loses in the search from the ground and in the search from above."""
        satellite, ground = self.augmented(batch["satellite"], batch["ground"])
        above, below, scale = model(satellite, ground)
        own = self.work.place(above)
        from_ground = below @ self.work.gather(above).T
        from_above = above @ self.work.gather(below).T
        smoothing = self.settings.smoothing
        both = [smoothed_info_nce(table, own, scale, smoothing) for table in (from_ground, from_above)]
        others = from_ground.detach().scatter(1, own[:, None], -1.0)
        metrics = {"matched": (from_ground.argmax(1) == own).float(), "hardest_negative": others.amax(1)}
        return RowLosses(losses=(both[0] + both[1]) / 2, metrics=metrics)

    def augmented(self, satellite: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        """Turn three of four pairs, and mirror every other; drawn by the step, alike for any number of processes."""
        if not self.settings.augment:
            return satellite, ground
        own = self.work.place(satellite).cpu()
        count, generator = len(own) * self.work.processes, self.work.generator(self.work.step + 1)
        quarters = torch.randint(4, (count,), generator=generator)[own].to(satellite.device)
        chosen = (torch.rand(count, generator=generator) < 0.5)[own].to(satellite.device)
        return mirrored(*turned(satellite, ground, quarters), chosen)

    # ---- batches -----------------------------------------------------------------------------------------------

    def neighbours(self, epoch: int) -> Tensor | None:
        """Return the places that those of an epoch's batches are drawn with; None keeps those of before."""
        sampling, mining = self.settings.sampling, epoch - self.settings.gps_epochs
        if sampling in ("similarity", "both") and mining >= 0:
            return self.look_alikes() if mining % self.settings.mine_every == 0 else None
        if sampling in ("gps", "both") and epoch == 0:
            return self.close_by()
        return None

    def close_by(self) -> Tensor:
        """Return the nearest places on the map, of shape (places, reach)."""
        more = self.train.more
        return nearest(-haversine(more["latitude"], more["longitude"]), self.settings.reach)

    def look_alikes(self) -> Tensor:
        """Return the places whose satellite pictures are most similar to each ground picture, but for its own."""
        above, below = self.embedded(self.train)
        return nearest(below @ above.T, self.settings.reach)

    # ---- what it finds -----------------------------------------------------------------------------------------

    def embedded(self, gallery: Gallery) -> tuple[Tensor, Tensor]:
        """Return embeddings of places from above and from the ground, by the network in evaluation mode."""
        training = self.net.training
        self.net.eval()
        above = self.work.over(self.net.from_above, gallery.images)
        below = self.work.over(self.net.from_ground, gallery.more["ground"])
        self.net.train(training)
        return above, below

    def found(self, places: Gallery, among: Gallery | None = None) -> dict[str, float]:
        """Return the share of ground pictures whose place is among the 1 and the 5 most similar satellite pictures."""
        above, below = self.embedded(places)
        if among is not None:
            above = torch.cat([above, self.embedded(among)[0]])
        return recall_at(below, above, torch.arange(len(places)))

    def draw(self, test: Gallery) -> None:
        """Draw held-out pictures with what is found for them, their similarities, and where a batch's places are."""
        above, below = self.embedded(test)
        table, itself = below @ above.T, torch.eye(len(test), dtype=torch.bool)
        wrong = [row for row, best in enumerate(table.argmax(1).tolist()) if row != best][:8]
        found = table.argmax(1)[wrong]
        if wrong:
            shown = torch.cat([test.images[wrong], test.images[found]])
            titles = ["sought"] * len(wrong) + ["found"] * len(wrong)
            self.work.picture("mistaken", lambda: contact_sheet(shown, titles, len(wrong), "places taken for others"))
        self.work.picture(
            "similarities", lambda: similarity_histogram(table[itself], table[~itself], "ground and above")
        )
        self.work.picture("batches", self.batches)

    def batches(self) -> Figure:
        """Draw the places of two batches on the map, composed of neighbours on it and of similar pictures."""
        longitude, latitude = self.train.more["longitude"], self.train.more["latitude"]
        batch = self.composer.batch
        with look(9, axes__grid=False):
            figure = Figure(figsize=(9, 4.4), dpi=110, layout="constrained")
            found = {"are close by": self.close_by(), "look alike": self.look_alikes()}
            for place, (how, table) in enumerate(found.items()):
                drawn = self.composer.composed(self.work.generator(0), table)
                axes = figure.add_subplot(1, 2, place + 1)
                axes.scatter(longitude, latitude, s=2, color="0.85", linewidths=0)
                for number in range(min(2, len(drawn) // batch)):
                    rows = drawn[number * batch : (number + 1) * batch]
                    colour = COLOURS[RUN_COLOURS[number]]
                    axes.scatter(longitude[rows], latitude[rows], s=9, color=colour, label=f"batch {number + 1}")
                axes.set_title(f"batches of places that {how}", fontsize=9)
                axes.set_xlabel("longitude")
                axes.set_ylabel("latitude")
                axes.ticklabel_format(useOffset=False)
                axes.tick_params(labelsize=6)
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure
