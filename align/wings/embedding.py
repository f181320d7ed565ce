"""Embeddings of a transformers model: of texts, a row a line, or of a folder's pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BATCH = 32
HALF = (0.5,)
"""Mean and deviation that pictures are normalised by where a model says none, as ViT's are: from [0, 1] to [-1, 1]."""


@torch.no_grad()
def embed_texts(model: str, file: Path, *, rows: int, pool: str) -> Tensor:
    """Return one embedding a line, of shape (lines, width): pooled states of the last layer.

    Args:
        model: as a recipe's ``model.path``.
        file: a text a line; empty lines are left out.
        rows: most lines, chosen by chance, always the same ones.
        pool: ``mean`` over tokens, ``last`` or ``first`` token.

    Raises:
        ValueError: the model or the file cannot be read, or it has fewer than two texts.
    """
    from align.models.load import Source, load_model, load_tokenizer

    texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = [texts[row] for row in some(len(texts), rows)]
    if len(texts) < 2:
        raise ValueError(f"--data {file}: needs at least two lines of text, and has {len(texts)}")
    source = Source(path=model, dtype=torch.float32, device=torch.device("cpu"))
    tokenizer = load_tokenizer(source)
    network: Any = load_model(source)
    network.eval()
    body = network.base_model if hasattr(network, "base_model") else network
    found = []
    for batch in _batches(texts):
        ids = tokenizer(list(batch), return_tensors="pt", padding=True, truncation=True, max_length=512)
        states = body(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state
        found.append(pooled(states, ids["attention_mask"], pool))
    return torch.cat(found).float()


@torch.no_grad()
def embed_pictures(model: str, folder: Path, *, rows: int, pool: str) -> Tensor:
    """Return one embedding a picture, of shape (pictures, width): pooled states of the last layer.

    Args:
        model: a folder or hub name of a vision model of transformers (ViT, CLIP, DINOv2, ...).
        folder: of pictures.
        rows: most pictures, chosen by chance, always the same ones.
        pool: over patches, as :func:`embed_texts`.

    Raises:
        ValueError: the model or the pictures cannot be read.
    """
    from transformers import AutoModel

    from align.wings.data.images import Settings, load

    try:
        network: Any = AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise ValueError(f"{model} is no vision model that transformers can read: {error}") from error
    config = getattr(network.config, "vision_config", network.config)
    body = getattr(network, "vision_model", network)
    prepared = preparation(model)
    size, channels = _size(config, prepared), getattr(config, "num_channels", 3)
    if size is None:
        raise ValueError(
            f"{model} has no image_size, and no size in preprocessor_config.json: it is no model of pictures"
        )
    data = load(Settings(path=str(folder), size=size, grey=channels == 1))
    images = torch.cat([data.train.images, data.test.images])
    mean, deviation = (
        torch.tensor((prepared.get(name) or HALF)[:channels]).view(1, -1, 1, 1) for name in ("image_mean", "image_std")
    )
    found = []
    for batch in torch.split(images[some(len(images), rows)], BATCH):
        states = body(pixel_values=(batch - mean) / deviation).last_hidden_state
        if states.ndim == 4:  # of a convolutional network: channels, then places
            states = states.flatten(2).transpose(1, 2)
        found.append(pooled(states, torch.ones(states.shape[:2], dtype=torch.long), pool))
    return torch.cat(found).float()


def preparation(model: str) -> dict[str, Any]:
    """Return what a model's ``preprocessor_config.json`` says; nothing where it has none, or normalises nothing."""
    from transformers import ImageProcessingMixin

    try:
        found: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(model)[0]
    except (OSError, ValueError):
        return {}
    as_it_is = {"image_mean": [0.0], "image_std": [1.0]}
    return found if found.get("do_normalize", True) else {**found, **as_it_is}


def some(count: int, most: int) -> list[int]:
    """Return up to ``most`` of ``count`` rows, in order, chosen by chance: files are often sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values.tolist()


def pooled(states: Tensor, mask: Tensor, pool: str) -> Tensor:
    """Return one state a row.

    Args:
        states: of shape (rows, positions, width).
        mask: of shape (rows, positions), 1 where a position is real.
        pool: ``mean``, ``last`` or ``first`` real position.
    """
    if pool == "mean":
        weights = mask[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
    places = torch.arange(mask.shape[1]).expand_as(mask)
    if pool == "last":
        chosen = places.masked_fill(mask == 0, -1).argmax(1)
    else:
        chosen = places.masked_fill(mask == 0, mask.shape[1]).argmin(1)
    return states[torch.arange(len(states)), chosen]


def _size(config: Any, prepared: dict[str, Any]) -> int | None:
    """Return the pixels a side that a network takes, by what prepares its pictures or by its own configuration."""
    cropped = prepared.get("crop_size") if prepared.get("do_center_crop", True) else None
    for said in (cropped, prepared.get("size"), getattr(config, "image_size", None)):
        found = said.get("height") or said.get("shortest_edge") if isinstance(said, dict) else said
        found = found[0] if isinstance(found, list | tuple) else found
        if isinstance(found, int):
            return found
    return None


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
