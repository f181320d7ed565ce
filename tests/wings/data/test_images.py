"""One's own pictures: folders, sets saved by ``datasets``, their columns and splits, and what cannot be read."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from align.wings.data.images import Settings, load


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Folders of other tests, or of the user, are never read back from a cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def picture(level, size=(8, 8)):
    """A picture of (width, height) whose pixels are all of one level."""
    return Image.new("RGB", size, (level, level, level))


def folder_of(root, **counts):
    """A folder with a subfolder a class; the level of a picture says its class and number."""
    for place, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(100 * place + number).save(root / name / f"{number}.png")
    return root


def rows_of(**columns):
    rows = datasets.Dataset.from_dict(columns)
    return rows.cast_column("image", datasets.Image()) if "image" in columns else rows


# ---- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_subfolder_a_class(tmp_path):
    found = load(Settings(path=str(folder_of(tmp_path / "pets", cats=10, dogs=5)), size=4))
    assert found.train.classes == found.test.classes == ("cats", "dogs")
    assert torch.bincount(found.train.labels).tolist() == [8, 4]
    assert torch.bincount(found.test.labels).tolist() == [2, 1]
    assert found.train.images.shape == (12, 3, 4, 4)
    assert found.train.images.dtype == torch.float32
    assert found.train.captions == ()
    levels = torch.cat([found.train.images, found.test.images])[:, 0, 0, 0] * 255
    assert sorted(levels.round().int().tolist()) == [*range(10), *range(100, 105)]  # each once, on one side
    assert (found.train.images[found.train.labels == 1][:, 0, 0, 0] * 255 > 99).all()


def test_what_is_held_out_follows_the_seed(tmp_path):
    path = str(folder_of(tmp_path / "pets", cats=10, dogs=10))
    one, again, other = (load(Settings(path=path, size=4, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.test.images, again.test.images)
    assert not torch.equal(one.test.images, other.test.images)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_folder_with_a_split_of_its_own(tmp_path, split):
    folder_of(tmp_path / "pets" / "train", cats=3, dogs=2)
    folder_of(tmp_path / "pets" / split, cats=1, dogs=1)
    found = load(Settings(path=str(tmp_path / "pets"), size=4))
    assert (len(found.train), len(found.test)) == (5, 2)
    assert found.test.classes == ("cats", "dogs")


def test_a_folder_with_captions(tmp_path):
    root = tmp_path / "told"
    root.mkdir()
    captions = {f"{i}.png": f"level {i}" for i in range(5)}
    for name in captions:
        picture(int(name[0])).save(root / name)
    lines = [json.dumps({"file_name": name, "caption": caption}) for name, caption in captions.items()]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    found = load(Settings(path=str(root), size=4))
    assert found.train.classes == ("all",)
    for gallery in (found.train, found.test):
        levels = (gallery.images[:, 0, 0, 0] * 255).round().int().tolist()
        assert gallery.captions == tuple(f"level {level}" for level in levels)
    assert len(found.test) == 1


def test_the_middle_square_is_cut_out_and_averaged(tmp_path):
    wide = np.zeros((4, 8, 3), dtype=np.uint8)
    wide[:, 2:6] = 200  # the middle square
    wide[:, 2] = 100
    (tmp_path / "wide" / "a").mkdir(parents=True)
    for number in range(5):
        Image.fromarray(wide).save(tmp_path / "wide" / "a" / f"{number}.png")
        Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "wide" / "a" / f"{number}_tall.png")
    image = load(Settings(path=str(tmp_path / "wide"), size=4)).train.images
    expected = torch.tensor([100, 200, 200, 200]) / 255
    turned = torch.stack([expected.expand(4, 4), expected.expand(4, 4).T])
    assert all(any(torch.allclose(one[0], way) for way in turned) for one in image)


def test_sizes_and_grey(tmp_path):
    path = str(folder_of(tmp_path / "pets", cats=5, dogs=5))
    up = load(Settings(path=path, size=20, grey=True)).train.images
    assert up.shape[1:] == (1, 20, 20)
    assert up.min() >= 0
    assert up.max() <= 1
    flat = up.flatten(1)
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat))


# ---- sets of datasets --------------------------------------------------------------------------------------------


def test_a_set_saved_to_disk(tmp_path):
    pictures = [picture(level) for level in range(6)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["low", "high"]))
    rows = {"image": pictures, "label": [0, 0, 0, 1, 1, 1]}
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows, features=features),
        test=datasets.Dataset.from_dict(rows, features=features).select([0, 5]),
    )
    both.save_to_disk(tmp_path / "saved")
    found = load(Settings(path=str(tmp_path / "saved"), size=4))
    assert found.train.classes == ("low", "high")
    assert found.test.labels.tolist() == [0, 1]
    assert (found.train.images[:, 0, 0, 0] * 255).round().int().tolist() == list(range(6))


def test_one_split_saved_alone_with_labels_that_are_texts(tmp_path):
    rows = rows_of(image=[picture(i) for i in range(10)], kind=["owl", "ant"] * 5, said=["x"] * 10)
    rows.save_to_disk(tmp_path / "alone")
    found = load(Settings(path=str(tmp_path / "alone"), size=4, label="kind", caption="said"))
    assert found.train.classes == ("ant", "owl")
    odd = (found.train.images[:, 0, 0, 0] * 255).round().int() % 2
    assert torch.equal(odd.long(), 1 - found.train.labels)  # odd levels are ants
    assert set(found.train.captions) == {"x"}


def test_other_names_of_splits_and_columns(tmp_path):
    rows = rows_of(image=[picture(i) for i in range(4)]).rename_column("image", "scan")
    datasets.DatasetDict(first=rows, last=rows.select([3])).save_to_disk(tmp_path / "named")
    found = load(Settings(path=str(tmp_path / "named"), size=4, image="scan", train_split="first", test_split="last"))
    assert (len(found.train), len(found.test)) == (4, 1)
    assert found.train.classes == ("all",)


# ---- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["image", "label", "caption"])
def test_a_column_that_is_not_there(tmp_path, setting):
    path = str(folder_of(tmp_path / "pets", cats=2, dogs=2))
    with pytest.raises(ValueError, match=r"has no column 'labell'.*label"):
        load(Settings(path=path, **{setting: "labell"}))


def test_a_set_without_a_column_of_pictures(tmp_path):
    rows_of(text=["a", "b"]).save_to_disk(tmp_path / "words")
    with pytest.raises(ValueError, match="has no column 'image'"):
        load(Settings(path=str(tmp_path / "words")))


@pytest.mark.parametrize("setting", ["train_split", "test_split"])
def test_a_split_that_is_not_there(tmp_path, setting):
    path = str(folder_of(tmp_path / "pets", cats=2, dogs=2))
    with pytest.raises(ValueError, match=r"has no split 'trian'.*train"):
        load(Settings(path=path, **{setting: "trian"}))


def test_splits_with_different_classes(tmp_path):
    for split, names in (("train", ["low", "high"]), ("test", ["high", "low"])):
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        rows = datasets.Dataset.from_dict({"image": [picture(1)] * 2, "label": [0, 1]}, features=features)
        rows.save_to_disk(tmp_path / "mixed" / split)
    (tmp_path / "mixed" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(ValueError, match="'train' and 'test' name different classes"):
        load(Settings(path=str(tmp_path / "mixed"), size=4))


def test_a_file_is_no_folder(tmp_path):
    picture(1).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"one\.png is a file; name a folder"):
        load(Settings(path=str(tmp_path / "one.png")))


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing to see")
    with pytest.raises(ValueError, match="holds no pictures that can be read"):
        load(Settings(path=str(tmp_path / "empty")))


@pytest.mark.parametrize("path", ["nowhere", "nobody/nothing", "/nobody/nothing/at/all"])
def test_nothing_of_that_name_here_or_on_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is no folder here, and no data set of the hub"):
        load(Settings(path=path))


@pytest.mark.parametrize(("setting", "value"), [("size", 3), ("test_share", 0.0), ("test_share", 1.0)])
def test_settings_that_cannot_be(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must"):
        Settings(path="pets", **{setting: value})


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_text("no picture")
    with pytest.raises(
        ValueError, match=r"data.path: a file cannot be read as a picture: .*broken.png.*; remove or replace"
    ):
        load(Settings(path=str(tmp_path)))
