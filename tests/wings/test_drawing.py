import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from align.report.look import BLUE, VERMILLION, save
from align.wings.drawing import contact_sheet, embeddings, lines, similarity_histogram


def shown(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_every_picture_in_order(channels, tmp_path):
    images = torch.rand(5, channels, 6, 7)
    figure = contact_sheet(images, [f"picture {i}" for i in range(5)], columns=3, caption="some")
    assert len(figure.axes) == 5
    for axes, pixels, image in zip(figure.axes, shown(figure), images, strict=True):
        np.testing.assert_allclose(
            pixels, image.permute(1, 2, 0).squeeze(2).numpy() if channels == 1 else image.permute(1, 2, 0)
        )
        assert axes.images[0].get_clim() == (0, 1) or channels == 3
    assert [axes.get_title() for axes in figure.axes] == [f"picture {i}" for i in range(5)]
    assert figure.get_suptitle() == "some"
    places = [axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes]
    assert set(places) == {(2, 3)}
    save(figure, [tmp_path / "sheet.png"])
    assert (tmp_path / "sheet.png").stat().st_size


def test_a_contact_sheet_cuts_off_what_is_no_brightness():
    (pixels,) = shown(contact_sheet(torch.tensor([[[[-1.0, 0.5, 2.0], [1.0, 0.0, 0.25]]]])))
    assert pixels.tolist() == [[0, 0.5, 1], [1, 0, 0.25]]


def test_embeddings_are_drawn_on_the_axes_of_largest_variance():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(60, 2, generator=generator) * torch.tensor([5.0, 2.0])
    axes_of = torch.linalg.qr(torch.randn(7, 7, generator=generator)).Q[:, :2]
    labels = torch.arange(60) % 3
    figure = embeddings(flat @ axes_of.T + 4, labels, ("a", "b", "c"), "title")
    (axes,) = figure.axes
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections])
    centred = (flat - flat.mean(0)).double().numpy()[np.argsort(labels.numpy(), kind="stable")]
    np.testing.assert_allclose(drawn.T @ drawn, np.diag(np.linalg.eigvalsh(centred.T @ centred)[::-1]), atol=1e-2)
    assert axes.get_title() == "title (100% of the variance)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]


def test_embeddings_of_many_classes_show_twelve_told_apart():
    labels = torch.arange(60) % 20
    (axes,) = embeddings(torch.randn(60, 4), labels, [str(i) for i in range(20)]).axes
    looks = {
        (to_hex(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes()) for points in axes.collections
    }
    assert len(axes.collections) == len(looks) == 12


def test_a_histogram_of_similarities_is_of_both_kinds():
    figure = similarity_histogram(torch.full((4, 5), 0.81), torch.full((30,), -0.42), "title")
    (axes,) = figure.axes
    found = {}
    for bars, name in zip(axes.containers, ("apart", "together"), strict=True):
        tallest = max(bars.patches, key=lambda bar: bar.get_height())
        found[name] = tallest.get_x(), tallest.get_x() + tallest.get_width(), to_hex(tallest.get_facecolor())
    for name, value, colour in (("together", 0.81, BLUE), ("apart", -0.42, VERMILLION)):
        low, high, drawn = found[name]
        assert low <= value <= high
        assert drawn.lower() == colour.lower()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["apart", "together"]
    assert axes.get_title() == "title"


def test_lines_are_the_points_given():
    curves = {"one": ([1, 10, 100], [3.0, 2.0, 1.0]), "two": ([1, 2], [0.5, 0.25])}
    (axes,) = lines(curves, across="steps", up="loss", title="title", logarithmic="x").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"one": [[1, 3], [10, 2], [100, 1]], "two": [[1, 0.5], [2, 0.25]]}
    assert len({line.get_color() for line in axes.lines}) == 2
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("steps", "loss", "title")
    (axes,) = lines(curves, across="", up="", logarithmic="xy").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
