"""Rewards and lengths of samples before and after, as histograms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from align.report.look import BLUE, GREY, VERMILLION

MODELS = (("base", GREY), ("aligned", BLUE))


def has_rewards(summary: Mapping[str, Any]) -> bool:
    """Return whether a summary of samples has what :func:`draw_rewards` shows."""
    scores, reward = summary.get("scores"), summary.get("reward")
    if not isinstance(scores, Mapping) or not isinstance(reward, Mapping):
        return False
    return all(scores.get(model) and reward.get(model) for model, _ in MODELS)


def draw_rewards(figure: Figure, summary: Mapping[str, Any]) -> list[Axes]:
    """Draw the rewards of the base above those of the aligned model, with mean and interval, on a common scale."""
    axes = draw_histograms(figure, summary["scores"], "reward of a completion")
    for ax, (model, _) in zip(axes, MODELS, strict=True):
        mean = summary["reward"][model]
        ax.axvspan(mean["low"], mean["high"], color=VERMILLION, alpha=0.25, linewidth=0)
        ax.axvline(mean["value"], color=VERMILLION, linewidth=1.8)
        ax.set_title(f"{model}: mean {in_words(mean, '+.2f')}", loc="left", fontsize="medium")
    return axes


def draw_histograms(figure: Figure, values: Mapping[str, Sequence[float]], label: str) -> list[Axes]:
    """Draw two histograms of the same bins, one above the other.

    Args:
        figure: to draw on.
        values: of ``base`` and of ``aligned``.
        label: of the horizontal axis.
    """
    axes: list[Axes] = list(figure.subplots(2, 1, sharex=True, sharey=True))
    edges = _edges([*values["base"], *values["aligned"]])
    for ax, (model, colour) in zip(axes, MODELS, strict=True):
        ax.hist(values[model], bins=edges.tolist(), color=colour, alpha=0.65, linewidth=0, rwidth=0.92)
        ax.set_title(f"{model}: mean {np.mean(values[model]):.2f}", loc="left", fontsize="medium")
        ax.set_ylabel("completions")
    axes[-1].set_xlabel(label)
    return axes


def in_words(interval: Mapping[str, float], form: str) -> str:
    """Return an estimate and its interval.

    Examples:
        >>> in_words({"value": 0.5, "low": 0.41, "high": 0.62}, "+.1f")
        '+0.5 [+0.4, +0.6]'
    """
    return f"{interval['value']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"


def gain_in_words(summary: Mapping[str, Any]) -> str:
    """Return what alignment gained and cost, in two lines."""
    level = f"{summary['confidence']:.0%}"
    first = f"Reward {in_words(summary['reward']['difference'], '+.2f')} after alignment ({level} intervals)"
    return f"{first}\nwin rate {in_words(summary['win_rate'], '.2f')}, KL {in_words(summary['kl'], '.1f')} nats"


def _edges(values: Sequence[float]) -> NDArray[np.float64]:
    """Return 24 bins over all values, or one a whole number where that is fewer."""
    whole = np.all(np.mod(values, 1) == 0) and 0 < max(values) - min(values) < 24
    if whole:
        return np.arange(min(values) - 0.5, max(values) + 1)
    return np.histogram_bin_edges(values, bins=24)
