"""Pictures with what belongs to each, in memory; parts of them, and rows for a trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Pictures of one size.

    Attributes:
        images: of shape (n, channels, height, width), float32 in [0, 1].
        labels: of shape (n,), numbers of ``classes``; all zero where nothing is labelled.
        classes: what the labels are called.
        captions: a text a picture; empty where there are none.
        more: anything else a picture has, of shape (n, ...).
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    captions: tuple[str, ...] = ()
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.images)
        sizes = {"labels": len(self.labels), **{name: len(column) for name, column in self.more.items()}}
        if self.captions:
            sizes["captions"] = len(self.captions)
        wrong = {name: size for name, size in sizes.items() if size != n}
        if wrong:
            raise ValueError(f"{n} images need as many of everything else, got {wrong}")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)

    def take(self, rows: Tensor | Sequence[int]) -> "Gallery":
        """Return some of the pictures, in the order given."""
        rows = torch.as_tensor(rows, dtype=torch.long)
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            captions=tuple(self.captions[row] for row in rows.tolist()) if self.captions else (),
            more={name: column[rows] for name, column in self.more.items()},
        )

    def per_class(self, count: int, seed: int) -> "Gallery":
        """Return ``count`` pictures of each class, chosen by a seed.

        Raises:
            ValueError: a class has fewer.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        labels = self.labels[order]
        chosen = []
        for label, name in enumerate(self.classes):
            rows = order[labels == label]
            if len(rows) < count:
                raise ValueError(f"class {name!r} has {len(rows)} pictures, and {count} are asked for")
            chosen.append(rows[:count])
        return self.take(torch.cat(chosen).sort().values)

    def split(self, share: float, seed: int) -> tuple["Gallery", "Gallery"]:
        """Return ``1 - share`` of each class's pictures, and the rest, chosen by a seed."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        labels = self.labels[order]
        kept, apart = [], []
        for label in range(len(self.classes)):
            rows = order[labels == label]
            cut = round(share * len(rows))
            apart.append(rows[:cut])
            kept.append(rows[cut:])
        return tuple(self.take(torch.cat(rows).sort().values) for rows in (kept, apart))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Pictures to train on and pictures never trained on."""

    train: Gallery
    test: Gallery


class Rows(Dataset[dict[str, Tensor]]):
    """Columns of equal length as a trainer's rows; ``index`` says which row one is."""

    def __init__(self, **columns: Tensor) -> None:
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns must be equally long, got {sizes}")
        self.columns = {**columns, "index": torch.arange(next(iter(sizes.values())))}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.columns["index"])

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: column[row] for name, column in self.columns.items()}

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return the rows of a batch."""
        return [self[row] for row in rows]
