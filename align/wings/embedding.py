"""Embeddings of a transformers model: of texts, a row a line, or of a folder's pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BATCH = 32


@torch.no_grad()
def embed_texts(model: str, file: Path, *, rows: int, pool: str) -> Tensor:
    """Return one embedding a line, of shape (lines, width): pooled states of the last layer.

    Args:
        model: as a recipe's ``model.path``.
        file: a text a line; empty lines are left out.
        rows: most lines.
        pool: ``mean`` over tokens, ``last`` or ``first`` token.

    Raises:
        ValueError: the model or the file cannot be read, or it has fewer than two texts.
    """
    from align.models.load import Source, load_model, load_tokenizer

    texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()][:rows]
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
        rows: most pictures.
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
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if not isinstance(size, int):
        raise ValueError(f"{model} has no image_size: it is no model of pictures")
    data = load(Settings(path=str(folder), size=size, grey=channels == 1))
    images = torch.cat([data.train.images, data.test.images])[:rows]
    found = []
    for batch in torch.split(images, BATCH):
        states = body(pixel_values=2 * batch - 1).last_hidden_state
        found.append(pooled(states, torch.ones(states.shape[:2], dtype=torch.long), pool))
    return torch.cat(found).float()


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


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
