"""Running a loss's own code on symbols: what it computes is written down while it computes.

A :class:`Symbol` is a tensor with values and, for each, the sympy expression that the value is. Operations on it go
through ``__torch_function__``: those of :data:`ELEMENTWISE` and a few that move elements are written down; comparisons
give plain values, so that branches are taken as the values say; anything else that would make a number of a symbol is
refused by name. Code that is traced is run, never evaluated from text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from align.logic.symbols import logsigmoid, number, probabilities, relu, sigmoid, stop_gradient

FAR = -20.0
"""A relu of less than this is taken for a guard: the probabilities that losses are traced at are moderate."""

Expressions = np.ndarray[Any, Any]


class TraceError(ValueError):
    """The code does something that no expression is known for."""


class Symbol(Tensor):
    """A tensor that knows the expression of each of its values.

    Attributes:
        expressions: array of sympy expressions, of the tensor's shape.
    """

    expressions: Expressions

    @classmethod
    def of(cls, values: Tensor, expressions: Expressions) -> "Symbol":
        """Return values with their expressions."""
        made = values.detach().clone().as_subclass(cls)
        made.expressions = expressions
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute with the values, and write down what was computed."""
        given = dict(kwargs or {})
        found = func(*tree_map(_value, tuple(args)), **tree_map(_value, given))
        if not _makes_numbers(found):
            return found
        name = _property(func) or getattr(func, "__name__", str(func))
        made = _written(name, found, args, given)
        return made if torch.is_grad_enabled() else tree_map(_without_gradient, made)


def _property(func: Callable[..., Any]) -> str:
    """Return the name of a property that gives numbers; empty for a function."""
    return next((name for name in ("data", "T", "mT") if func == getattr(Tensor, name).__get__), "")


def _without_gradient(made: Any) -> Any:
    return _stopped(_value(made), (made,), {}) if isinstance(made, Symbol) else made


def _makes_numbers(found: Any) -> bool:
    """Whether an operation gave numbers, and not a shape, a type or an answer."""
    parts = found if isinstance(found, tuple) else (found,)
    return any(isinstance(part, Tensor) and part.dtype != torch.bool for part in parts)


def _written(name: str, found: Any, args: Sequence[Any], given: Mapping[str, Any]) -> Any:
    if name in ELEMENTWISE:
        unread = [key for key, value in given.items() if value is not None and key not in READ.get(name, ())]
        if unread:
            return _refuse(name, f" with {', '.join(unread)}")
        operands = [_expressions(part) for part in (*args, *given.values()) if isinstance(part, Tensor | int | float)]
        return Symbol.of(found, _elementwise(ELEMENTWISE[name], operands, found))
    if name in MOVING:
        return MOVING[name](found, args, given)
    if name in INTEGERS:
        return found
    return _refuse(name)


def _value(argument: Any) -> Any:
    return argument.as_subclass(Tensor) if isinstance(argument, Symbol) else argument


def _expressions(argument: Any) -> Any:
    """Return the expressions of a tensor, or of a number."""
    if isinstance(argument, Symbol):
        return argument.expressions
    if isinstance(argument, Tensor):
        return _array([number(value) for value in argument.flatten().tolist()], argument.shape)
    return number(argument)


def _array(items: Sequence[Any], shape: Sequence[int]) -> Expressions:
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made.reshape(tuple(shape))


def _elementwise(rule: Callable[..., sympy.Expr], operands: Sequence[Any], found: Tensor) -> Expressions:
    spread = [np.broadcast_to(np.asarray(operand, dtype=object), tuple(found.shape)) for operand in operands]
    return _array([rule(*items) for items in zip(*(part.flatten() for part in spread), strict=True)], found.shape)


