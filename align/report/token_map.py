"""A picture of the token by token map of one pair: chosen tokens down, rejected tokens across."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from align.report.look import INK, MADE_BY, PIXELS_PER_INCH, look, save
from align.report.overwriting import refuse_to_overwrite

MOST_LETTERS = 14
"""Of a token on an axis."""


def draw_token_map(
    cosines: NDArray[np.float64], chosen: Sequence[str], rejected: Sequence[str], title: str, paths: Sequence[Path]
) -> list[Path]:
    """Draw the map into files and return them.

    Args:
        cosines: of chosen by rejected tokens, from -1 to 1.
        chosen: the chosen tokens as text.
        rejected: the rejected ones.
        title: above the picture.
        paths: by their endings.

    Raises:
        ValueError: a file is in the way that this did not write.
    """
    for path in paths:
        refuse_to_overwrite(path, MADE_BY)
    rows, columns = cosines.shape
    with look(9):
        figure = Figure(figsize=(2.6 + 0.30 * columns, 1.9 + 0.26 * rows), dpi=PIXELS_PER_INCH, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        shown = axes.pcolormesh(cosines, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=0.3)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_xticks(np.arange(columns) + 0.5, [visible(token) for token in rejected], rotation=90)
        axes.set_yticks(np.arange(rows) + 0.5, [visible(token) for token in chosen])
        axes.set_xlabel("rejected token")
        axes.set_ylabel("chosen token")
        axes.tick_params(length=0, colors=INK)
        figure.colorbar(shown, ax=axes, label="cosine of the tokens' gradients", shrink=0.8)
        axes.set_title(title, loc="left", fontsize=10)
        return save(figure, list(paths))


def visible(token: str) -> str:
    r"""Return a token as it can be read on an axis: spaces and line ends shown, long ones cut.

    Examples:
        >>> visible(" warm"), visible("a\n")
        ('·warm', 'a↵')
    """
    text = token.replace("\n", "↵").replace("\t", "→")
    text = "·" + text[1:] if text.startswith(" ") else text
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"
