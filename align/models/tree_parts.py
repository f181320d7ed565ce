"""Attention over trees in calls of torch's own: which tokens of a packed sequence are attended to together.

A sequence's tokens, in the order of a layout, fall into chains: runs in which each token is the parent of the next. The
first chain of a tree is a plain causal row; every other is the end of one whose beginning stands elsewhere. So each
costs what the row that it ends would, and no mask is larger than a bound. Small chains side by side are one part, with
a mask of their own: there, calls cost more than what they compute.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional as F

SMALL = 1 << 13
"""Queries times keys up to which chains side by side are one part."""
LARGEST = 1 << 20
"""Entries of a mask; parts whose mask would be larger are attended to by some queries at a time."""

Run = tuple[int, int]
"""Positions from one to another, exclusive."""


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring queries of a sequence.

    Attributes:
        size: how many.
        above: what stands above the first of them: numbers of other parts and places in these, from the root.
        window: a token sees as many positions as this, its own among them; None for all.
        rows: most queries of one call.
        mask: 0 where a query sees a key, minus infinity where not; None where the queries are one chain.
        alone: each query sees itself and nothing else.
    """

    size: int
    above: tuple[tuple[int, Run], ...] = ()
    window: int | None = None
    rows: int = LARGEST
    mask: Tensor | None = None
    alone: bool = False

    def keys(self, pieces: Sequence[Tensor], number: int) -> Tensor:
        """Return the keys (or values) that any query sees: what is above, then their own."""
        if not self.above:
            return pieces[number]
        return torch.cat([*(pieces[part][:, :, start:stop] for part, (start, stop) in self.above), pieces[number]], 2)

    def calls(self, keys: int, corner: Tensor | None) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """Yield queries, keys and mask of each call; None is a plain causal one, of as many keys as queries."""
        plain = not self.above and (self.window is None or self.size <= self.window)
        if self.mask is not None or plain:
            yield slice(None), slice(None), self.mask
            return
        assert corner is not None
        for start in range(0, self.size, self.rows):
            stop = min(start + self.rows, self.size)
            last = keys - self.size + stop
            first = 0 if self.window is None else max(0, last - (stop - start) - self.window + 1)
            yield slice(start, stop), slice(first, last), corner[start - stop :, first - last :]


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a sequence, in its order.

    Attributes:
        parts: side by side.
        corner: mask of the last queries of any chain, for their keys; its lower right is that of fewer.
    """

    parts: tuple[Part, ...]
    corner: Float[Tensor, "rows keys"] | None

    def attend(
        self,
        query: Float[Tensor, "1 heads time width"],
        key: Float[Tensor, "1 heads time width"],
        value: Float[Tensor, "1 heads time out"],
        scaling: float | None,
        softcap: float | None,
    ) -> Float[Tensor, "1 heads time out"]:
        """Return what each token attends to."""
        sizes = [part.size for part in self.parts]
        # Not slices: the backward of each slice would fill a gradient as long as the sequence.
        queries, keys, values = (torch.split(tensor, sizes, 2) for tensor in (query, key, value))
        found: list[Tensor] = []
        for number, part in enumerate(self.parts):
            if part.alone:
                found.append(values[number])
                continue
            k, v = part.keys(keys, number), part.keys(values, number)
            for q_some, k_some, mask in part.calls(k.shape[2], self.corner):
                q = queries[number][:, :, q_some]
                found.append(_call(q, k[:, :, k_some], v[:, :, k_some], mask, scaling, softcap))
        return found[0] if len(found) == 1 else torch.cat(found, 2)


def _call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None) -> Tensor:
    if softcap is None:
        causal = mask is None and q.shape[2] > 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scaling)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = _corner(q.shape[2], k.shape[2], None, q.dtype, q.device)
    return torch.softmax((scores + mask).float(), -1).to(v.dtype) @ v


def plan(spans: Int32[Tensor, "2 time"], window: int | None, dtype: torch.dtype) -> Plan:
    """Return how a packed sequence is attended to: ``spans`` of a layout, for a window (None for all positions)."""
    groups = list(_groups(_chains(spans[1].tolist()), window))
    starts = [group.start for group in groups]
    most = max((group.size + group.depth for group in groups if group.cornered(window)), default=0)
    rows = max(1, LARGEST // max(most, 1))
    parts = []
    for group in groups:
        above = []
        for start, stop in group.above:
            part = bisect_right(starts, start) - 1
            above.append((part, (start - starts[part], stop - starts[part])))
        mask = _mask(spans, group, window, dtype) if group.chains > 1 and not group.alone else None
        parts.append(Part(group.size, tuple(above), window, rows, mask, group.alone))
    corner = None
    if most:
        longest = max(group.size for group in groups if group.cornered(window))
        corner = _corner(min(rows, longest), most, window, dtype, spans.device)
    return Plan(tuple(parts), corner)


@dataclass(slots=True)
class _Group:
    """Chains side by side.

    Attributes:
        start: first position.
        size: positions.
        depth: positions above the first.
        above: these, as runs from the root.
        chains: how many.
        alone: trees of one token each.
    """

    start: int
    size: int
    depth: int
    above: list[Run]
    chains: int = 1
    alone: bool = False

    def cornered(self, window: int | None) -> bool:
        """Whether it is one chain whose queries do not all see all keys before them, or have some elsewhere."""
        if self.chains > 1 or self.alone:
            return False
        return bool(self.depth) or (window is not None and self.size > window)

    def take(self, other: "_Group") -> bool:
        """Add the chain behind, where both are trees of one token, or small; return whether it was."""
        size = self.size + other.size
        fits = size * (self.depth + size) <= SMALL and not (self.depth and not other.depth)
        if self.alone != other.alone or not (self.alone or fits):
            return False
        self.size, self.chains = size, self.chains + 1
        return True


def _groups(chains: Iterator[_Group], window: int | None) -> Iterator[_Group]:
    group = next(chains)
    for chain in chains:
        if not group.take(chain):
            yield _near(group, window)
            group = chain
    yield _near(group, window)


def _near(group: _Group, window: int | None) -> _Group:
    """Leave out of what is above a group what no window reaches."""
    if window is None or group.depth < window or group.chains > 1:
        return group
    far = group.depth - window + 1
    group.above, group.depth = _last(group.above, far), window - 1
    return group


def _last(runs: Sequence[Run], drop: int) -> list[Run]:
    found = []
    for start, stop in runs:
        if stop - start > drop:
            found.append((start + drop, stop))
        drop = max(0, drop - (stop - start))
    return found


def _chains(depths: Sequence[int]) -> Iterator[_Group]:
    """Yield the chains of a sequence, each with what is above it."""
    starts = [place for place, depth in enumerate(depths) if not place or depth != depths[place - 1] + 1]
    path: list[Run] = []
    for start, stop in zip(starts, [*starts[1:], len(depths)], strict=True):
        depth = depths[start]
        path = _first(path, depth)
        # A tree's first chain goes down to a leaf, so one of a single token is the whole tree.
        yield _Group(start, stop - start, depth, list(path), alone=not depth and stop - start == 1)
        path.append((start, stop))


def _first(runs: Sequence[Run], keep: int) -> list[Run]:
    found = []
    for start, stop in runs:
        if keep > 0:
            found.append((start, min(stop, start + keep)))
        keep -= stop - start
    return found


def _mask(spans: Tensor, group: _Group, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return the mask of several chains: their queries, for what is above the first and for their own."""
    own = range(group.start, group.start + group.size)
    places = [place for run in group.above for place in range(*run)]
    query, key = (torch.tensor([*some], device=spans.device) for some in (own, [*places, *own]))
    ends, depths = spans
    visible = (key[None] <= query[:, None]) & (query[:, None] < ends[key][None])
    if window is not None:
        visible &= depths[query][:, None] - depths[key][None] < window
    return torch.zeros(visible.shape, dtype=dtype, device=spans.device).masked_fill_(~visible, -torch.inf)


def _corner(rows: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the mask of the last ``rows`` queries of a chain of ``keys`` tokens."""
    seen = torch.ones(rows, keys, dtype=torch.bool, device=device).tril(keys - rows)
    if window is not None:
        seen = seen.triu(keys - rows - window + 1)
    return torch.zeros(rows, keys, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
