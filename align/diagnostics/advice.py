"""Words for a run whose log-probabilities go the wrong way, and what would help."""

from collections.abc import Mapping

PREFIX = "entanglement/"
MOST = 0.5
"""Share of pairs from which on a run goes a way."""


def wrong_way(logs: Mapping[str, float]) -> str | None:
    """Return a warning, or None where most pairs go the right way or nothing was measured.

    Args:
        logs: means over the pairs measured since the last log entry, as in ``metrics.jsonl``.

    Examples:
        >>> found = {"share_both_down": 0.81, "norm_ratio": 1.4, "cosine": 0.86, "ratio": 1.0, "share_both_up": 0.0}
        >>> wrong_way({PREFIX + name: value for name, value in found.items()}).partition('. ')[0]
        'both log-probabilities are pulled down in 81 % of pairs: s_l is 1.4 x s_w and the cosine 0.86, so that the \
chosen rises only where d_w/d_l is above 1.20; it is 1.00'
    """
    own = {name.removeprefix(PREFIX): value for name, value in logs.items() if name.startswith(PREFIX)}
    stepped = own.get("step_share_both_down") is not None
    share = "step_share_" if stepped else "share_"
    down, up = own.get(f"{share}both_down", 0.0), own.get(f"{share}both_up", 0.0)
    if max(down, up) < MOST:
        return None
    norms, cosine, ratio = (own.get(name) for name in ("norm_ratio", "cosine", "ratio"))
    if down >= up:
        return _both_down(down, norms, cosine, ratio, stepped=stepped)
    return _both_up(up, norms, cosine, ratio, stepped=stepped)


def _both_down(share: float, norms: float | None, cosine: float | None, ratio: float | None, *, stepped: bool) -> str:
    helps = (
        "disentangle: normalise brings every pair to where the chosen rises; objective dpop, or a list with "
        "{name: sft, weight: 0.2}, holds the chosen up"
    )
    why = ""
    if norms is not None and cosine is not None and cosine > 0:
        why = (
            f": s_l is {norms:.1f} x s_w and the cosine {cosine:.2f}, so that the chosen rises only where d_w/d_l is "
            f"above {cosine * norms:.2f}"
        )
        why += "" if ratio is None else f"; it is {ratio:.2f}"
        if ratio is not None and ratio > cosine * norms:
            why += ". On the pair alone it would rise: momentum and the other pairs of the batch pull it down"
    return (
        f"both log-probabilities are {_pulled(stepped)} down in {share:.0%} of pairs".replace("%", " %")
        + f"{why}. {helps}"
    )


def _both_up(share: float, norms: float | None, cosine: float | None, ratio: float | None, *, stepped: bool) -> str:
    helps = (
        "disentangle: normalise brings every pair to where the rejected falls; a smaller weight of an anchor (sft) "
        "lets it fall"
    )
    why = ""
    if norms is not None and cosine is not None and cosine > 0:
        why = (
            f": s_l is {norms:.1f} x s_w and the cosine {cosine:.2f}, so that the rejected falls only where d_w/d_l is "
            f"below {norms / cosine:.2f}"
        )
        why += "" if ratio is None else f"; it is {ratio:.2f}"
    return (
        f"both log-probabilities are {_pulled(stepped)} up in {share:.0%} of pairs".replace("%", " %")
        + f"{why}. {helps}"
    )


def _pulled(stepped: bool) -> str:
    return "moved" if stepped else "pulled"
