"""``align data preview`` of pictures."""

import json

import numpy as np
from PIL import Image

from align.cli.data_pictures import is_pictures
from align.cli.main import main


def test_a_set_by_name_and_by_the_recipe_that_uses_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "preview", "coloured_digits"]) == 0
    out = capsys.readouterr().out
    assert "red zero" in out
    assert "14 x 14, 3 channels" in out
    assert (tmp_path / "coloured_digits.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["data", "preview", "contrastive/clip.yaml"]) == 2  # a file, or what comes with align
    capsys.readouterr()
    assert main(["data", "preview", "digits", "--json", "--picture", "sheet.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"] + found["held out"] == 1797
    assert (tmp_path / found["picture"]).is_file()


def test_rows_of_numbers_are_drawn_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "preview", "housing"]) == 0
    assert "1 x 12, 1 channel" in capsys.readouterr().out
    assert (tmp_path / "housing.png").is_file()


def test_ones_own_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "dogs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((9, 12, 3), 20 * i, dtype=np.uint8)).save(tmp_path / "mine" / name / f"{i}.png")
    assert is_pictures("mine")
    assert main(["data", "preview", "mine"]) == 0
    assert "cats, dogs" in capsys.readouterr().out
    (tmp_path / "mine.png").write_bytes(b"somebody's")
    assert main(["data", "preview", "mine"]) == 2
    assert (tmp_path / "mine.png").read_bytes() == b"somebody's"


def test_a_folder_that_datasets_saved(tmp_path, capsys, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    pictures = [Image.fromarray(np.full((9, 9, 3), 20 * i, dtype=np.uint8)) for i in range(10)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [i % 2 for i in range(10)]}, features=features)
    rows.save_to_disk("one")
    datasets.DatasetDict(train=rows, test=rows).save_to_disk("split")
    rows.rename_column("label", "chosen").save_to_disk("preferences")
    capsys.readouterr()
    for name, count in (("one", 8), ("split", 10)):
        assert is_pictures(name)
        assert main(["data", "preview", name]) == 0
        out = capsys.readouterr().out
        assert "cat, dog" in out
        assert out.split("train:")[1].split()[0] == str(count)
    assert not is_pictures("preferences")


def test_what_is_no_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "r.yaml").write_text("model: {path: x}\n")
    assert not any(is_pictures(name) for name in ("rows.jsonl", "folder", "r.yaml", "someone/set"))
