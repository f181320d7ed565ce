import numpy as np
import pytest
import torch
from PIL import Image

from align.wings.embedding import embed_pictures, embed_texts, pooled


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(folder)
    return folder


def test_pooling_looks_at_real_positions_only():
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pooled(states, mask, "mean").tolist() == [[1.0, 2.0], [9.0, 10.0]]
    assert pooled(states, mask, "last").tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert pooled(states, mask, "first").tolist() == [[0.0, 1.0], [8.0, 9.0]]


def test_texts_are_embedded_a_line_each(model_dir, tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("good day\n\nbad night\nwarm tea\n")
    found = embed_texts(str(model_dir), file, rows=10, pool="mean")
    assert found.shape[0] == 3
    # padding says nothing: alone a text is embedded the same
    file.write_text("good day\ngood day\n")
    torch.testing.assert_close(
        embed_texts(str(model_dir), file, rows=10, pool="mean")[0], found[0], rtol=1e-4, atol=1e-5
    )
    file.write_text("one\n")
    with pytest.raises(ValueError, match="needs at least two lines of text, and has 1"):
        embed_texts(str(model_dir), file, rows=10, pool="mean")


def test_pictures_of_a_folder_are_embedded(vit, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    found = embed_pictures(str(vit), tmp_path, rows=8, pool="mean")
    assert found.shape == (8, 16)
    assert torch.linalg.matrix_rank(found) > 1


def test_what_is_no_vision_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no vision model that transformers can read"):
        embed_pictures(str(tmp_path / "none"), tmp_path, rows=8, pool="mean")
