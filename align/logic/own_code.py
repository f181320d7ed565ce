"""A user's own loss in a Python file, taken apart by running it on symbols."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from align.logic.decompile import POINTS, Decompiled, decompile, inputs, of_loss, of_score
from align.logic.expression import kind_of
from align.logic.trace import Symbol, TraceError
from align.objectives.base import Objective
from align.objectives.custom import load_objective, load_python_file


def decompile_function(path: Path, name: str, settings: Mapping[str, Any]) -> Decompiled:
    """Return what a function, or a class of an objective, in a Python file means.

    A function takes ``policy`` (and ``reference``), as one that a recipe names does; or the log-probabilities
    themselves, in the order chosen, rejected, and those of the reference, as tensors.

    Raises:
        ValueError: if there is no such file or function, it takes something else, or its code cannot be traced.
    """
    target = getattr(load_python_file(path), name, None)
    if inspect.isfunction(target) and "policy" not in inspect.signature(target).parameters:
        return _of_tensors(target, settings, f"{path}:{name}")
    objective: Objective = load_objective(path, name, settings)
    return decompile(objective)


def _of_tensors(function: Callable[..., Any], settings: Mapping[str, Any], where: str) -> Decompiled:
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = [name for name in needed if name not in settings]
    unknown = [key for key in settings if key not in {p.name for p in parameters}]
    if unknown:
        raise ValueError(f"{where} has no setting {unknown[0]!r}")
    if len(needed) not in (2, 4):
        raise ValueError(
            f"{where} takes {len(needed)} arguments ({', '.join(needed)}); the two sides' log-probabilities are 2, "
            "with the reference's 4; a setting needs a default, or a value here: KEY=VALUE"
        )
    found = []
    for point in POINTS:
        policy, reference = inputs(point, reference=True)
        assert reference is not None
        given = (policy.chosen, policy.rejected, reference.chosen, reference.rejected)
        try:
            made = function(*given[: len(needed)], **settings)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"{where} failed: {type(error).__name__}: {error}") from error
        if not isinstance(made, Symbol) or made.numel() != 1:
            raise ValueError(f"{where} must return one number for each pair, from its log-probabilities; got {made!r}")
        found.append(made.expressions.flatten()[0])
    if any(expression != found[0] and (expression - found[0]).simplify() != 0 for expression in found):
        raise TraceError(f"{where} branches on its values; write the branch with relu, clamp or max")
    return of_loss(found[0]) if kind_of(found[0]) == "loss" else of_score(found[0])
