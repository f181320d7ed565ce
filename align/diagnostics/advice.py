"""Words for a run whose log-probabilities go the wrong way, and what would help."""

from collections.abc import Mapping

PREFIX = "entanglement/"
MOST = 0.5
"""Share of pairs from which on a run goes a way."""
HOLDS_UP = "objective dpop, or a list with {name: sft, weight: 0.2}, holds the chosen up"
LETS_FALL = "a smaller weight of an anchor (sft) lets the rejected fall"


def wrong_way(logs: Mapping[str, float], remedy: str | None = None) -> str | None:
    """Return a warning, or None where most pairs go the right way or nothing was measured.

    What is recommended depends on where the fault lies: in a pair's own step (then another ratio of its two pulls
    helps, which ``disentangle: normalise`` sets), or in what the other pairs and the optimiser add to it (then it does
    not).

    Args:
        logs: means over the pairs measured since the last log entry, as in ``metrics.jsonl``.
        remedy: the method of ``disentangle`` that is on, which is not recommended again.

    Examples:
        >>> found = {"share_both_down": 0.81, "norm_ratio": 1.4, "cosine": 0.86, "ratio": 1.0, "share_both_up": 0.0}
        >>> wrong_way({PREFIX + name: value for name, value in found.items()}).partition('. ')[0]
        'both log-probabilities are pulled down in 81 % of pairs: s_l is 1.4 x s_w and the cosine 0.86, so that the \
chosen rises only where d_w/d_l is above 1.20; it is 1.00'
    """
    own = {name.removeprefix(PREFIX): value for name, value in logs.items() if name.startswith(PREFIX)}
    stepped = own.get("step_share_both_down") is not None
    share = "step_share_" if stepped else "share_"
    shares = {case: own.get(f"{share}{case}", 0.0) for case in ("both_down", "both_up", "reversed")}
    case = max(shares, key=lambda name: shares[name])
    if shares[case] < MOST:
        return None
    done = "moved" if stepped else "pulled"
    percent = f"{100 * shares[case]:.0f} % of pairs"
    if case == "reversed":
        return (
            f"the chosen is {done} down and the rejected up in {percent}: the margin shrinks. Where a regression like "
            "ipo is past its target, that is what it asks for; else lower the learning rate"
        )
    why, alone = _why(own, down=case == "both_down")
    way = "down" if case == "both_down" else "up"
    return f"both log-probabilities are {done} {way} in {percent}{why}. {_helps(alone, remedy, down=way == 'down')}"


def _why(own: Mapping[str, float], *, down: bool) -> tuple[str, bool]:
    """Return the condition in numbers, and whether it holds: then the pair's own step is not at fault."""
    norms, cosine, ratio = (own.get(name) for name in ("norm_ratio", "cosine", "ratio"))
    if norms is None or cosine is None or cosine <= 0:
        return "", cosine is not None
    edge = cosine * norms if down else norms / cosine
    side, turn, where = ("chosen", "rises", "above") if down else ("rejected", "falls", "below")
    why = f": s_l is {norms:.1f} x s_w and the cosine {cosine:.2f}, so that the {side} {turn} only where d_w/d_l is "
    why += f"{where} {edge:.2f}"
    if ratio is None:
        return why, False
    return f"{why}; it is {ratio:.2f}", ratio > edge if down else ratio < edge


def _helps(alone: bool, remedy: str | None, *, down: bool) -> str:
    anchor = HOLDS_UP if down else LETS_FALL
    side = "the chosen would rise" if down else "the rejected would fall"
    if alone:
        return (
            f"By its own step {side} in the mean pair: the other pairs of the batch and the optimiser's momentum "
            f"decide, and larger batches or a smaller learning rate are what to try; {anchor}"
        )
    if remedy is not None:
        return f"disentangle: {remedy} is on and does not bring the mean pair there; {anchor}"
    return f"disentangle: normalise brings each pair's own step to where {side}; {anchor}"
