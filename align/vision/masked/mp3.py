"""MP3: patches without position embeddings are asked where they are, of which only some can be looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import contact_sheet
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import seeded
from align.wings.workbench import Workbench

PRETRAIN = "pretrain"
"""Stage in which positions are predicted."""
ATTENTION = "align_context"
"""What transformers knows :func:`context_attention` by."""


# ---- the objective -------------------------------------------------------------------------------------------------


def patches_of(images: Tensor, patch: int) -> Tensor:
    """Return a picture's patches in reading order, of shape (n, patches, channels * patch**2)."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


def pictures_of(patches: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Return the pictures whose patches are given: the inverse of :func:`patches_of`."""
    return F.fold(patches.transpose(1, 2), size, patch, stride=patch)


def has_content(patches: Tensor, contrast: float) -> Tensor:
    """Return whether a patch shows anything, its values differing by more than ``contrast``; of shape (n, patches).

    Nothing tells one blank patch from another, so that where it is cannot be learned.
    """
    return patches.amax(2) - patches.amin(2) > contrast


def random_context(n: int, patches: int, masked: float) -> Tensor:
    """Return for each picture the numbers of the patches that can be looked at, of shape (n, kept), no number twice.

    Args:
        n: pictures.
        patches: of each.
        masked: share of the patches that nobody looks at (eta in the paper); at least one is kept.
    """
    kept = max(1, round((1 - masked) * patches))
    return torch.rand(n, patches).argsort(1)[:, :kept]


def smoothed_positions(rows: int, columns: int, width: float) -> Tensor:
    """Return the target of each position: shares over positions that fall as ``exp(-distance**2 / width**2)``.

    Args:
        rows: of the grid of patches.
        columns: of it.
        width: in patches; 0 is the position itself.

    Returns:
        Of shape (rows * columns, rows * columns); rows sum to 1.
    """
    if width == 0:
        return torch.eye(rows * columns)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    return (-torch.cdist(places, places).square() / width**2).softmax(1)


def position_losses(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Return the mean cross-entropy of each picture's patches with their positions, of shape (n,).

    All patches are asked, those that can be looked at too.

    Args:
        logits: of shape (n, patches, positions).
        targets: shares of the positions for each patch (:func:`smoothed_positions`).
        counted: of shape (n, patches), which patches count (:func:`has_content`); a picture without any loses 0.
    """
    each = -(targets * logits.log_softmax(2)).sum(2)
    return (each * counted).sum(1) / counted.sum(1).clamp_min(1)


def context_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    context: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return attention of all queries to the keys and values of the context alone, in transformers' form.

    Args:
        module: unused.
        query: of shape (n, heads, patches, width).
        key: of the same shape.
        value: of the same shape.
        attention_mask: unused; there is none.
        context: numbers of the patches that are looked at, of shape (n, kept); None means all.
        scaling: factor of the scores.
        dropout: of the shares.
        **more: unused.
    """
    if context is not None:
        at = context[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
        key, value = key.gather(2, at), value.gather(2, at)
    found = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling)
    return found.transpose(1, 2).contiguous(), None


# ---- the network ---------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A stack of ``transformers``' ViT layers on patches, which know nothing of where they are; no class token.

    Args:
        inputs: values of a patch.
        settings: sizes.
    """

    def __init__(self, inputs: int, settings: "Mp3Settings") -> None:
        from transformers import AttentionInterface, ViTConfig
        from transformers.models.vit.modeling_vit import ViTLayer

        super().__init__()
        AttentionInterface.register(ATTENTION, context_attention)
        options: dict[str, Any] = {
            "hidden_size": settings.width,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.heads,
            "intermediate_size": 4 * settings.width,
            "attn_implementation": ATTENTION,
        }
        config = ViTConfig(**options)
        self.patch = settings.patch
        self.embed = nn.Linear(inputs, settings.width)
        self.layers = nn.ModuleList(ViTLayer(config) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)

    def forward(self, images: Tensor, context: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Return features of the patches, of shape (n, patches, width).

        Args:
            images: of shape (n, channels, height, width), in [0, 1].
            context: numbers of the patches that are looked at in every layer, of shape (n, kept); None means all.
            positions: embeddings of the positions, of shape (patches, width); None gives patches no place.
        """
        found = self.embed(patches_of(2 * images - 1, self.patch))
        if positions is not None:
            found = found + positions
        for layer in self.layers:
            found = layer(found, context=context)
        features: Tensor = self.norm(found)
        return features


class Locator(nn.Module):
    """The encoder, and which of the positions each patch is at.

    Args:
        encoder: without position embeddings.
        width: of its features.
        patches: of a picture.
    """

    def __init__(self, encoder: Encoder, width: int, patches: int) -> None:
        super().__init__()
        self.encoder, self.place = encoder, nn.Linear(width, patches)

    def forward(self, images: Tensor, context: Tensor) -> Tensor:
        """Return logits of shape (n, patches, positions)."""
        found: Tensor = self.place(self.encoder(images, context))
        return found


class Classifier(nn.Module):
    """The encoder under full attention, with position embeddings or without, and classes of the mean over patches.

    Args:
        encoder: pretrained, or not.
        width: of its features.
        classes: how many.
        patches: of a picture, which get position embeddings; None gives none.
    """

    def __init__(self, encoder: Encoder, width: int, classes: int, patches: int | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, classes)
        self.positions = None if patches is None else nn.Parameter(0.02 * torch.randn(patches, width))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (n, classes)."""
        found: Tensor = self.head(self.encoder(images, positions=self.positions).mean(1))
        return found


# ---- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp3Settings:
    """The network, the pretext task, and what it is for."""

    pretrain_steps: int = 600
    """Steps of position prediction on all training pictures, unlabelled; 0 is training from scratch, the baseline."""
    positions: bool = True
    """Whether the classifier has learned position embeddings, put in after the pretraining, which never has any."""
    masked: float = 0.75
    """Share of the patches that are never keys and values, the paper's eta."""
    contrast: float = 0.05
    """Patches whose values differ by less are blank, and their position is not asked."""
    smoothing: float = 0.0
    """Width in patches of soft position targets at the start, which falls to 0 at the end of the pretraining."""
    pretrain_learning_rate: float = 1.0e-3
    """Learning rate of the pretraining; ``trainer.learning_rate`` is the classifier's."""
    labels_per_class: int = 30
    """Labelled pictures of each class."""
    patch: int = 4
    """Pixels a side of a patch; a divisor of the pictures' size."""
    width: int = 48
    """Width of the tokens."""
    layers: int = 3
    """Transformer layers."""
    heads: int = 4
    """Attention heads of each."""
    validation: float = 0.1
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        for name, least in (("pretrain_steps", 0), ("smoothing", 0), ("contrast", 0), ("labels_per_class", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.masked < 1:
            raise ValueError(f"masked must lie in [0, 1), got {self.masked}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads = {self.heads}, got {self.width}")


@method(
    title="Position Prediction as an Effective Pretraining Strategy",
    arxiv="2207.07611",
    venue="ICML 2022",
    equation="L = -mean_i log softmax(W f(x_1..x_N; keys and values of a random subset C))_i over positions",
    departures=(
        "a tiny ViT on digits, with the mean over patches in place of a class token, which would tell where it stands",
        "blank patches are asked for no position: on a blank background nothing tells where they are",
        "the smoothing of the targets is optional and off; how its width falls (linearly) is ours",
        "speech, with relative windows over frames, is left out",
    ),
)
class Mp3(Method):
    """Pretraining that predicts where each patch is from what a few of them show, then a classifier on few labels."""

    Settings = Mp3Settings
    least_classes = 2
    quick = {
        "trainer.max_steps": 2,
        "trainer.eval_strategy": "no",
        "trainer.per_device_train_batch_size": 16,
        "settings.pretrain_steps": 2,
        "settings.labels_per_class": 5,
        "data.train_per_class": 10,
    }

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Pretrain without labels where asked, train the classifier on the labelled pictures, and test it."""
        train, validation = work.data.train.split(self.settings.validation, work.seed)
        test, labelled = work.data.test, train.per_class(self.settings.labels_per_class, work.seed)
        channels, height, width = train.images.shape[1:]
        patch, tokens = self.settings.patch, self.settings.width
        if height % patch or width % patch:
            raise ValueError(f"settings.patch: {height} x {width} pixels are not cut into patches of {patch}")
        self.work, self.grid = work, (height // patch, width // patch)
        patches = self.grid[0] * self.grid[1]
        with seeded(work.seed):
            encoder = Encoder(channels * patch**2, self.settings)
            net = Classifier(encoder, tokens, len(train.classes), patches if self.settings.positions else None)
            locator = Locator(encoder, tokens, patches)
        found = self.pretrain(locator, train, validation) if self.settings.pretrain_steps else {}

        def figures() -> Mapping[str, float]:
            return {"validation_top1": self.accuracy(net, validation)}

        rows = Rows(images=labelled.images, labels=labelled.labels)
        work.train(net, self.class_losses, rows, figures=figures)
        return {"top1": self.accuracy(net, test), **figures(), **found}

    def pretrain(self, locator: Locator, train: Gallery, validation: Gallery) -> Mapping[str, float]:
        """Train the encoder to place patches; return the share of validation patches it places, and chance."""
        self.work.train(
            locator,
            self.place_losses,
            Rows(images=train.images),
            stage=PRETRAIN,
            max_steps=self.settings.pretrain_steps,
            learning_rate=self.settings.pretrain_learning_rate,
        )
        patches = locator.place.out_features

        def placed(images: Tensor) -> Tensor:
            context = random_context(len(images), patches, self.settings.masked).to(images.device)
            found: Tensor = locator(images, context).argmax(2)
            return found

        with seeded(self.work.seed):
            places = self.work.over(placed, validation.images)
        counted = self.counted(validation.images)
        right = places == torch.arange(patches)
        self.draw(validation, places)
        return {"placed": float(right[counted].double().mean()), "placed_by_chance": 1 / patches}

    def counted(self, images: Tensor) -> Tensor:
        """Return which patches are asked for their position."""
        return has_content(patches_of(images, self.settings.patch), self.settings.contrast)

    def place_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses by where its patches are put."""
        images = batch["images"]
        patches, masked = self.grid[0] * self.grid[1], self.settings.masked
        context = self.work.drawn(lambda rows: random_context(rows, patches, masked), len(images)).to(images.device)
        logits, counted = model(images, context), self.counted(images)
        width = self.settings.smoothing * (1 - self.work.progress)
        losses = position_losses(logits, smoothed_positions(*self.grid, width).to(images.device), counted)
        right = logits.argmax(2) == torch.arange(logits.shape[1], device=images.device)
        placed = (right & counted).sum(1) / counted.sum(1).clamp_min(1)
        return RowLosses(losses=losses, metrics={"placed": placed})

    def class_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each labelled picture loses."""
        logits = model(batch["images"])
        losses = F.cross_entropy(logits, batch["labels"], reduction="none")
        return RowLosses(losses=losses, metrics={"top1": (logits.argmax(1) == batch["labels"]).float()})

    def accuracy(self, net: Classifier, gallery: Gallery) -> float:
        """Return the share of pictures whose class is right."""
        logits = self.work.over(net, gallery.images)
        return float((logits.argmax(1) == gallery.labels).double().mean())

    def draw(self, gallery: Gallery, places: Tensor) -> None:
        """Draw pictures, and below each what it would be with its patches where the network puts them."""
        rows = torch.randperm(len(gallery), generator=self.work.generator())[:8]
        shown = gallery.images[rows]
        again = put_together(patches_of(shown, self.settings.patch), places[rows])
        pictures = torch.cat([shown, pictures_of(again, (shown.shape[2], shown.shape[3]), self.settings.patch)])
        caption = "pictures, and their patches where the network puts them"
        self.work.picture("placed", lambda: contact_sheet(pictures, columns=len(shown), caption=caption))


def put_together(patches: Tensor, places: Tensor) -> Tensor:
    """Return the mean of the patches that are put at each position, nothing where none is; shapes as given.

    Args:
        patches: of shape (n, patches, values).
        places: position of each, of shape (n, patches).
    """
    there = F.one_hot(places, patches.shape[1]).to(patches.dtype)
    return there.transpose(1, 2) @ patches / there.sum(1)[:, :, None].clamp_min(1)
