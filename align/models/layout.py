"""Rows of a batch as a model gets them where they share tokens or are packed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where tokens of N rows stand in packed sequences, and which are scored (:mod:`align.data.prefix_tree`).

    Attributes:
        input_ids: tokens of the packed sequences.
        position_ids: how many tokens stand before each one in its rows.
        spans: of each position, in two lines: where its subtree ends in its sequence, exclusive, and its position. A
            token sees the earlier ones whose subtree it is in. Integers of 4 bytes, which is how attention knows them
            from masks.
        real: True on tokens, False on padding.
        parents: number, in the flattened sequences, of the position that predicts each scored token.
        places: number of the position at which each scored token itself stands.
        targets: the scored tokens.
        edges: of each row, which of the scored tokens are its own, in order; 0 beyond its last.
        scored: True where ``edges`` says something.
    """

    input_ids: Int[Tensor, "sequences time"]
    position_ids: Int[Tensor, "sequences time"]
    spans: Int32[Tensor, "sequences 1 2 time"]
    real: Bool[Tensor, "sequences time"]
    parents: Int[Tensor, " tokens"]
    places: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    edges: Int[Tensor, "rows scored"]
    scored: Bool[Tensor, "rows scored"]

    def to(self, device: torch.device) -> "Layout":
        """Return the same on a device."""
        return Layout(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], prefix: str) -> "Layout | None":
        """Return the layout whose keys in a batch begin with a prefix; None where there is none."""
        if f"{prefix}input_ids" not in batch:
            return None
        return cls(**{field.name: batch[f"{prefix}{field.name}"] for field in fields(cls)})

    def last(self) -> "Layout":
        """Return the same, with each row's last token scored alone."""
        count = self.scored.sum(-1, keepdim=True)
        edges = self.edges.gather(1, count - 1)[:, 0]
        return replace(
            self,
            parents=self.parents[edges],
            places=self.places[edges],
            targets=self.targets[edges],
            edges=torch.arange(len(edges), device=edges.device)[:, None],
            scored=torch.ones_like(count, dtype=torch.bool),
        )
