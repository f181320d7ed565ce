"""Trees of tokens against rows by themselves: every token is there, sees its own row's past and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data.prefix_tree import common, tree_size
from align.data.prefix_tree import lay_out as keys_of
from align.models.layout import Layout


def lay_out(*args, **options):
    return Layout.of(keys_of(*args, **options), "")


TOKEN = st.integers(0, 2)
"""Few tokens, so that rows begin alike, and some are the beginning of others, or equal."""
ROWS = st.lists(st.tuples(st.lists(TOKEN, min_size=2, max_size=7), st.integers(0, 2)), min_size=1, max_size=7)


def visible(layout, sequence, query):
    """Return the tokens that a position sees, in order."""
    ends = layout.spans[sequence, 0, 0]
    return [int(layout.input_ids[sequence, key]) for key in range(query + 1) if query < ends[key]]


@settings(max_examples=200, deadline=None)
@given(ROWS, st.sampled_from([None, 2, 9, 30]), st.sampled_from([1, 8]))
def test_what_predicts_a_token_sees_its_row_up_to_there(drawn, budget, multiple):
    rows, groups = [row for row, _ in drawn], [group for _, group in drawn]
    starts = [1 + len(row) // 3 for row in rows]
    layout = lay_out(rows, starts, groups, budget=budget, multiple=multiple, pad_token_id=7)
    width = layout.input_ids.shape[1]
    assert width % multiple == 0
    for row, start, edges, scored in zip(rows, starts, layout.edges, layout.scored, strict=True):
        own = edges[scored]
        assert layout.targets[own].tolist() == row[start:]
        for place, number in enumerate(own.tolist(), start):
            parent, position = int(layout.parents[number]), int(layout.places[number])
            assert visible(layout, parent // width, parent % width) == row[:place]
            assert visible(layout, position // width, position % width) == row[: place + 1]
            assert int(layout.position_ids.flatten()[position]) == place
    unique = {(group, tuple(row[: i + 1])) for row, group in drawn for i in range(len(row))}
    assert int(layout.real.sum()) == len(unique)
    assert len(set(layout.places.tolist())) == len(layout.places)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_the_same_rows_are_laid_out_alike(drawn):
    rows, groups = [row for row, _ in drawn], [group for _, group in drawn]
    layouts = [lay_out(rows, [1] * len(rows), groups, budget=9) for _ in range(2)]
    for name in ("input_ids", "spans", "parents", "edges"):
        assert torch.equal(*(getattr(layout, name) for layout in layouts))
    apart = sum(tree_size([row for row, g in drawn if g == group]) for group in set(groups))
    assert int(layouts[0].real.sum()) == apart


def test_sequences_hold_no_more_than_the_budget():
    rows = [[1, 2, i, 3, 4] for i in range(10, 20)]
    layout = lay_out(rows, [2] * 10, range(10), budget=11)
    assert layout.input_ids.shape == (5, 10)
    assert bool(layout.real.all())
    one = lay_out(rows, [2] * 10, range(10), budget=3)  # a row that is longer than the budget is one by itself
    assert one.input_ids.shape == (10, 5)


def test_padding_sees_itself_and_is_seen_by_nobody():
    layout = lay_out([[1, 2, 3]], [1], [0], multiple=8)
    ends = layout.spans[0, 0, 0].tolist()
    assert ends == [3, 3, 3, 4, 5, 6, 7, 8]
    assert layout.spans[0, 0, 1].tolist() == [0, 1, 2, 0, 0, 0, 0, 0]


def test_a_batch_holds_no_other_layout():
    assert Layout.of(keys_of([[1, 2]], [1], [0]), "other_") is None


@pytest.mark.parametrize(
    ("one", "other", "shared"), [([1, 2], [1, 2], 2), ([1], [1, 2], 1), ([3], [1], 0), ([], [1], 0)]
)
def test_common_beginnings(one, other, shared):
    assert common(one, other) == shared
