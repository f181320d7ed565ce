"""FTWT: which channels of a layer will fire is foretold from its input, picture by picture; others are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from align.report.look import look
from align.trainers.base import RowLosses
from align.wings.drawing import lines
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import seeded
from align.wings.parts.selection import by_mass, largest, straight_through
from align.wings.processes import BatchNorm2d, drawn
from align.wings.workbench import Workbench

KERNEL = 3


def heat(activations: Tensor) -> Tensor:
    """Return how strongly each channel fires, its largest activation, of shape (n, channels).

    Args:
        activations: of shape (n, channels, height, width), after ReLU.
    """
    return activations.amax((2, 3))


def fired(heats: Tensor, share: float, rule: Literal["mass", "uniform"]) -> Tensor:
    """Return which channels a predictor is to foretell, of shape (n, channels), bool; silent channels never.

    Args:
        heats: of shape (n, channels), at least 0.
        share: of the mass of all heats that the kept ones make up, so that how many they are differs from picture to
            picture; under ``uniform`` the share of the channels.
        rule: which of the two.
    """
    if rule == "mass":
        return by_mass(heats, share)
    channels = heats.shape[1]
    dropped = int((1 - share) * channels + 1e-9)  # as int(ratio * channels), whatever 1 - share was rounded to
    return largest(heats, channels - dropped) & (heats > 0)


def wiring(votes: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return each picture's mean over layers of the sum over channels of ``BCE(vote, target)``, of shape (n,).

    Args:
        votes: a layer's logits each, of shape (n, channels).
        targets: which channels fired, of the same shapes.
    """
    pairs = zip(votes, targets, strict=True)
    bce = F.binary_cross_entropy_with_logits
    return torch.stack([bce(vote, target.to(vote.dtype), reduction="none").sum(1) for vote, target in pairs]).mean(0)


def wiring_weight(progress: float, coefficient: float, cooldown: float) -> float:
    """Return what the predictors' loss counts: its coefficient, and nothing once ``cooldown`` of training is done."""
    return coefficient if progress < cooldown else 0.0


def multiplications(kept: Sequence[Tensor], channels: int, places: Sequence[int], kernel: int = KERNEL) -> Tensor:
    """Return each picture's multiplications in all layers, ``sum_l kept_l * kept_(l-1) * k^2 * H_l * W_l``.

    What a layer costs depends on its own gate and on the previous layer's: channels that are off are not read either.

    Args:
        kept: how many channels of each layer are on, of shape (n,).
        channels: of the picture, which are all read.
        places: ``H * W`` of what each layer puts out.
        kernel: its side, k.
    """
    read = [torch.full_like(kept[0], channels), *kept[:-1]]
    return torch.stack([k * r * kernel**2 * area for k, r, area in zip(kept, read, places, strict=True)]).sum(0)