ELEMENTWISE: Mapping[str, Callable[..., sympy.Expr]] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), lambda a, b: a + b),
    **dict.fromkeys(("sub", "subtract", "__sub__"), lambda a, b: a - b),
    **dict.fromkeys(("rsub", "__rsub__"), lambda a, b: b - a),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), lambda a, b: a * b),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__"), lambda a, b: a / b),
    **dict.fromkeys(("__rtruediv__", "__rdiv__"), lambda a, b: b / a),
    **dict.fromkeys(("pow", "__pow__"), lambda a, b: a**b),
    **dict.fromkeys(("neg", "__neg__", "negative"), lambda a: -a),
    **dict.fromkeys(("logsigmoid", "log_sigmoid"), logsigmoid),
    "sigmoid": sigmoid,
    "softplus": lambda a, beta=sympy.S.One, *_: -logsigmoid(-beta * a) / beta,
    "square": lambda a: a**2,
    "sqrt": sympy.sqrt,
    "reciprocal": lambda a: 1 / a,
    "exp": sympy.exp,
    "log": sympy.log,
    "log1p": lambda a: sympy.log(1 + a),
    "expm1": lambda a: sympy.exp(a) - 1,
    "logit": lambda a, *_: sympy.log(a / (1 - a)),
    "logaddexp": lambda a, b: sympy.log(sympy.exp(a) + sympy.exp(b)),
}
"""Functions of numbers, and their expressions."""

READ: Mapping[str, tuple[str, ...]] = {"softplus": ("beta",), "logit": ("eps",)}
"""Arguments by name that are read; with others a function is refused."""

INTEGERS = ("argsort", "argmin", "argmax")
"""Functions that give places, which are not written down."""


