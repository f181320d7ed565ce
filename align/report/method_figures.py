"""What a method of the wings says of itself while it trains: its own evaluations' figures over steps."""

from matplotlib.axes import Axes

from align.report.look import COLOURS, RUN_COLOURS, stroke
from align.report.run_record import RunRecord
from align.report.series import Rows, is_number, series

MOST = 7
"""More figures than this share no panel."""


def figure_keys(run: RunRecord) -> list[str]:
    """Return the keys of the figures that a method's evaluations logged, the first :data:`MOST` by name."""
    if not run.method:
        return []
    found = {key for row in run.rows for key, value in row.items() if key.startswith("eval_") and is_number(value)}
    return sorted(found)[:MOST]


def draw_figures(axes: Axes, rows: Rows, keys: list[str]) -> None:
    """Draw each figure over steps."""
    for place, key in enumerate(keys):
        name = key.removeprefix("eval_").replace("_", " ")
        stroke(axes, series(rows, key), name, COLOURS[RUN_COLOURS[place]], marker="o", markersize=3)
