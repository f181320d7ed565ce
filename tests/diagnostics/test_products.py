import pytest
import torch

from align.diagnostics import products
from align.diagnostics.places import Places
from align.diagnostics.products import Columns, Lookup, Outer, Vectors, crossed


def places_of(groups, members, width, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    index = torch.randperm(groups * members * width, generator=drawn).view(groups, members, width)
    lengths = torch.randint(1, width + 1, (groups, members, 1), generator=drawn)
    return Places(index, torch.arange(width) < lengths)


def outer(width=5, inputs=3, outputs=4, *, dtype=torch.float64, transposed=False, seed=0):
    torch.manual_seed(seed)
    total = 2 * 2 * width
    a, g = torch.randn(total, inputs).to(dtype), torch.randn(total, outputs).to(dtype)
    return Outer(a, g, places_of(2, 2, width, seed), transposed)


def matrices(piece):
    """Whole gradients, summed position by position."""
    a, g = piece.places.take(piece.inputs), piece.places.take(piece.slopes)
    whole = torch.einsum("gmtp,gmtd->gmpd", g.double(), a.double())
    return (whole.mT if piece.transposed else whole).flatten(2)


def exact(one, other):
    return one @ other.mT


@pytest.mark.parametrize(("width", "inputs", "outputs"), [(2, 30, 40), (9, 2, 3)])
def test_both_ways_give_the_products_of_whole_matrices(width, inputs, outputs):
    piece = outer(width, inputs, outputs)
    assert piece.whole_is_cheaper is (width == 9)
    torch.testing.assert_close(piece.products(), exact(matrices(piece), matrices(piece)))


def test_groups_at_a_time_make_no_difference(monkeypatch):
    whole = outer().products()
    monkeypatch.setattr(products, "AT_ONCE", 1)
    torch.testing.assert_close(outer().products(), whole)


def test_short_types_are_multiplied_in_float32():
    piece = outer(dtype=torch.bfloat16)
    torch.testing.assert_close(piece.products(), exact(matrices(piece), matrices(piece)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("as_it_is", [False, True])
@pytest.mark.parametrize("width", [2, 9])
def test_along_a_change_also_of_what_was_kept(width, as_it_is, transposed):
    piece = outer(width, transposed=transposed)
    change = torch.randn((3, 4) if transposed else (4, 3)).double()
    expected = matrices(piece) @ change.flatten()
    torch.testing.assert_close(piece.along(change), expected)
    kept = piece.kept(as_it_is=as_it_is)
    assert isinstance(kept, Outer) or not as_it_is
    torch.testing.assert_close(kept.along(change), expected)
    torch.testing.assert_close(kept.products(), piece.products())


def lookup(seed=0):
    torch.manual_seed(seed)
    return Lookup(torch.randint(0, 4, (2, 2, 5)), torch.randn(2, 2, 5, 3).double())


def embedded(piece):
    whole = torch.zeros(2, 2, 4, 3).double()
    for g in range(2):
        for m in range(2):
            whole[g, m].index_add_(0, piece.tokens[g, m], piece.slopes[g, m])
    return whole.flatten(2)


def test_an_embeddings_rows_add_up_by_token():
    piece = lookup()
    torch.testing.assert_close(piece.products(), exact(embedded(piece), embedded(piece)))
    change = torch.randn(4, 3).double()
    torch.testing.assert_close(piece.along(change), embedded(piece) @ change.flatten())


def test_crossed_terms_of_every_two_kinds():
    one, other, head = lookup(0), lookup(1), outer(seed=2)
    torch.testing.assert_close(crossed(one, other), exact(embedded(one), embedded(other)))
    torch.testing.assert_close(crossed(one, head), exact(embedded(one), matrices(head)))
    torch.testing.assert_close(crossed(head, one), exact(matrices(head), embedded(one)))
    torch.testing.assert_close(crossed(head, outer(seed=3)), exact(matrices(head), matrices(outer(seed=3))))
    vectors = [Vectors(torch.randn(2, 2, 6)) for _ in range(2)]
    torch.testing.assert_close(crossed(*vectors), exact(*(v.gradients.double() for v in vectors)))
    with pytest.raises(TypeError, match="no inner product of Vectors and Lookup"):
        crossed(vectors[0], one)


def test_a_heads_columns_are_enough_for_the_embeddings_cross_terms():
    looked, head = lookup(), outer()
    columns = Columns.of(head, looked.tokens)
    torch.testing.assert_close(columns.against(looked), exact(matrices(head), embedded(looked)))


def test_vectors_are_kept_as_they_are():
    piece = Vectors(torch.randn(2, 2, 6))
    assert piece.kept() is piece
    assert lookup().kept().tokens.shape == (2, 2, 5)
