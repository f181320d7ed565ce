"""Rows that begin alike, laid out as trees: every shared token once, trees one behind the other in packed sequences.

The rows of a group (both sides of a pair, or many completions of one prompt) are the leaves of a tree of tokens. A
model that lets each token see its ancestors alone, at positions counted along the branch, computes for every row what
it would compute for the row by itself.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]
PAD_END = 1
"""A padding position is a tree of its own: it sees itself alone."""


def lay_out(
    rows: Sequence[Sequence[int]],
    scored_from: Sequence[int],
    groups: Sequence[Hashable],
    *,
    budget: int | None = None,
    multiple: int = 1,
    pad_token_id: int = 0,
) -> dict[str, Tensor]:
    """Lay rows out, and return what :class:`~align.models.layout.Layout` holds, by name.

    Args:
        rows: tokens of each, at least one.
        scored_from: number of the first token of each row that is scored, at least 1; all behind it are.
        groups: equal for rows that may share tokens; a group of its own shares nothing.
        budget: most tokens of a packed sequence; a tree that is larger is a sequence by itself. None for one sequence.
        multiple: sequences are padded to a multiple of this many tokens.
        pad_token_id: any id.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    trees = [_Tree.of([rows[i] for i in numbers]) for numbers in members.values()]
    offsets, count, width = _packed([len(tree.tokens) for tree in trees], budget, multiple)
    ids = np.full(count * width, pad_token_id)
    depths, real = np.zeros(count * width, dtype=np.int64), np.zeros(count * width, dtype=bool)
    ends = np.tile(np.arange(width) + PAD_END, count)
    paths: list[Numbers] = [np.empty(0, dtype=np.int64)] * len(rows)
    for tree, offset, numbers in zip(trees, offsets, members.values(), strict=True):
        part = slice(offset, offset + len(tree.tokens))
        ids[part], depths[part], ends[part], real[part] = tree.tokens, tree.depths, tree.ends + offset % width, True
        for number, path in zip(numbers, tree.paths, strict=True):
            paths[number] = path + offset
    parents, places, edges, scored = _scored(paths, scored_from)
    shape = (count, width)
    spans = np.stack([ends.reshape(shape), depths.reshape(shape)], 1)[:, None].astype(np.int32)
    return {
        "input_ids": torch.from_numpy(ids.reshape(shape)),
        "position_ids": torch.from_numpy(depths.reshape(shape)),
        "spans": torch.from_numpy(spans),
        "real": torch.from_numpy(real.reshape(shape)),
        "parents": torch.from_numpy(parents),
        "places": torch.from_numpy(places),
        "targets": torch.from_numpy(ids[places]),
        "edges": torch.from_numpy(edges),
        "scored": torch.from_numpy(scored),
    }


def tree_size(rows: Sequence[Sequence[int]]) -> int:
    """Return the tokens of a group of rows when what they begin with in common is there once."""
    ordered = sorted(map(list, rows))
    shared = sum(common(one, other) for one, other in pairwise(ordered))
    return sum(map(len, ordered)) - shared


def common(one: Sequence[int] | Numbers, other: Sequence[int] | Numbers) -> int:
    """Return with how many equal tokens two rows begin."""
    length = min(len(one), len(other))
    differ = np.asarray(one[:length]) != np.asarray(other[:length])
    return int(differ.argmax()) if differ.any() else length


@dataclass(frozen=True, slots=True)
class _Tree:
    """A group's tokens in the order of a walk that goes down a branch before it turns to the next one.

    Attributes:
        tokens: ids.
        depths: tokens above each.
        ends: number behind the last token of each one's subtree.
        paths: of each row, the numbers of its tokens.
    """

    tokens: Numbers
    depths: Numbers
    ends: Numbers
    paths: Sequence[Numbers]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "_Tree":
        order = sorted(range(len(rows)), key=lambda i: list(rows[i]))
        ordered = [np.asarray(rows[i], dtype=np.int64) for i in order]
        shared = [0, *(common(one, other) for one, other in pairwise(ordered)), 0]
        size = sum(map(len, ordered)) - sum(shared)
        tokens, depths, ends = (np.empty(size, dtype=np.int64) for _ in range(3))
        path = np.empty(max(map(len, ordered)), dtype=np.int64)
        paths: list[Any] = [None] * len(rows)
        stop = 0
        for i, row, before, after in zip(order, ordered, shared, shared[1:], strict=False):
            start, stop = stop, stop + len(row) - before
            path[before : len(row)] = np.arange(start, stop)
            tokens[start:stop], depths[start:stop] = row[before:], np.arange(before, len(row))
            ends[path[after : len(row)]] = stop  # of those that the next row does not go through
            paths[i] = path[: len(row)].copy()
        return cls(tokens, depths, ends, paths)


def _packed(sizes: Sequence[int], budget: int | None, multiple: int) -> tuple[list[int], int, int]:
    """Return where each tree starts in the flattened sequences, how many sequences there are, and their width."""
    if budget is None:
        starts = [0, *np.cumsum(sizes).tolist()]
        return starts[:-1], 1, _rounded(starts[-1], multiple)
    filled: list[int] = []
    found = [(0, 0)] * len(sizes)
    for tree in sorted(range(len(sizes)), key=lambda i: -sizes[i]):  # the largest first, each where it first fits
        fits = (s for s, tokens in enumerate(filled) if tokens + sizes[tree] <= budget)
        sequence = next(fits, len(filled))
        if sequence == len(filled):
            filled.append(0)
        found[tree] = sequence, filled[sequence]
        filled[sequence] += sizes[tree]
    width = _rounded(max(filled), multiple)
    return [sequence * width + start for sequence, start in found], len(filled), width


def _rounded(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple


def _scored(paths: Sequence[Numbers], scored_from: Sequence[int]) -> tuple[Numbers, Numbers, Numbers, NDArray[Any]]:
    """Return parents and places of all scored tokens, each once, and which of them are each row's."""
    own = [path[start:] for path, start in zip(paths, scored_from, strict=True)]
    above = [path[start - 1 : -1] for path, start in zip(paths, scored_from, strict=True)]
    places, first, numbers = np.unique(np.concatenate(own), return_index=True, return_inverse=True)
    parents = np.concatenate(above)[first]
    lengths = np.array([len(part) for part in own])
    scored = np.arange(lengths.max(initial=0)) < lengths[:, None]
    edges = np.zeros(scored.shape, dtype=np.int64)
    edges[scored] = numbers.reshape(-1)
    return parents, places, edges, scored