def places_of(size: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return ``H * W`` of what each layer puts out for pictures of a height and width."""
    height, width = size
    found = []
    for stride in strides:
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        found.append(height * width)
    return found


def shuffled(mask: Tensor, scores: Tensor) -> Tensor:
    """Return masks that keep as many channels of each row as the given ones, those that random scores choose."""
    return mask.gather(1, scores.to(mask.device).argsort(1))


def widest(scales: Tensor, share: float) -> Tensor:
    """Return which channels have the largest ``|gamma|`` of batch norm: a share of them, and at least one."""
    return largest(scales.abs()[None], max(1, round(share * len(scales))))[0]


# ---- the networks --------------------------------------------------------------------------------------------------


class Passed(NamedTuple):
    """What a network says of pictures, and layer by layer what its gates did, of shapes (n, channels)."""

    answers: Tensor
    votes: list[Tensor]
    """The predictors' logits; empty where there are no predictors."""
    gates: list[Tensor]
    """1 where a channel is on, else 0."""
    targets: list[Tensor]
    """Which channels fired, bool."""


class Block(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(into, out, KERNEL, stride=stride, padding=KERNEL // 2, bias=False)
        self.norm = BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return activations of shape (n, out, height, width)."""
        found: Tensor = F.relu(self.norm(self.convolution(x)))
        return found


class Predictor(nn.Module):
    """The mean over places, softmax over channels, and a 1 x 1 convolution: a vote for each channel that comes out."""

    def __init__(self, into: int, out: int, softmax: bool) -> None:
        super().__init__()
        self.vote, self.softmax = nn.Linear(into, out), softmax

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (n, out)."""
        mean = x.mean((2, 3))
        found: Tensor = self.vote(mean.softmax(1) if self.softmax else mean)
        return found


class Gated(nn.Module):
    """Blocks whose channels are multiplied by gates, the mean over places, and a linear head.

    Args:
        settings: of blocks and gates.
        channels: of the pictures.
        classes: to tell apart.
    """

    def __init__(self, settings: "FtwtSettings", channels: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        sizes = list(zip([channels, *settings.widths], settings.widths, strict=False))
        self.blocks = nn.ModuleList(Block(*size, stride) for size, stride in zip(sizes, settings.strides, strict=True))
        self.head = nn.Linear(settings.widths[-1], classes)
        learned = settings.gates == "learned"
        self.predictors = nn.ModuleList(Predictor(*size, settings.softmax) for size in sizes if learned)
        self.static = nn.ParameterList()

    def begin_with(self, dense: "Gated", shares: Sequence[float]) -> None:
        """Take a dense network's weights; static and random gates keep a share of each layer's channels."""
        self.blocks.load_state_dict(dense.blocks.state_dict())
        self.head.load_state_dict(dense.head.state_dict())
        if self.settings.gates in ("static", "random"):
            for block, share in zip(self.blocks, shares, strict=True):
                assert isinstance(block, Block)
                self.static.append(nn.Parameter(widest(block.norm.weight.detach(), share), requires_grad=False))

    def forward(self, images: Tensor) -> Passed:
        """Return the answers, and what the gates of each layer did."""
        found = Passed(images, [], [], [])
        x = images
        for layer, block in enumerate(self.blocks):
            activations = block(x)
            target = fired(heat(activations.detach()), self.settings.share, self.settings.rule)
            if self.predictors:
                found.votes.append(self.predictors[layer](x if self.settings.mode == "joint" else x.detach()))
            gate = self.gate(layer, found.votes, target).to(activations.dtype)
            x = activations * gate[:, :, None, None]
            found.gates.append(gate)
            found.targets.append(target)
        return found._replace(answers=self.head(x.mean((2, 3))))

    def gate(self, layer: int, votes: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return a layer's gates; only joint ones have a gradient, straight through the threshold."""
        if self.settings.gates == "learned":
            gate = straight_through(votes[layer])
            return gate if self.settings.mode == "joint" else gate.detach()
        if self.settings.gates == "none":
            return torch.ones_like(target)
        mask: Tensor = self.static[layer].expand_as(target)
        if self.settings.gates == "static":
            return mask
        n, width = mask.shape
        return shuffled(mask, drawn(lambda rows: torch.rand(rows, width), n) if self.training else torch.rand(n, width))


# ---- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FtwtSettings:
    """Network, gates, and how both are trained."""

    gates: Literal["learned", "random", "static", "none"] = "learned"
    """The method; or, fine-tuned alike, as many channels of each layer as the dense network's targets are on average,
    random ones for every picture or those of largest batch norm scale; or none at all: the dense network."""
    share: float = 0.7
    """Share of the heat's mass that the kept channels make up; under ``uniform``, of the channels."""
    rule: Literal["mass", "uniform"] = "mass"
    """Whether how many are kept follows from the mass, picture by picture, or is fixed."""
    mode: Literal["decoupled", "joint"] = "decoupled"
    """Whether the predictors' loss and the task's each train their own weights, or both reach all."""
    softmax: bool = True
    """Whether predictors see the softmax of the channels' means, or the means; of one channel it is a constant."""
    coefficient: float = 1.0
    """What the predictors' loss counts."""
    cooldown: float = 0.5
    """Share of the training after which it counts nothing."""
    predictor_learning_rate: float = 0.1
    """Of the predictors; the network's is ``trainer.learning_rate``."""
    momentum: float = 0.9
    """Of stochastic gradient descent, in both stages."""
    dense_steps: int = 300
    """Steps of training the dense network before there are gates."""
    dense_learning_rate: float = 0.1
    """Their learning rate."""
    widths: list[int] = field(default_factory=lambda: [16, 32, 32, 64, 64])
    """Channels of each layer."""
    strides: list[int] = field(default_factory=lambda: [1, 2, 1, 2, 1])
    """Stride of each layer."""
    validation: float = 0.1
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        for name in ("share", "cooldown"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")
        if self.coefficient < 0:
            raise ValueError(f"coefficient must be at least 0, got {self.coefficient}")
        if self.dense_steps < 1:
            raise ValueError(f"dense_steps must be at least 1, got {self.dense_steps}")
        if len(self.strides) != len(self.widths) or not self.widths:
            raise ValueError(f"strides must be as many as widths, at least one, got {self.strides} and {self.widths}")


@method(
    title="Fire Together Wire Together: A Dynamic Pruning Approach with Self-Supervised Mask Prediction",
    arxiv="2110.08232",
    venue="CVPR 2022",
    equation="L = CE + mean_l sum_c BCE(P_l(x_l)_c, 1[c among the largest max_HW h_lc of cumulative mass <= r])",
    departures=(
        "a convolutional network of five layers on digits in the place of VGG, ResNet and MobileNet",
        "the channel that fires most is always a target, though it alone be more than the share of the mass",
        "joint mode lets the task's loss into the predictors, straight through the threshold; the official code's "
        "gates have no gradient in either mode",
        "learning rates follow the recipe's schedule, not steps",
    ),
)
class Ftwt(Method):
    """Channels that will fire for a picture are foretold from a layer's input, and only they are computed."""

    Settings = FtwtSettings
    least_classes = 2
    quick = {"trainer.max_steps": 2, "trainer.eval_strategy": "no", "settings.dense_steps": 2}

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train a dense network, gate it, fine-tune it, and count what is saved and what it costs."""
        self.work = work
        train, validation = work.data.train.split(self.settings.validation, work.seed)
        rows = Rows(pixel_values=train.images, labels=train.labels)
        dense = self.network("none")
        groups: list[dict[str, Any]] = [{"params": dense.parameters(), "lr": self.settings.dense_learning_rate}]
        sgd, steps = work.sgd(groups, self.settings.momentum), self.settings.dense_steps
        work.train(dense, self.losses, rows, stage="dense", optimizer=sgd, max_steps=steps)
        foreseen, before = self.seen(dense, train), self.seen(dense, work.data.test)

        net = self.network(self.settings.gates)
        net.begin_with(dense, [float(target.float().mean()) for target in foreseen.targets])
        groups = [{"params": [*net.blocks.parameters(), *net.head.parameters()]}]
        if net.predictors:
            rate = self.settings.predictor_learning_rate
            groups.append({"params": net.predictors.parameters(), "lr": rate, "weight_decay": 0.0})

        def figures() -> Mapping[str, float]:
            return {"validation_accuracy": accuracy(self.seen(net, validation), validation)}

        work.train(net, self.losses, rows, figures=figures, optimizer=work.sgd(groups, self.settings.momentum))
        seen = self.seen(net, work.data.test)
        votes = self.costs([torch.ones_like(gate) for gate in seen.gates], kernel=1, places=[1] * len(seen.gates))
        predicted, realised = (1 - self.costs(masks) for masks in (foreseen.targets, seen.gates))
        self.draw(seen, foreseen, work.data.test)
        return {
            "accuracy": accuracy(seen, work.data.test),
            "dense_accuracy": accuracy(before, work.data.test),
            "flops_cut": realised,
            "flops_cut_predicted": predicted,
            "flops_gap": abs(realised - predicted),
            "predictor_flops": votes if net.predictors else 0.0,
            "layer_gap": largest_gap(seen.gates, foreseen.targets),
            **mask_accuracies(seen),
            **figures(),
        }

    # ---- training ----------------------------------------------------------------------------------------------

    def network(self, gates: str) -> Gated:
        """Return a network with gates, whose blocks are those of every network of the seed."""
        train = self.work.data.train
        with seeded(self.work.seed):
            return Gated(replace(self.settings, gates=gates), train.images.shape[1], len(train.classes))

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses: the task, and while they are trained the predictors."""
        passed: Passed = model(batch["pixel_values"])
        losses = F.cross_entropy(passed.answers, batch["labels"], reduction="none")
        kept = torch.stack([gate.detach().mean(1) for gate in passed.gates]).mean(0)
        metrics = {"right": (passed.answers.argmax(1) == batch["labels"]).float(), "kept": kept}
        if passed.votes:
            wired = wiring(passed.votes, passed.targets)
            weight = wiring_weight(self.work.progress, self.settings.coefficient, self.settings.cooldown)
            losses = losses + weight * wired  # a weight of 0 still gives every predictor a gradient, of 0
            metrics["wiring"] = wired.detach()
        return RowLosses(losses=losses, metrics=metrics)

    # ---- what comes out ----------------------------------------------------------------------------------------

    def seen(self, net: Gated, gallery: Gallery) -> Passed:
        """Return what a network does with a gallery's pictures; random gates are the same each time."""

        def columns(images: Tensor) -> Tensor:
            passed: Passed = net(images)
            return torch.cat([passed.answers, *passed.gates, *(target.float() for target in passed.targets)], 1)

        net.eval()
        widths = self.settings.widths
        with seeded(self.work.seed):
            table = self.work.over(columns, gallery.images)
        answers, *masks = torch.split(table, [len(gallery.classes), *widths, *widths], 1)
        gates, targets = ([mask > 0.5 for mask in part] for part in (masks[: len(widths)], masks[len(widths) :]))
        return Passed(answers, [], gates, targets)

    def costs(self, masks: Sequence[Tensor], kernel: int = KERNEL, places: Sequence[int] = ()) -> float:
        """Return the mean multiplications under masks, as a share of the dense network's."""
        channels, *size = self.work.data.train.images.shape[1:]
        areas = places_of(size, self.settings.strides)
        whole = multiplications([torch.ones(1, mask.shape[1]).sum(1) for mask in masks], channels, areas)
        kept = [mask.float().sum(1) for mask in masks]
        return float((multiplications(kept, channels, places or areas, kernel) / whole).mean())

    def draw(self, seen: Passed, foreseen: Passed, test: Gallery) -> None:
        """Draw the kept share of each layer, and which channels of the last layer are on for which class."""
        layers = [float(layer + 1) for layer in range(len(seen.gates))]
        shares = {"targets of the dense network": foreseen.targets, "targets": seen.targets, "gates": seen.gates}
        curves = {name: (layers, [float(m.float().mean()) for m in masks]) for name, masks in shares.items()}
        self.work.picture("kept", lambda: lines(curves, across="layer", up="share of channels that are on"))
        each = [seen.gates[-1][test.labels == label].float().mean(0) for label in range(len(test.classes))]
        self.work.picture("gates_by_class", lambda: gates_by_class(torch.stack(each), test.classes))


def accuracy(seen: Passed, gallery: Gallery) -> float:
    """Return the share of pictures whose class is the network's answer."""
    return float((seen.answers.argmax(1) == gallery.labels).double().mean())


def largest_gap(gates: Sequence[Tensor], foreseen: Sequence[Tensor]) -> float:
    """Return how far the share of channels that are on is from the foreseen one, in the layer where it is farthest."""
    return max(float((a.float().mean() - b.float().mean()).abs()) for a, b in zip(gates, foreseen, strict=True))


def mask_accuracies(seen: Passed) -> dict[str, float]:
    """Return each layer's share of gates that are the target, and their mean beyond that of the best fixed gates."""
    each = [float((gate == target).double().mean()) for gate, target in zip(seen.gates, seen.targets, strict=True)]
    rates = [target.double().mean(0) for target in seen.targets]
    fixed = [float(torch.maximum(rate, 1 - rate).mean()) for rate in rates]
    named = {f"mask_accuracy_{layer + 1}": value for layer, value in enumerate(each)}
    return {**named, "mask_accuracy_lowest": min(each), "mask_gain": (sum(each) - sum(fixed)) / len(fixed)}


def gates_by_class(shares: Tensor, names: Sequence[str]) -> Figure:
    """Draw how often each channel is on for each class, of shape (classes, channels), the most frequent ones first."""
    with look(9, axes__grid=False):
        figure = Figure(figsize=(7.2, 3.0), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        ordered = shares[:, shares.mean(0).argsort(descending=True)]
        shown = axes.imshow(ordered.numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("channel of the last layer")
        axes.set_ylabel("class")
        figure.colorbar(shown, label="share of pictures it is on for")
    return figure
