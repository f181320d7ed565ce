"""What a loss means: a registered objective, a user's own or an expression, as preference structures.

An objective is read by running its own ``score`` (or, where it has none, its ``losses``) on symbols: there is no second
copy of any formula. The settings' values are those of the objective that is given.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy
import torch

from align.logic.loss_terms import Term, terms_of
from align.logic.model_count import NoModelCountError, Reading, read_likelihood, read_score
from align.logic.symbols import relu, spelled, stop_gradient, symbol
from align.logic.trace import Symbol, TraceError
from align.objectives.base import Objective, PairObjective, TokenObjective
from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps, TokenLogps


@dataclass(frozen=True, slots=True)
class Part:
    """One term of a loss.

    Attributes:
        role: ``core``, what the objective compares; ``added``, a regulariser beside it; ``term``, one of several.
        link: name of the link.
        decreasing: whether a larger score always costs less; None where that is not known.
        weight: what the link is multiplied by, as text.
        reading: what the score counts; None where it counts nothing.
        refusal: why it counts nothing; empty where it does.
        case: the case in which it is read so; empty for always.
        text: the score as text.
        smoothing: share of labels that the link takes to be wrong, as text; empty for none.
    """

    role: str
    link: str
    decreasing: bool | None
    weight: str
    reading: Reading | None
    refusal: str
    case: str
    text: str
    smoothing: str = ""


@dataclass(frozen=True, slots=True)
class Decompiled:
    """A loss taken apart.

    Attributes:
        parts: its terms, the core first.
        stripped: what was taken off before, in words.
    """

    parts: tuple[Part, ...]
    stripped: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """``structure``, one core that counts; ``sum``, several terms that do; ``cases``; or ``refused``."""
        cores = [part for part in self.parts if part.role != "added"]
        read = [part for part in cores if part.reading is not None]
        if not read:
            return "refused"
        if any(part.case for part in cores):
            return "cases"
        return "structure" if len(cores) == 1 else "sum"

    @property
    def core(self) -> Part:
        """The part that comes first."""
        return self.parts[0]


# ---- objectives ------------------------------------------------------------------------------------------------------

POINTS = (
    (0.30, 0.20, 0.25, 0.15),
    (0.60, 0.80, 0.70, 0.55),
    (0.20, 0.70, 0.65, 0.30),
    (0.85, 0.35, 0.40, 0.75),
    (math.exp(-40), math.exp(-38), math.exp(-39), math.exp(-41)),
    (0.9999, 0.5, 0.9998, 0.6),
    (0.9, 0.9 * math.exp(-8), 0.9 * math.exp(-4), 0.9 * math.exp(-4)),
    (0.9 * math.exp(-8), 0.9, 0.9 * math.exp(-4), 0.9 * math.exp(-4)),
)
"""Probabilities of chosen and rejected under policy and reference at which losses are traced. Between them every
comparison that a score makes, with at most a few nats, comes out both ways, so that code that branches shows itself."""


def decompile(objective: Objective) -> Decompiled:
    """Return what an objective means.

    Raises:
        TraceError: if its code does something that no expression is known for.
    """
    stripped = list(_weighing(objective))
    if isinstance(objective, PairObjective):
        cores = read_terms([_core(objective, _traced(lambda pairs: objective.score(*pairs), objective))])
        cores = [replace(part, decreasing=_decreases(objective)) for part in cores]
        added = _traced(lambda pairs: _regulariser(objective, pairs), objective)
        others = [replace(part, role="added") for part in read_terms(terms_of(added))] if added != 0 else []
        return Decompiled((*cores, *others), (*stripped, *map(_said, others)))
    if isinstance(objective, TokenObjective):
        stripped.append("it reads single tokens; what is read here is completions of one token")
    if objective.couples_pairs:
        stripped.append("it couples the pairs of a batch; what is read here is a batch of one pair")
    return of_loss(_traced(lambda pairs: _losses(objective, pairs), objective), stripped)


def of_loss(loss: sympy.Expr, stripped: Sequence[str] = ()) -> Decompiled:
    """Return what a loss means, given as an expression of probabilities."""
    parts = read_terms(terms_of(loss))
    if len(parts) > 1:
        parts = [replace(part, role="term") for part in parts]
    return Decompiled(tuple(parts), tuple(stripped))


def of_score(score: sympy.Expr) -> Decompiled:
    """Return what a score means, whose link is not given: it is taken to be logistic."""
    return Decompiled(tuple(read_terms([Term("logistic", sympy.Integer(1), score)])))


def read_terms(terms: Sequence[Term]) -> list[Part]:
    """Return each term as the part of a loss that it is."""
    return [part for term in terms for single in _singly(term) for part in _read(single)]


def _singly(term: Term) -> list[Term]:
    """Return a term that is linear in log-probabilities as several, where it counts nothing as one."""
    pieces = sympy.Add.make_args(term.score)
    if term.link != "linear" or len(pieces) == 1 or _likelihood(term.score) is not None:
        return [term]
    several = [replace(term, score=piece) for piece in pieces]
    return several if all(_likelihood(one.score) is not None for one in several) else [term]


def _read(term: Term) -> Iterator[Part]:
    for case, score in [("", term.score)] if term.link == "other" else _cases(term.score):
        yield _part(term, score, case)


def _part(term: Term, score: sympy.Expr, case: str) -> Part:
    reading, refusal, link = None, "", term.link
    try:
        if score.has(stop_gradient):
            raise NoModelCountError(f"a part of it has no gradient: {spelled(score)}")
        if link == "other":
            raise NoModelCountError(f"it is no link of a score: {spelled(term.score)}")
        if link == "linear" and (likelihood := _likelihood(score)) is not None:
            reading, link = likelihood, "logistic"
        else:
            reading = read_score(score)
    except NoModelCountError as error:
        refusal = str(error)
    except (TypeError, ArithmeticError, sympy.PolynomialError) as error:
        refusal = f"{spelled(score)} cannot be read: {error}"
    decreasing = True if link == "logistic" else term.decreasing
    share = "" if term.smoothing is None else spelled(term.smoothing)
    return Part("core", link, decreasing, spelled(term.weight), reading, refusal, case, spelled(score), share)


def _likelihood(score: sympy.Expr) -> Reading | None:
    """Return a loss that is linear in log-probabilities as the negative log-likelihood that it may be."""
    try:
        return read_likelihood(score)
    except NoModelCountError:
        return None


def _cases(score: sympy.Expr) -> list[tuple[str, sympy.Expr]]:
    """Return the score without its relus, in each case that they may be in."""
    bends = sorted(score.atoms(relu), key=str)
    if not bends:
        return [("", score)]
    if len(bends) > 1:
        return [("", score)]  # refused below: it is no log-ratio
    inner = bends[0].args[0]
    off, on = score.xreplace({bends[0]: sympy.Integer(0)}), score.xreplace({bends[0]: inner})
    return [(f"where {spelled(inner)} < 0", off), (f"where {spelled(inner)} > 0", on)]


# ---- running the code -----------------------------------------------------------------------------------------------


def _traced(run: Callable[[tuple[PairLogps, PairLogps | None]], Any], objective: Objective) -> sympy.Expr:
    """Return the expression of what ``run`` computes, which must be one at all points.

    Raises:
        TraceError: if the code takes different branches that are not the same expression.
    """
    found: list[sympy.Expr] = []
    for point in POINTS:
        made = run(inputs(point, reference=objective.needs_reference))
        expression = made.expressions.flatten()[0] if isinstance(made, Symbol) else sympy.sympify(_number(made))
        if not any(expression == other or sympy.simplify(expression - other) == 0 for other in found):
            found.append(expression)
    if len(found) > 1:
        listed = "; ".join(spelled(expression) for expression in found)
        raise TraceError(f"the code branches on its values: {listed}")
    return found[0]


def _number(made: Any) -> float:
    return 0.0 if made is None else float(made.flatten()[0])


def inputs(point: Sequence[float], *, reference: bool) -> tuple[PairLogps, PairLogps | None]:
    """Return a batch of one pair whose log-probabilities are symbols with the values of ``point``."""
    w, l, ref_w, ref_l = point  # noqa: E741
    lengths: dict[str, Any] = {"chosen_lengths": _whole("n_w", 3), "rejected_lengths": _whole("n_l", 4)}
    prompt = SequenceLogps(logps=_value("log_prompt", -2.0), lengths=_whole("n_prompt", 5))
    policy = PairLogps(
        chosen=_logps("w", w),
        rejected=_logps("l", l),
        chosen_scores=_value("q_w", 0.9),
        rejected_scores=_value("q_l", 0.2),
        prompt=prompt,
        baseline=_value("z", 0.1, shape=()),
        **lengths,
    )
    other = PairLogps(chosen=_logps("ref_w", ref_w), rejected=_logps("ref_l", ref_l), **lengths)
    return policy, other if reference else None


def _symbol(expression: sympy.Expr, value: float, dtype: torch.dtype, shape: tuple[int, ...]) -> Symbol:
    expressions = np.empty(shape, dtype=object)
    expressions[...] = expression
    return Symbol.of(torch.full(shape, value, dtype=dtype), expressions)


def _logps(name: str, probability: float, shape: tuple[int, ...] = (1,)) -> Symbol:
    return _symbol(sympy.log(symbol(name)), math.log(probability), torch.float64, shape)


def _value(name: str, value: float, shape: tuple[int, ...] = (1,)) -> Symbol:
    return _symbol(symbol(name), value, torch.float64, shape)


def _whole(name: str, value: int) -> Symbol:
    return _symbol(symbol(name), value, torch.int64, (1,))


def _losses(objective: Objective, pairs: tuple[PairLogps, PairLogps | None]) -> Any:
    policy, reference = pairs
    if isinstance(objective, TokenObjective):
        return objective.of_tokens(_tokens(policy), None if reference is None else _tokens(reference))
    return objective.losses(policy, reference)


def _tokens(pairs: PairLogps) -> PairTokenLogps:
    """Return completions of one token, whose log-probabilities are those of the sequences."""
    mask = torch.ones(1, 1, dtype=torch.bool)
    chosen, rejected = (TokenLogps(logp=side[:, None], mask=mask) for side in (pairs.chosen, pairs.rejected))
    return PairTokenLogps(chosen=chosen, rejected=rejected)


def _regulariser(objective: PairObjective, pairs: tuple[PairLogps, PairLogps | None]) -> Any:
    return objective.regulariser(*pairs)


def _core(objective: PairObjective, score: sympy.Expr) -> Term:
    """Return what the objective compares, under its link; one that has no name is called the objective's own."""
    made: Any = objective.link(_value("w", 0.3))  # w stands for the score: terms are looked for by letters
    letter = symbol("w")
    terms = terms_of(made.expressions.flatten()[0].xreplace({letter: sympy.log(letter)}))
    if len(terms) != 1 or terms[0].link == "other":
        return Term("its own", sympy.Integer(1), score)
    return replace(terms[0], score=terms[0].score.xreplace({sympy.log(letter): score}))


