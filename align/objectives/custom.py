"""A user's own objective: a function or a settings class in a Python file that a recipe names."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from align.objectives.base import Objective
from align.objectives.logps import PairLogps
from align.objectives.registry import build_settings, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionObjective(Objective):
    """The loss ``function(policy, reference, **settings)`` or, reference-free, ``function(policy, **settings)``.

    Attributes:
        function: takes :class:`~align.objectives.logps.PairLogps` and returns the loss of each pair, shape
            ``(pairs,)``. Whether it has a parameter called ``reference`` decides whether a reference is loaded.
        settings: keyword arguments of every call.
    """

    function: Callable[..., Tensor]
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.function).parameters
        if "policy" not in parameters:
            raise ValueError(f"{self.name} must take 'policy' first, and 'reference' if it compares with one")
        known = [name for name in parameters if name not in ("policy", "reference")]
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for key, value in self.settings.items():
            if key not in known and not takes_any:
                raise ValueError(f"{self.name} has no setting {key!r}" + did_you_mean(key, known))
            default = parameters[key].default if key in parameters else None
            if isinstance(default, float) and not isinstance(value, int | float):
                raise ValueError(f"{key} must be a number, as its default {default} is; got {value!r}")

    @property
    def name(self) -> str:
        """What the function is called."""
        return getattr(self.function, "__name__", repr(self.function))

    @property
    def own_name(self) -> str:
        """The same."""
        return self.name

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Whether the function has a parameter called ``reference``."""
        return "reference" in inspect.signature(self.function).parameters

    @property
    def reward_scale(self) -> float:
        """The function's ``beta``, if it has one: among the settings or as its default; else 1."""
        parameter = inspect.signature(self.function).parameters.get("beta")
        beta = self.settings.get("beta", parameter.default if parameter else 1.0)
        return float(beta) if isinstance(beta, int | float) else 1.0

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Call the function.

        Raises:
            ValueError: if it returns anything but one loss for each pair.
        """
        arguments = {"reference": reference} if self.needs_reference else {}
        losses: Any = self.function(policy, **arguments, **self.settings)
        if not isinstance(losses, Tensor) or losses.shape != policy.chosen.shape:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"{self.name} must return one loss for each pair, shape {tuple(policy.chosen.shape)}; got {shape}"
            )
        return losses


def load_objective(file: str | Path, name: str, settings: Mapping[str, Any]) -> Objective:
    """Make an objective from ``name`` in a Python file: a function, or a dataclass on ``Objective``.

    Raises:
        ValueError: if the file or the name is missing, the file fails to run, or a setting is unknown.
    """
    module = load_python_file(file)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{file} defines no {name!r}" + did_you_mean(name, public))
    target: Any = getattr(module, name)
    if _is_settings_class(target):
        return build_settings(target, settings, owner=f"{name!r} of {file}")  # type: ignore[no-any-return]
    if inspect.isfunction(target):
        return FunctionObjective(function=target, settings=MappingProxyType(dict(settings)))
    raise ValueError(f"{name!r} of {file} is neither a function nor a dataclass on align.Objective or its kinds")


def _is_settings_class(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, Objective) and is_dataclass(target)


def load_python_file(file: str | Path) -> ModuleType:
    """Import a Python file by its path, once.

    Raises:
        ValueError: if it does not exist or raises while it is imported.
    """
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"no Python file {path} (relative paths start at the folder the command is run in)")
    key = f"align_user_{path.stem}_{abs(hash(path)):x}"
    if key in sys.modules:
        return sys.modules[key]
    spec = spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[key]
        raise ValueError(f"{path} failed while it was imported: {type(error).__name__}: {error}") from error
    return module
