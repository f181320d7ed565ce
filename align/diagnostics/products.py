"""Inner products of the gradients of single sequences, from what went into a module and what came back out of it.

The gradient of a weight matrix by one sequence is ``sum_t g_t a_t^T``: a is what went in, g the gradient of what came
out. Its inner product with that of another is ``sum_ts (a_t . a'_s)(g_t . g'_s)`` (ghost dot product: Goodfellow, 2015,
arXiv:1510.01799; Wang et al., 2024, arXiv:2406.11011), or that of the two matrices, whichever costs less.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.diagnostics.places import Places

AT_ONCE = 2**25
"""Numbers held at a time beside what the model holds."""

Products = Float[Tensor, "groups members members"]


class Piece(ABC):
    """Gradients of one parameter by the measured sequences, from one call of one module."""

    @abstractmethod
    def products(self) -> Products:
        """Return all inner products within each group, in float64."""

    @abstractmethod
    def along(self, change: Tensor) -> Float[Tensor, "groups members"]:
        """Return the inner product of each gradient with a change of the parameter, in float64."""

    @abstractmethod
    def kept(self, *, as_it_is: bool = False) -> "Piece":
        """Return the same, holding nothing else alive; in as few numbers as possible, unless ``as_it_is``."""


@dataclass(frozen=True, slots=True)
class Vectors(Piece):
    """One whole gradient a sequence: biases, scales of norms, anything small.

    Attributes:
        gradients: the parameter flattened.
    """

    gradients: Float[Tensor, "groups members numbers"]

    def products(self) -> Products:
        """Multiply them."""
        exact = self.gradients.double()
        return exact @ exact.mT

    def along(self, change: Tensor) -> Float[Tensor, "groups members"]:
        """Multiply each with the change."""
        return self.gradients.double() @ change.flatten().double()

    def kept(self, *, as_it_is: bool = False) -> "Piece":
        """Return itself."""
        return self


@dataclass(frozen=True, slots=True)
class Outer(Piece):
    """Gradients of a weight matrix of shape (outputs, inputs), or the transpose.

    Attributes:
        inputs: what went in, by position.
        slopes: gradient of what came out, by position.
        places: the measured positions.
        transposed: whether the parameter has shape (inputs, outputs), as GPT-2's Conv1D.
    """

    inputs: Float[Tensor, "positions inputs"]
    slopes: Float[Tensor, "positions outputs"]
    places: Places
    transposed: bool = False

    @property
    def whole_is_cheaper(self) -> bool:
        """Whether to build each sequence's matrix, rather than to multiply all positions with all."""
        _, members, width = self.places.index.shape
        positions, a, b = members * width, self.inputs.shape[-1], self.slopes.shape[-1]
        return positions * a * b + members * members * a * b < positions * positions * (a + b)

    def products(self) -> Products:
        """Multiply, a few groups at a time."""
        _, members, width = self.places.index.shape
        a, b = self.inputs.shape[-1], self.slopes.shape[-1]
        extra = members * a * b if self.whole_is_cheaper else 2 * (members * width) ** 2
        fits = AT_ONCE // (members * width * (a + b) + extra)
        return torch.cat([self._products(part) for part in self.places.chunks(fits)])

    def _products(self, places: Places) -> Products:
        into, out = exactly(places.take(self.inputs)), exactly(places.take(self.slopes))
        if self.whole_is_cheaper:
            whole = (out.mT @ into).flatten(2)
            return (whole @ whole.mT).double()
        _, members, width = places.index.shape
        into, out = into.flatten(1, 2), out.flatten(1, 2)
        both = (into @ into.mT) * (out @ out.mT)
        return both.view(-1, members, width, members, width).sum((2, 4), dtype=torch.float64)

    def along(self, change: Tensor) -> Float[Tensor, "groups members"]:
        """Send what went in through the change."""
        matrix = change.mT if self.transposed else change
        into, out = self.places.take(self.inputs), self.places.take(self.slopes)
        moved = exactly(into) @ matrix.mT.to(exactly(into).dtype)
        return (moved * exactly(out)).sum((2, 3), dtype=torch.float64)

    def kept(self, *, as_it_is: bool = False) -> "Piece":
        """Return matrices, or the measured positions alone, whichever is less."""
        groups, members, width = self.places.index.shape
        a, b = self.inputs.shape[-1], self.slopes.shape[-1]
        into, out = self.places.take(self.inputs), self.places.take(self.slopes)
        if not as_it_is and a * b < width * (a + b):
            whole = exactly(out).mT @ exactly(into)
            return Vectors((whole.mT if self.transposed else whole).flatten(2))
        index = torch.arange(groups * members * width, device=into.device).view(groups, members, width)
        return Outer(into.flatten(0, 2), out.flatten(0, 2), Places(index, self.places.there), self.transposed)

    def columns(self, tokens: Int[Tensor, "groups any_members any_width"]) -> tuple[Tensor, Tensor]:
        """Return what went in, and the slopes of the outputs that tokens of the same group name.

        Shapes: (groups, members, width, inputs), and (groups, members, width, number of tokens).
        """
        into, found = [], []
        groups = zip(self.places.chunks(1), tokens.flatten(1), strict=True)
        for place, named in groups:
            into.append(place.take(self.inputs))
            found.append(place.take(self.slopes)[..., named])
        return torch.cat(into), torch.cat(found)


