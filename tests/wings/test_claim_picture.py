from align.wings.claim import Claim, Relation
from align.wings.claim_picture import MOST, picture_of


def claim(*figures):
    relations = [Relation(figure=figure, at_least=0.5) for figure in figures]
    return Claim(says="s", seeds=[1, 2, 3], arms={"new": {}, "old": {}}, relations=relations, untuned="u")


def result(*figures):
    arms = {"new": {figure: [0.6, 0.7, 0.8] for figure in figures}, "old": {figures[0]: [0.1, 0.2, 0.3]}}
    return {"name": "n", "verdict": "holds", "seeds": [1, 2, 3], "arms": arms}


def test_a_panel_a_figure_with_every_seed():
    drawn = picture_of(result("top_one", "other"), claim("top_one", "other"))
    first, second = drawn.axes
    assert first.get_title() == "top one"
    assert [text.get_text() for text in first.get_xticklabels()] == ["new", "old"]
    dots = [one.get_offsets()[:, 1].tolist() for one in first.collections if len(one.get_offsets()) == 3]
    assert dots == [[0.6, 0.7, 0.8], [0.1, 0.2, 0.3]]
    assert [text.get_text() for text in second.get_xticklabels()] == ["new"]  # the other arm has no such figure


def test_no_more_panels_than_fit():
    names = [f"f{i}" for i in range(9)]
    assert len(picture_of(result(*names), claim(*names)).axes) == MOST