def _decreases(objective: PairObjective) -> bool:
    """Whether the objective's link falls, or stays, as the score grows: on a grid from -300 to 300 nats."""
    losses = objective.link(torch.linspace(-300.0, 300.0, 60_001, dtype=torch.float64))
    return bool((losses.diff() <= 1e-12).all())


# ---- what was taken off ---------------------------------------------------------------------------------------------


def _weighing(objective: Objective) -> Iterator[str]:
    if type(objective).weigh is not Objective.weigh:
        yield "a weighting of tokens: log-probabilities are sums in which tokens do not all count alike"
    if type(objective).of_tokens is not Objective.of_tokens and isinstance(objective, PairObjective):
        yield "a weight of the pair, without gradient, from its tokens"


def facts(part: Part) -> list[str]:
    """Return what was taken off a part before its score was read, in words."""
    share = f", a share of {part.smoothing} of labels taken to be wrong" if part.smoothing else ""
    found = [f"link: {part.link}{share}" + (f", times {part.weight}" if part.weight != "1" else "")]
    if part.reading is None:
        return found
    if part.reading.scale != 1:
        found.append(f"scale (beta): {spelled(part.reading.scale)}")
    if part.reading.margin != 0:
        found.append(f"margin: {spelled(part.reading.margin)}")
    return [*found, *part.reading.notes]


def _said(part: Part) -> str:
    weight = "" if part.weight == "1" else f"{part.weight} times "
    return f"regulariser: {weight}" + (f"-({part.text})" if part.link != "squared" else f"({part.text})^2")
