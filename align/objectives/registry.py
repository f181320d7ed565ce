"""Objectives by name. One place: a decorator on the settings class, and its module in ``HOMES``."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from align.objectives.base import Objective
from align.objectives.cards import Card

T = TypeVar("T")
P = TypeVar("P", bound=Objective)

HOMES = tuple(
    f"align.objectives.{module}"
    for module in (
        *("dpo", "log_ratio", "noisy", "dpo_variants", "token_weighted"),
        *("two_sided", "transport", "kto", "reference_free", "odds", "simper", "likelihood", "negatives", "blends"),
        *("dispreference",),
    )
)
"""Modules that register objectives; a new objective adds its line here."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or the known words where none is near.

    Examples:
        >>> did_you_mean("betta", ["beta", "name"])
        "; did you mean 'beta'?"
        >>> did_you_mean("q", ["beta"])
        '; known: beta'
    """
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"


class Registry(Mapping[str, type[Objective]]):
    """Objective classes by name; aliases find the same class. Filled from ``HOMES`` at the first look-up."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Objective]] = {}
        self._aliases: dict[str, str] = {}
        self._cards: dict[str, Card] = {}

    def register(self, name: str, card: Card, *, aliases: tuple[str, ...] = ()) -> Callable[[type[P]], type[P]]:
        """Return a decorator that enters a frozen dataclass of settings under ``name``.

        Args:
            name: the paper's own, lower case with underscores.
            card: what is known of it.
            aliases: names that other projects use for the very same loss.

        Raises:
            ValueError: if a name or an alias is taken, or the class is no frozen dataclass.
        """

        def enter(cls: type[P]) -> type[P]:
            taken = ({name, *aliases} & self._classes.keys()) | ({name, *aliases} & self._aliases.keys())
            if taken:
                raise ValueError(f"objective name {sorted(taken)[0]!r} is taken")
            _check_settings_class(cls)
            self._classes[name] = cls
            self._aliases.update(dict.fromkeys(aliases, name))
            self._cards[name] = card
            return cls

        return enter

    def build(self, name: str, **settings: Any) -> Objective:
        """Make the objective ``name`` with ``settings``.

        Raises:
            ValueError: for an unknown name or setting (with the nearest known one), or a value out of range.
        """
        self.resolve(name)
        return build_settings(self[name], settings, owner=f"objective {name!r}")

    def card(self, name: str) -> Card:
        """Return what is known of the objective ``name`` or of an alias of it.

        Raises:
            ValueError: for an unknown name.
        """
        return self._cards[self.resolve(name)]

    def aliases(self, name: str) -> list[str]:
        """Return the aliases of the objective ``name``."""
        self._fill()
        return [alias for alias, of in self._aliases.items() if of == name]

    def resolve(self, name: str) -> str:
        """Return the name that an alias stands for, or the name itself.

        Raises:
            ValueError: for an unknown name, with the nearest known one.
        """
        if name not in self:
            raise ValueError(f"unknown objective {name!r}" + did_you_mean(name, [*self, *self._aliases]))
        return self._aliases.get(name, name)

    def name_of(self, objective: Objective) -> str:
        """Return the registered name of an objective's class, or the class's own name."""
        self._fill()
        return next((n for n, cls in self._classes.items() if type(objective) is cls), type(objective).__name__)

    def _fill(self) -> None:
        for home in HOMES:
            import_module(home)

    def __getitem__(self, name: str) -> type[Objective]:
        self._fill()
        return self._classes[self._aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(self._classes)

    def __len__(self) -> int:
        self._fill()
        return len(self._classes)


def _check_settings_class(cls: type[Any]) -> None:
    if not is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"{cls.__name__} must be a frozen dataclass of its settings")


def build_settings(cls: type[T], settings: Mapping[str, Any], *, owner: str) -> T:
    """Make ``cls(**settings)``, refusing settings it does not have.

    Raises:
        ValueError: naming the setting and the nearest one that exists.
    """
    known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]
    for key in settings:
        if key not in known:
            raise ValueError(f"{owner} has no setting {key!r}" + did_you_mean(key, known))
    return cls(**settings)


OBJECTIVES = Registry()
"""Every objective that ``objective: {name: ...}`` of a recipe can name."""
