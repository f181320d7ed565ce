"""A claim's picture: every figure of its relations, a dot a run, arms beside each other."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from align.report.look import COLOURS, RUN_COLOURS, base_line, look
from align.wings.claim import Claim
from align.wings.verdict import interval

MOST = 4
"""Panels of a picture."""


def picture_of(result: Mapping[str, Any], claim: Claim) -> Figure:
    """Draw a result: means with 95 % intervals, dots of single seeds, and the level an ``at_least`` asks for."""
    names = list(dict.fromkeys(relation.figure for relation in claim.relations))[:MOST]
    with look(9):
        figure = Figure(figsize=(3.0 * len(names) + 0.6, 3.4), dpi=110, layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), place + 1)
            drawn = [arm for arm in result["arms"] if name in result["arms"][arm]]
            for spot, arm in enumerate(drawn):
                values = result["arms"][arm][name]
                colour = COLOURS[RUN_COLOURS[list(result["arms"]).index(arm) % len(RUN_COLOURS)]]
                mean, low, high = interval(values)
                axes.errorbar(
                    spot, mean, [[mean - low], [high - mean]], fmt="_", color=colour, capsize=4, markersize=14
                )
                axes.scatter([spot + 0.18] * len(values), values, s=12, color=colour, alpha=0.6)
            axes.set_xticks(range(len(drawn)), [arm.replace("_", " ") for arm in drawn], rotation=30, ha="right")
            axes.set_xlim(-0.5, len(drawn) - 0.3)
            axes.set_title(name.replace("_", " "), fontsize=9)
            for relation in claim.relations:
                levels = (relation.at_least, relation.at_most)
                for level in levels if relation.figure == name else ():
                    if level is not None:
                        base_line(axes, level)
        figure.suptitle(f"{result['name']}: {result['verdict']} ({len(result['seeds'])} seeds)", fontsize=10)
    return figure
