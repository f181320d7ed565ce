from align.recipe.foreign import handbook, trl


def test_its_own_keys_are_none_of_trls():
    assert not handbook.TABLE.keys() & trl.TABLE.keys()
    assert {"dataset_mixer", "dataset_mixture", "dataset_splits"} <= handbook.TABLE.keys()
    assert all(answer.says or answer.to for answer in handbook.TABLE.values())