@dataclass(frozen=True, slots=True)
class Lookup(Piece):
    """Gradients of an embedding: each token adds to its own row.

    Attributes:
        tokens: ids.
        slopes: gradient of what came out; 0 where no gradient flows (padding).
        rows: rows of the embedding.
    """

    tokens: Int[Tensor, "groups members width"]
    slopes: Float[Tensor, "groups members width outputs"]

    def products(self) -> Products:
        """Multiply where tokens are the same."""
        parts = [
            _matched(tokens, slopes, tokens, slopes) for tokens, slopes in zip(self.tokens, self.slopes, strict=True)
        ]
        return torch.stack(parts)

    def along(self, change: Tensor) -> Float[Tensor, "groups members"]:
        """Look the change up."""
        found = change[self.tokens].to(self.slopes.dtype)
        return (found * self.slopes).sum((2, 3), dtype=torch.float64)

    def kept(self, *, as_it_is: bool = False) -> "Piece":
        """Return itself."""
        return self


def _matched(tokens: Tensor, slopes: Tensor, others: Tensor, other_slopes: Tensor) -> Tensor:
    members, width = tokens.shape
    more, long = others.shape
    same = tokens.flatten()[:, None] == others.flatten()
    dots = slopes.flatten(0, 1) @ other_slopes.flatten(0, 1).mT
    return dots.masked_fill(~same, 0).view(members, width, more, long).sum((1, 3), dtype=torch.float64)


def crossed(one: Piece, other: Piece) -> Products:
    """Return the inner products of the gradients of two calls that use one parameter, shape (groups, members, members).

    The first member is of the first call. Both must be given for all measured sequences.
    """
    if isinstance(one, Vectors) and isinstance(other, Vectors):
        return one.gradients.double() @ other.gradients.double().mT
    if isinstance(one, Outer) and isinstance(other, Outer):
        return _outer_outer(one, other)
    if isinstance(one, Lookup) and isinstance(other, Lookup):
        pairs = zip(one.tokens, one.slopes, other.tokens, other.slopes, strict=True)
        return torch.stack([_matched(*four) for four in pairs])
    if isinstance(one, Lookup) and isinstance(other, Outer):
        return Columns.of(other, one.tokens).against(one).mT
    if isinstance(one, Outer) and isinstance(other, Lookup):
        return crossed(other, one).mT
    raise TypeError(f"no inner product of {type(one).__name__} and {type(other).__name__}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Of a head whose weight is the embedding too: what its gradients have in the rows that an embedding touches.

    Attributes:
        inputs: what went into the head.
        slopes: gradient of the logits of the tokens that stand in the group.
    """

    inputs: Float[Tensor, "groups members scored inputs"]
    slopes: Float[Tensor, "groups members scored tokens"]

    @classmethod
    def of(cls, head: Outer, tokens: Int[Tensor, "groups any_members any_width"]) -> "Columns":
        """Pick them out of the head's slopes."""
        return cls(*map(exactly, head.columns(tokens)))

    def against(self, looked: Lookup) -> Products:
        """Return the inner products with gradients by the embedding; the first member is the head's."""
        parts = []
        for inputs, slopes, tokens, e in zip(self.inputs, self.slopes, looked.tokens, looked.slopes, strict=True):
            members, width = tokens.shape
            dots = inputs @ e.flatten(0, 1).to(inputs.dtype).mT  # head's member, scored position; token of the group
            parts.append((dots * slopes).view(len(inputs), -1, members, width).sum((1, 3), dtype=torch.float64))
        return torch.stack(parts)


def _outer_outer(one: Outer, other: Outer) -> Products:
    parts = []
    for mine, theirs in zip(one.places.chunks(1), other.places.chunks(1), strict=True):
        matrices = [
            (exactly(place.take(piece.slopes)).mT @ exactly(place.take(piece.inputs))).flatten(2)
            for place, piece in ((mine, one), (theirs, other))
        ]
        parts.append((matrices[0] @ matrices[1].mT).double())
    return torch.cat(parts)


def exactly(tensor: Tensor) -> Tensor:
    """Return float32 of shorter types: products of many small numbers of either sign are to come."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
