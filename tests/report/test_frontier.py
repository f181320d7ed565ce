import pytest
from matplotlib.figure import Figure

from align.report.frontier import MARKERS, Outcome, draw_frontier
from align.report.look import BLUE, RUN_COLOURS, VERMILLION


def estimate(value, half):
    return {"value": value, "low": value - half, "high": value + half}


def outcome(objective="dpo", strength="weak", reward=0.5, kl=4.0, **more):
    settings = {"chosen": -3.0, "rejected": -8.0, **more}
    return Outcome(
        objective=objective, strength=strength, reward=estimate(reward, 0.1), kl=estimate(kl, 0.5), **settings
    )


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw, and return the figure."""
    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(*outcomes, base=0.2):
        draw_frontier(outcomes, base, [tmp_path / "a.png"])
        return figures[-1]

    return draw


def points(axes):
    """Return position, colour and marker of every marker drawn."""
    found = [line for line in axes.get_lines() if line.get_marker() not in ("None", "")]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])): line for line in found}


def test_both_files_are_written_and_repeat_byte_by_byte(tmp_path):
    names = [tmp_path / "deep" / "a.png", tmp_path / "deep" / "a.svg"]
    first = [path.read_bytes() for path in draw_frontier([outcome()], 0.2, names)]
    assert first == [path.read_bytes() for path in draw_frontier([outcome()], 0.2, names)]
    assert first[0].startswith(b"\x89PNG")
    assert b"<svg" in first[1][:1000]


def test_a_colour_is_an_objective_and_a_marker_a_strength(drawn):
    figure = drawn(
        outcome(kl=1.0, reward=0.3), outcome(kl=2.0, reward=0.4, strength="strong"), outcome("ipo", kl=3.0, reward=0.5)
    )
    found = points(figure.axes[0])
    assert {at: line.get_color() for at, line in found.items() if at[0]} == {
        (1.0, 0.3): BLUE,
        (2.0, 0.4): BLUE,
        (3.0, 0.5): VERMILLION,
    }
    assert [found[at].get_marker() for at in ((1.0, 0.3), (2.0, 0.4), (3.0, 0.5))] == ["o", "s", "o"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["dpo", "ipo", "weak", "strong", "base model"]


def test_the_base_model_is_at_no_distance_with_its_own_reward(drawn):
    left, right = drawn(outcome(), base=0.25).axes
    assert points(left)[0.0, 0.25].get_marker() == "*"
    assert points(right)[0.0, 0.0].get_marker() == "*"


def test_bars_span_the_intervals(drawn):
    bars = [segment for lines in drawn(outcome()).axes[0].collections for segment in lines.get_segments()]
    assert sorted(segment.tolist() for segment in bars) == [
        [pytest.approx([3.5, 0.5]), pytest.approx([4.5, 0.5])],
        [pytest.approx([4.0, 0.4]), pytest.approx([4.0, 0.6])],
    ]


def test_a_kl_below_zero_is_on_the_picture(drawn):
    assert drawn(outcome(kl=-0.3)).axes[0].get_xlim()[0] <= -0.8


def test_drifts_are_rejected_across_and_chosen_up(drawn):
    right = drawn(outcome(chosen=-3.0, rejected=-8.0)).axes[1]
    assert (-8.0, -3.0) in points(right)
    assert "rejected" in right.get_xlabel()
    assert "chosen" in right.get_ylabel()
    assert [text.get_text() for text in right.texts] == ["both fall"]
    left, low = right.get_xlim()[0], right.get_ylim()[0]
    assert left < -8
    assert low < -3


def test_a_run_whose_drift_is_not_known_is_left_out_there(drawn):
    left, right = drawn(outcome(kl=2.0, chosen=None), outcome(kl=3.0)).axes
    assert len(points(left)) == 3
    assert len(points(right)) == 2
    assert len(points(drawn(outcome(chosen=None, rejected=None)).axes[1])) == 1


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        draw_frontier([], 0.0, [tmp_path / "a.png"])
    for many in (
        [outcome(str(i)) for i in range(len(RUN_COLOURS) + 1)],
        [outcome(strength=str(i)) for i in range(len(MARKERS) + 1)],
    ):
        with pytest.raises(ValueError, match="told apart"):
            draw_frontier(many, 0.0, [tmp_path / "a.png"])
