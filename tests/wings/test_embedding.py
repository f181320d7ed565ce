import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from align.wings import embedding
from align.wings.embedding import embed_pictures, embed_texts, pooled, preparation, some


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


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    return tmp_path


def test_pictures_are_normalised_as_the_model_says(vit, folder, tmp_path_factory):
    import shutil

    half = embed_pictures(str(vit), folder, rows=8, pool="mean")
    own = tmp_path_factory.mktemp("own") / "vit"
    shutil.copytree(vit, own)

    def said(**words):
        (own / "preprocessor_config.json").write_text(json.dumps(words))
        return embed_pictures(str(own), folder, rows=8, pool="mean")

    torch.testing.assert_close(said(image_mean=[0.5] * 3, image_std=[0.5] * 3), half)
    other = said(image_mean=[0.48, 0.45, 0.4], image_std=[0.27, 0.26, 0.27])
    assert (other - half).abs().max() > 1e-3
    raw = said(image_mean=[0.48, 0.45, 0.4], image_std=[0.27, 0.26, 0.27], do_normalize=False)
    torch.testing.assert_close(raw, said(image_mean=[0.0], image_std=[1.0]))
    assert preparation(str(vit)) == {}


def test_a_convolutional_network_is_embedded_by_its_places(folder, tmp_path_factory):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    model = tmp_path_factory.mktemp("resnet")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(model)
    with pytest.raises(ValueError, match="no image_size, and no size in preprocessor_config"):
        embed_pictures(str(model), folder, rows=8, pool="mean")
    (model / "preprocessor_config.json").write_text('{"crop_size": {"height": 32, "width": 32}}')
    found = embed_pictures(str(model), folder, rows=8, pool="mean")
    assert found.shape == (8, 16)
    assert torch.linalg.matrix_rank(found) > 1


def test_pictures_are_as_large_as_the_model_prepares_them_and_grey_for_a_grey_model(folder, tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    model = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(num_channels=1, **sizes)).save_pretrained(model)
    said = {"crop_size": {"height": 14, "width": 14}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (model / "preprocessor_config.json").write_text(json.dumps(said))
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        forward = Dinov2Model.forward
        patched.setattr(
            Dinov2Model,
            "forward",
            lambda self, pixel_values, **more: seen.append(pixel_values.shape) or forward(self, pixel_values, **more),
        )
        assert embed_pictures(str(model), folder, rows=8, pool="mean").shape == (8, 16)
    assert {shape[1:] for shape in seen} == {(1, 14, 14)}


@pytest.mark.parametrize(
    ("prepared", "size"),
    [
        ({"crop_size": 224, "size": {"shortest_edge": 256}}, 224),
        ({"crop_size": {"height": 289, "width": 289}, "do_center_crop": False, "size": {"height": 600}}, 600),
        ({"size": {"longest_edge": 2048}}, 512),
        ({"size": [384, 384]}, 384),
        ({}, 512),
    ],
)
def test_sizes_as_processors_say_them(prepared, size):
    assert embedding._size(SimpleNamespace(image_size=512), prepared) == size
    assert embedding._size(SimpleNamespace(), {"size": {"longest_edge": 2048}}) is None


def test_rows_are_chosen_by_chance_and_always_the_same():
    chosen = some(100, 10)
    assert chosen == some(100, 10) == sorted(set(chosen))
    assert max(chosen) > 50  # not the first ones
    assert some(5, 10) == [0, 1, 2, 3, 4]


def test_what_is_no_vision_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no vision model that transformers can read"):
        embed_pictures(str(tmp_path / "none"), tmp_path, rows=8, pool="mean")
