"""Log-probabilities on disk: found by content, shard by shard, by other processes, and refused where they are not."""

import pickle

import numpy as np
import pytest
import torch

from align.data.logp_store import LogpStore, MissingSequencesError, kept_table, keys_of

ONE, TWO, THREE = ([1, 2], [3]), ([1], [2, 3]), ([4], [5, 6, 7])


def numbers(*sequences):
    return [np.arange(len(completion), dtype=np.float32) - sum(completion) for _, completion in sequences]


def test_what_is_written_is_found(tmp_path):
    store = LogpStore(tmp_path / "new")
    assert len(store) == 0
    assert store.missing([ONE, TWO, ONE, THREE]) == [0, 1, 3]
    store.add([ONE, THREE], numbers(ONE, THREE))
    assert len(store) == 0  # until it looks
    store.reload()
    assert store.missing([ONE, TWO, THREE]) == [1]
    store.add([TWO], numbers(TWO))
    store.reload()
    asked = [TWO, THREE, ONE, THREE]
    for found, expected in zip(store.get(asked), numbers(*asked), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_key_knows_where_the_completion_begins():
    assert len(set(keys_of([ONE, TWO, ([1, 2, 3], []), THREE]).tolist())) == 4


def test_a_table_is_padded_with_nan(tmp_path):
    store = LogpStore(tmp_path)
    store.add([ONE, THREE], numbers(ONE, THREE))
    store.reload()
    table = store.padded([THREE, ONE])
    assert table.shape == (2, 3)
    assert table[1].isnan().tolist() == [False, True, True]


def test_what_is_not_there(tmp_path):
    store = LogpStore(tmp_path)
    with pytest.raises(MissingSequencesError, match="1 of 1 sequences"):
        store.get([ONE])
    with pytest.raises(ValueError, match=r"give the rows to the trainer as a data set, or set speed"):
        kept_table(store, [ONE])


def test_a_shard_without_its_keys_is_none(tmp_path):
    store = LogpStore(tmp_path)
    store.add([ONE], numbers(ONE))
    next(tmp_path.glob("*.keys.npy")).unlink()  # as if the process had been killed before it came to them
    store.reload()
    assert store.missing([ONE]) == [0]


def test_processes_that_load_batches_open_it_themselves(tmp_path):
    store = LogpStore(tmp_path)
    store.add([ONE], numbers(ONE))
    copied = pickle.loads(pickle.dumps(store))
    assert not copied.missing([ONE])


def test_two_writers_and_forgetting(tmp_path):
    one, other = LogpStore(tmp_path), LogpStore(tmp_path)
    one.add([ONE], numbers(ONE))
    other.add([ONE, TWO], numbers(ONE, TWO))
    one.reload()
    assert torch.equal(one.padded([ONE]), torch.tensor([[-3.0]]))
    one.drop()
    assert one.missing([ONE, TWO]) == [0, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(tmp_path, value):
    store = LogpStore(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        store.add([ONE, THREE], [*numbers(ONE), np.array([0.0, value, 0.0], dtype=np.float32)])
    store.reload()
    assert len(store) == 0
