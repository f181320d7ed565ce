"""A layout read from a batch, and cut to the last token of each row."""

from align.data.prefix_tree import lay_out
from align.models.layout import Layout


def test_keys_that_begin_with_a_prefix():
    batch = {f"some_{name}": tensor for name, tensor in lay_out([[1, 2, 3], [1, 4]], [1, 1], [0, 0]).items()}
    found = Layout.of(batch, "some_")
    assert found is not None
    assert found.targets.tolist() == [2, 3, 4]
    assert Layout.of(batch, "other_") is None


def test_the_last_token_alone():
    layout = Layout.of(lay_out([[1, 2, 3, 4], [1, 2, 5]], [2, 2], [0, 0]), "").last()
    assert layout.targets[layout.edges[:, 0]].tolist() == [4, 5]
    assert layout.scored.tolist() == [[True], [True]]
