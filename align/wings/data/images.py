"""A user's own pictures: a folder, a data set saved or read by ``datasets``, or a hub name.

A folder with a subfolder a class is labelled by the subfolders' names; ``datasets`` reads all of it, so everything
that its image folders know (``metadata.jsonl`` with captions, splits as folders) works.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from align.objectives.registry import did_you_mean
from align.wings.gallery import Gallery, Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which pictures, which of their columns, and how large."""

    path: str
    """A folder of pictures, a folder saved by ``datasets``, or a hub name."""
    image: str = "image"
    """Column of the pictures."""
    label: str | None = None
    """Column of the classes; absent means ``label`` where there is one, else that nothing is labelled."""
    caption: str | None = None
    """Column of the captions; absent means ``caption`` or ``text`` where there is one."""
    size: int = 32
    """Pixels a side; pictures are cut to their middle square and averaged down, or interpolated up."""
    grey: bool = False
    """One channel instead of three."""
    train_split: str = "train"
    """Split to train on."""
    test_split: str | None = None
    """Split that is never trained on; absent means ``test`` or ``validation`` where there is one, else a share."""
    test_share: float = 0.2
    """Share of each class held out, where there is no such split."""
    seed: int = 0
    """Chooses that share."""

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(f"size must be at least 4, got {self.size}")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share must lie in (0, 1), got {self.test_share}")


def load(settings: Settings) -> Splits:
    """Return pictures to train on and held-out ones.

    Raises:
        ValueError: there are no such pictures, or a split or column is missing.
    """
    found = _read(settings.path)
    train = _gallery(found, settings.train_split, settings)
    held = settings.test_split or next((name for name in ("test", "validation") if name in found), None)
    if held is None:
        kept, apart = train.split(settings.test_share, settings.seed)
        return Splits(train=kept, test=apart)
    test = _gallery(found, held, settings)
    if test.classes != train.classes:
        raise ValueError(f"{settings.path}: the splits {settings.train_split!r} and {held!r} name different classes")
    return Splits(train=train, test=test)


def _read(path: str) -> Any:
    import datasets

    folder = Path(path).expanduser()
    if not folder.exists():
        try:
            return datasets.load_dataset(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"data.path: {path} is no folder here, and no data set of the hub: {error}") from error
    if not folder.is_dir():
        raise ValueError(f"data.path: {path} is a file; name a folder of pictures, with a subfolder a class")
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)
    try:
        return datasets.load_dataset("imagefolder", data_dir=str(folder))
    except Exception as error:  # datasets raises of many kinds for a folder without pictures
        raise ValueError(f"data.path: {path} holds no pictures that can be read: {error}") from error


def _gallery(found: Any, split: str, settings: Settings) -> Gallery:
    if split not in found:
        raise ValueError(f"{settings.path} has no split {split!r}" + did_you_mean(split, list(found)))
    rows = found[split]
    named = list(rows.column_names)
    for column in (settings.image, settings.label, settings.caption):
        if column is not None and column not in named:
            raise ValueError(f"{settings.path} has no column {column!r}" + did_you_mean(column, named))
    label = settings.label or ("label" if "label" in named else None)
    caption = settings.caption or next((name for name in ("caption", "text") if name in named), None)
    try:
        images = torch.stack([_tensor(row[settings.image], settings) for row in rows])
    except OSError as error:  # what PIL raises of a file that is no picture names the file
        raise ValueError(f"data.path: a file cannot be read as a picture: {error}; remove or replace it") from error
    labels, classes = _labels(rows, label, len(images))
    captions = tuple(str(row[caption]) for row in rows) if caption else ()
    return Gallery(images=images, labels=labels, classes=classes, captions=captions)


def _labels(rows: Any, label: str | None, count: int) -> tuple[Tensor, tuple[str, ...]]:
    if label is None:
        return torch.zeros(count, dtype=torch.long), ("all",)
    names = getattr(rows.features[label], "names", None)
    values = list(rows[label])
    if names is None:
        names = sorted({str(value) for value in values})
        values = [names.index(str(value)) for value in values]
    return torch.tensor(values), tuple(names)


def _tensor(picture: Any, settings: Settings) -> Tensor:
    pixels = np.asarray(picture.convert("L" if settings.grey else "RGB"), dtype=np.float32) / 255
    image = torch.from_numpy(pixels)
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    square = image[None, :, top : top + side, left : left + side]
    if side >= settings.size:
        return F.interpolate(square, size=settings.size, mode="area")[0]
    return F.interpolate(square, size=settings.size, mode="bilinear", antialias=False)[0].clamp(0, 1)
