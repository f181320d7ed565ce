import pytest

from align.report.pair_figures import draw_checkpoints, draw_histograms


def rows(n=30):
    cases = ["ideal", "both_down", "both_up", "reversed"]
    return [{"cosine": i / n, "norm_ratio": 1 + i / n if i else None, "case": cases[i % 4]} for i in range(n)]


def summary(i):
    shares = {"share_ideal": 1 - i / 4, "share_both_down": i / 4, "share_both_up": 0.0, "share_reversed": 0.0}
    return {
        "cosine_mean": i / 4,
        "norm_ratio_mean": 1.2,
        "logps_chosen_mean": -10 - i,
        "logps_rejected_mean": -12.0,
    } | shares


def test_histograms_are_drawn(tmp_path):
    for file in draw_histograms(rows(), "a model", [tmp_path / "a.png", tmp_path / "a.svg"]):
        assert file.stat().st_size > 5000


def test_checkpoints_are_drawn(tmp_path):
    files = draw_checkpoints({f"checkpoint-{i}": summary(i) for i in range(4)}, "four", [tmp_path / "a.svg"])
    assert "align report" in files[0].read_text()[:4096]


def test_files_of_others_stay(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="was not made by align report"):
        draw_histograms(rows(), "", [tmp_path / "a.png"])
    with pytest.raises(ValueError, match="was not made by align report"):
        draw_checkpoints({"a": summary(1)}, "", [tmp_path / "a.png"])
