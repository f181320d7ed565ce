"""What is known of an objective, beside the code that trains it: where it is from, what it does, what it becomes.

Formulas are text in a small language, so that tests can evaluate them and hold them against the code: no formula
that is shown is unchecked. Its names:

- ``a, b``: summed log-probability of chosen and rejected under the policy; ``a0, b0``: under the reference;
- ``n_w, n_l``: their lengths in tokens; ``h_w = a - a0, h_l = b - b0``; ``D = h_w - h_l``; ``m = a - b``;
- ``a_bar = a / n_w``, ``b_bar = b / n_l``, ``h_w_bar``, ``h_l_bar``, ``D_bar = h_w_bar - h_l_bar``;
- ``q_w, q_l``: scores of the completions from the data; settings by their own names;
- ``k``: what a negative log-likelihood is divided by: 1, ``n_w`` or the batch's mean ``n_w``, as setting ``nll`` says;
- ``sigma, log_sigma, exp, log, log1mexp, relu``, ``step(x)`` (1 where x > 0, else 0), ``batch_mean(x)``,
  ``same_rank(x, y)``: for each x, the y of the same rank in the batch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Checked = Literal["source", "TRL 1.16", "derived", "reconstructed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What an objective becomes under certain settings.

    Attributes:
        says: in words, "is DPO at gamma = 0".
        at: settings of the objective.
        of: name of the other objective.
        settings: its settings.
        scale: the objective's loss is this many times the other's.
        gradient_only: whether only gradients agree (losses differ by a constant).
        within: largest relative difference where the settings only come near the limit.
        pairs: pairs in a batch for which it holds; None for any.
        tokens: length of completions for which it holds; None for any.
    """

    says: str
    at: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    of: str
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    scale: float = 1.0
    gradient_only: bool = False
    within: float = 1e-10
    pairs: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of an objective.

    Attributes:
        title: its name in words.
        loss: the loss of a pair, to be minimised.
        d_w: how hard the loss pulls the chosen log-probability up: minus its derivative by ``a``.
        d_l: how hard it pushes the rejected one down: its derivative by ``b``.
        source: authors, year, arXiv number, equation.
        checked: how the formula was established: ``source`` (read in the paper or its authors' code), ``TRL 1.16``
            (equal to what that trains), ``derived`` (from what the paper states), or ``reconstructed`` (from memory).
        does: what it is known to do to the two log-probabilities, and why.
        where: short names that the formulas use, each with its own formula, in order.
        departs: where this implementation departs from the source; empty for nowhere.
        limits: what it becomes under certain settings.
        diverges: where the formula has no finite value or gradient, and which bound is used there; empty for nowhere.
        examples: settings, beside the defaults, under which tests compare formula and code.
        per_token: whether ``d_w`` and ``d_l`` are by the log-probability of one token, ``logp``, and not of a sequence.
    """

    title: str
    loss: str
    d_w: str
    d_l: str
    source: str
    checked: Checked
    does: str
    where: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    departs: str = ""
    limits: tuple[Limit, ...] = ()
    diverges: str = ""
    examples: tuple[Mapping[str, Any], ...] = ()
    per_token: bool = False


_SIGNS: tuple[tuple[str, str], ...] = (
    (r"\blog_sigma\b", "log σ"),
    (r"\bsigma\b", "σ"),
    (r"\blog1mexp\(([^()]*)\)", r"log(1 − e^\1)"),
    (r"\bh_([wl])_bar\b", r"h̄_\1"),
    (r"\ba_bar\b", "ā"),
    (r"\bb_bar\b", "b̄"),
    (r"\bD_bar\b", "Δ̄"),
    (r"\bD\b", "Δ"),
    (r"\bstep\(([^()]*) - ([^()]*)\)", r"1[\1 > \2]"),
    (r"\bstep\(([^()]*)\)", r"1[\1 > 0]"),
    (r"\bbeta\b", "β"),
    (r"\bgamma\b", "γ"),
    (r"\balpha\b", "α"),
    (r"\btau\b", "τ"),
    (r"\bdelta\b", "δ"),
    (r"\blam\b", "λ"),
    (r"\blabel_smoothing\b", "ε"),
    (r"\*\*2\b", "²"),
    (r"\*", "·"),
    (r"(?<=[\w)\]̄²]) - |(?<=[\w)\]̄²])-(?=[\w(])", " − "),
)


def pretty(formula: str) -> str:
    """Return a formula in the signs of papers.

    Examples:
        >>> pretty("-log_sigma(beta*(a_bar - b_bar) - gamma)")
        '-log σ(β·(ā − b̄) − γ)'
        >>> pretty("step(delta - m)")
        '1[δ > m]'
    """
    for pattern, sign in _SIGNS:
        formula = re.sub(pattern, sign, formula)
    return formula
