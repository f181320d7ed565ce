import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from align.wings.gallery import Gallery, Rows


def gallery(labels=(0, 1, 0, 1, 1, 0), classes=("a", "b")):
    n = len(labels)
    return Gallery(
        images=torch.arange(float(n))[:, None, None, None].expand(n, 1, 2, 2),
        labels=torch.tensor(labels),
        classes=classes,
        captions=tuple(f"picture {i}" for i in range(n)),
        more={"number": torch.arange(n)},
    )


def numbers(of):
    """Which pictures these are, the same by every column."""
    found = of.more["number"].tolist()
    assert of.images[:, 0, 0, 0].tolist() == found
    assert of.captions == tuple(f"picture {i}" for i in found)
    return found


def test_columns_of_other_lengths_are_named():
    images = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ValueError, match=r"3 images need as many of everything else, got \{'labels': 2, 'other': 4\}"):
        Gallery(images=images, labels=torch.zeros(2), classes=("a",), more={"other": torch.zeros(4)})
    with pytest.raises(ValueError, match="'captions': 1"):
        Gallery(images=images, labels=torch.zeros(3), classes=("a",), captions=("one",))


@pytest.mark.parametrize("rows", [[4, 0, 4], torch.tensor([4, 0, 4])])
def test_taking_keeps_the_order_and_all_that_belongs_together(rows):
    found = gallery().take(rows)
    assert numbers(found) == [4, 0, 4]
    assert found.labels.tolist() == [1, 0, 1]
    assert found.classes == ("a", "b")
    assert len(gallery().take([])) == 0


def test_pictures_without_captions_have_none_when_taken():
    bare = Gallery(images=torch.zeros(3, 1, 2, 2), labels=torch.zeros(3, dtype=torch.long), classes=("a",))
    assert bare.take([1]).captions == ()


def test_so_many_of_each_class():
    whole = gallery(labels=[0, 1] * 20)
    found = whole.per_class(3, seed=0)
    assert found.labels.bincount().tolist() == [3, 3]
    assert numbers(found) == sorted(numbers(found))
    assert numbers(found) == numbers(whole.per_class(3, seed=0)) != numbers(whole.per_class(3, seed=1))
    assert numbers(gallery().per_class(3, seed=0)) == list(range(6))
    with pytest.raises(ValueError, match="class 'a' has 3 pictures, and 4 are asked for"):
        gallery().per_class(4, seed=0)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.floats(0, 1), st.integers(0, 5))
def test_a_split_shares_out_every_class(labels, share, seed):
    whole = gallery(labels=labels, classes=("a", "b", "c"))
    kept, apart = whole.split(share, seed)
    assert sorted(numbers(kept) + numbers(apart)) == list(range(len(labels)))
    for label in range(3):
        assert int((apart.labels == label).sum()) == round(share * labels.count(label))
    assert numbers(apart) == numbers(whole.split(share, seed)[1])


def test_rows_are_columns_with_their_number():
    rows = Rows(images=torch.arange(6.0).view(3, 2), labels=torch.tensor([5, 6, 7]))
    assert len(rows) == 3
    assert {name: value.tolist() for name, value in rows[1].items()} == {"images": [2, 3], "labels": 6, "index": 1}
    (batch,) = DataLoader(rows, batch_size=3, sampler=[2, 0])
    assert batch["index"].tolist() == [2, 0]
    assert batch["labels"].tolist() == [7, 5]


def test_rows_of_unequal_columns_are_refused():
    with pytest.raises(ValueError, match=r"columns must be equally long, got \{'a': 2, 'b': 3\}"):
        Rows(a=torch.zeros(2), b=torch.zeros(3))