def _same(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return Symbol.of(found, _expressions(args[0]).reshape(tuple(found.shape)))


def _stopped(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    kept = [stop_gradient(e) if probabilities(e) else e for e in _expressions(args[0]).flatten()]
    return Symbol.of(found, _array(kept, found.shape))


def _bounded(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    """Write down a clamped number as itself where it was within its bounds; one that is kept at 0 or more as a relu."""
    low, high = ([*args[1:], None, None][place] for place in (0, 1))
    low, high = given.get("min", low), given.get("max", high)
    if low == 0 and high is None:
        return _rectified(found, args, given)
    if low is None and high == 0:
        return _rectified_below(found, args)
    before, expressions = _value(args[0]).flatten().tolist(), _expressions(args[0]).flatten()
    after = found.flatten().tolist()
    kept = [e if x == y else number(y) for e, x, y in zip(expressions, before, after, strict=True)]
    return Symbol.of(found, _array(kept, found.shape))


def _rectified(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    """Write down a relu, and 0 for one far from its bend: a guard against overflow, not part of a formula."""
    before, expressions = _value(args[0]).flatten().tolist(), _expressions(args[0]).flatten()
    kept = [_bent(expression, value) for expression, value in zip(expressions, before, strict=True)]
    return Symbol.of(found, _array(kept, found.shape))


def _rectified_below(found: Tensor, args: Sequence[Any]) -> Symbol:
    """Write down what is kept at 0 or less: minus the relu of its negative."""
    negative = -args[0]
    bent = _rectified(-found, (negative,), {}) if isinstance(negative, Symbol) else _refuse("clamp")
    return Symbol.of(found, -bent.expressions)


def _clamped_above(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return _bounded(found, args[:1], {"min": None, "max": args[1] if len(args) > 1 else given["max"]})


def _bent(expression: sympy.Expr, value: float) -> sympy.Expr:
    if value < FAR:
        return sympy.Integer(0)
    if not probabilities(expression):  # a constant, positive as all letters are
        return expression if value > 0 else sympy.Integer(0)
    return relu(expression)


def _where(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    condition, yes, no = (np.asarray(part, dtype=object) for part in (_plain(args[0]), *map(_expressions, args[1:3])))
    chosen, yes, no = (np.broadcast_to(part, tuple(found.shape)).flatten() for part in (condition, yes, no))
    return Symbol.of(found, _array([y if c else n for c, y, n in zip(chosen, yes, no, strict=True)], found.shape))


def _filled(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return _where(found, (args[1], args[2] if len(args) > 2 else given["value"], args[0]), {})


def _plain(condition: Any) -> Any:
    return _value(condition).detach().numpy()


def _greater(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return _one_of(found, args, "maximum")


def _lesser(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return _one_of(found, args, "minimum")


def _one_of(found: Tensor, args: Sequence[Any], name: str) -> Symbol:
    """Write down the greater or the lesser of two: beside 0, a relu or minus one."""
    if len(args) < 2:
        return _refuse(name, " with arguments by name")  # type: ignore[no-any-return]
    mine, theirs = (_value(part) if isinstance(part, Tensor) else torch.as_tensor(part) for part in args[:2])
    if mine.shape != theirs.shape:
        return _refuse(name, " of different shapes")  # type: ignore[no-any-return]
    for zero, other in (args[:2], args[1::-1]):
        if _is_zero(zero):
            return _rectified(found, (other,), {}) if name == "maximum" else _rectified_below(found, (other,))
    return _where(found, (mine == found, args[0], args[1]), {})


def _is_zero(part: Any) -> bool:
    return isinstance(part, Tensor) and all(e == 0 for e in _expressions(part).flatten())


def _folded(rule: Callable[[Sequence[Any]], sympy.Expr]) -> Callable[..., Symbol]:
    """Return what writes down a sum, a mean or the like over one dimension or all."""

    def written(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
        expressions = _expressions(args[0])
        dimension = args[1] if len(args) > 1 else given.get("dim")
        dimension = dimension[0] if isinstance(dimension, list | tuple) else dimension
        if dimension is None:
            return Symbol.of(found, _array([rule(list(expressions.flatten()))], found.shape))
        rows = np.moveaxis(expressions, dimension, -1).reshape(-1, expressions.shape[dimension])
        return Symbol.of(found, _array([rule(list(row)) for row in rows], found.shape))

    return written


def _stacked(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    dimension = int(args[1] if len(args) > 1 else given.get("dim", 0))
    return Symbol.of(found, np.stack([_expressions(part) for part in args[0]], axis=dimension))


def _joined(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    dimension = int(args[1] if len(args) > 1 else given.get("dim", 0))
    return Symbol.of(found, np.concatenate([_expressions(part) for part in args[0]], axis=dimension))


def _picked(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    places = torch.arange(args[0].numel()).reshape(args[0].shape)[_indices(args[1])]
    return Symbol.of(
        found, _array([_expressions(args[0]).flatten()[i] for i in places.flatten().tolist()], found.shape)
    )


def _indices(given: Any) -> Any:
    return tuple(map(_value, given)) if isinstance(given, tuple) else _value(given)


def _sorted(found: Any, args: Sequence[Any], given: Mapping[str, Any]) -> Any:
    if found.values.dim() != 1:
        return _refuse("sort of more than one dimension")
    chosen = [_expressions(args[0])[place] for place in found.indices.tolist()]
    return torch.return_types.sort((Symbol.of(found.values, _array(chosen, found.values.shape)), found.indices))


def _constant(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return Symbol.of(found, _array([number(value) for value in found.flatten().tolist()], found.shape))


def _turned(found: Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> Symbol:
    return Symbol.of(found, _expressions(args[0]).swapaxes(-1, -2) if found.dim() > 1 else _expressions(args[0]))


def _refuse(name: str, more: str = "") -> Any:
    raise TraceError(f"no expression is known for torch's {name!r}{more}; {KNOWN}")


_ADDED = _folded(lambda row: sum(row, start=sympy.Integer(0)))
MOVING: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("detach", "data"), _stopped),
    **dict.fromkeys(("T", "mT"), _turned),
    **dict.fromkeys(("clone", "contiguous", "to", "float", "double", "type_as", "__get__", "alias"), _same),
    **dict.fromkeys(("view", "reshape", "unsqueeze", "squeeze", "flatten"), _same),
    **dict.fromkeys(("clamp", "clip", "clamp_min"), _bounded),
    "clamp_max": _clamped_above,
    "maximum": _greater,
    "minimum": _lesser,
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _constant),
    **dict.fromkeys(("cat", "concat"), _joined),
    **dict.fromkeys(("relu", "relu_"), _rectified),
    "where": _where,
    "masked_fill": _filled,
    "stack": _stacked,
    "__getitem__": _picked,
    "sort": _sorted,
    "sum": _ADDED,
    "mean": _folded(lambda row: sum(row, start=sympy.Integer(0)) / len(row)),
    "logsumexp": _folded(lambda row: sympy.log(sum(map(sympy.exp, row), start=sympy.Integer(0)))),
}
"""Functions that move, pick, fold or bound elements, and what writes them down."""

KNOWN = "known are " + ", ".join(sorted(name for name in {*ELEMENTWISE, *MOVING} if not name.startswith("_")))
