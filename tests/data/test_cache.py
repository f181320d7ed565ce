from pathlib import Path

import pytest

from align.data import cache
from align.data.cache import cache_root, key_of, tokenizer_state, written_whole


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("ALIGN_CACHE")
    assert cache_root() == Path.home() / ".cache" / "align"


def test_a_key_is_of_values_not_of_order(monkeypatch: pytest.MonkeyPatch):
    key = key_of({"a": 1, "b": [2]})
    assert key == key_of({"b": [2], "a": 1})
    assert len(key) == 64
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert key_of({"a": 1, "b": [2]}) != key


def test_a_tokenizers_state_is_not_changed_by_using_it(chatml):
    before = tokenizer_state(chatml)
    chatml(["a", "bc"], padding="max_length", truncation=True, max_length=8)
    assert tokenizer_state(chatml) == before


def test_a_tokenizers_state_changes_with_what_it_does(chatml, llama):
    before = tokenizer_state(llama)
    llama.backend_tokenizer.post_processor = None
    assert tokenizer_state(llama) != before
    assert tokenizer_state(chatml)["rules"] != before["rules"]
    before = tokenizer_state(chatml)
    chatml.add_tokens(["<new>"])
    assert tokenizer_state(chatml) != before


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path):
    file = tmp_path / "deep" / "a.txt"

    def fail() -> None:
        with written_whole(file) as partial:
            partial.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        fail()
    assert list(file.parent.iterdir()) == []
    with written_whole(file) as partial:
        partial.write_text("whole")
    assert [f.read_text() for f in file.parent.iterdir()] == ["whole"]
