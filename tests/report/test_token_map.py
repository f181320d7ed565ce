import numpy as np
import pytest

from align.report.token_map import draw_token_map, visible


def test_a_map_is_drawn_with_its_tokens(tmp_path):
    cosines = np.array([[1.0, -0.5], [0.2, 0.0], [0.0, 0.9]])
    files = draw_token_map(
        cosines, [" good", "day", "\n"], [" bad", "day"], "row 3", [tmp_path / "a.png", tmp_path / "a.svg"]
    )
    assert all(file.stat().st_size > 1000 for file in files)
    drawn = (tmp_path / "a.svg").read_text()
    assert "align report" in drawn
    draw_token_map(cosines, ["a", "b", "c"], ["d", "e"], "row 3", [tmp_path / "a.svg"])


def test_files_of_others_stay(tmp_path):
    (tmp_path / "a.svg").write_text("mine")
    with pytest.raises(ValueError, match="was not made by align report"):
        draw_token_map(np.zeros((1, 1)), ["a"], ["b"], "", [tmp_path / "a.svg"])


def test_long_tokens_are_cut():
    assert visible("internationalisation") == "internationali"[:13] + "…"
