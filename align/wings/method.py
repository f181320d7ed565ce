"""What a method of the wings is: a class with settings that runs on a workbench, and what is known about it.

A method is one module ``align/<wing>/<room>/<name>.py`` with one class under :func:`method`, its mirror test, and its
recipe ``recipes/<wing>/<name>.yaml``. Nothing else names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from align.wings.workbench import Workbench

WINGS = ("contrastive", "vision", "learning")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a method declares of itself.

    Attributes:
        name: of the module, the recipe and the claim.
        wing: one of :data:`WINGS`.
        room: package in the wing.
        title: of the paper.
        arxiv: its id, such as ``2103.00020``.
        venue: where it appeared.
        equation: the formula that is trained or computed, in one line.
        departures: what differs from the paper, a sentence each.
        summary: first paragraph of the class's docstring.
    """

    name: str
    wing: str
    room: str
    title: str
    arxiv: str
    venue: str
    equation: str
    departures: tuple[str, ...]
    summary: str

    @property
    def paper(self) -> str:
        """Title and id, as tables show them."""
        return f"{self.title} (arXiv {self.arxiv})"


class Method(ABC):
    """Abstract: one method with its settings.

    A subclass has a frozen dataclass ``Settings``, one of whose fields switches to each named baseline while all else
    stays shared, and :meth:`run`.
    """

    about: ClassVar[About]
    Settings: ClassVar[type[Any]]
    quick: ClassVar[Mapping[str, Any]] = {"trainer.max_steps": 2}
    """Settings by their dotted keys that make a run of the recipe last seconds: every stage, nothing learned."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    least_classes: ClassVar[int] = 1
    """Classes its data must have for its figures to say anything."""

    @abstractmethod
    def run(self, work: "Workbench") -> Mapping[str, float]:
        """Train or fit on the workbench's data, and return the figures that claims are about.

        What is random follows ``work.seed`` (torch, numpy and ``random`` are seeded with it), so that runs of two
        arms with one seed are a pair. Figures are finite numbers, always of the same names under the same settings.
        """


M = TypeVar("M", bound=type[Method])


def method(*, title: str, arxiv: str, venue: str, equation: str, departures: tuple[str, ...] = ()) -> Callable[[M], M]:
    """Declare the method that a module holds.

    Raises:
        TypeError: the class is no method in a room of a wing, or its settings are no frozen dataclass.
    """

    def declared(cls: M) -> M:
        package, *where = cls.__module__.split(".")
        if package != "align" or len(where) != 3 or where[0] not in WINGS:
            raise TypeError(f"{cls.__module__} is no module align.<wing>.<room>.<name>; wings: {', '.join(WINGS)}")
        settings = cls.__dict__.get("Settings")
        frozen = is_dataclass(settings) and getattr(settings, "__dataclass_params__").frozen  # noqa: B009
        if not frozen:
            raise TypeError(f"{cls.__name__}.Settings must be a frozen dataclass of its own")
        cls.about = About(
            name=where[2],
            wing=where[0],
            room=where[1],
            title=title,
            arxiv=arxiv,
            venue=venue,
            equation=equation,
            departures=departures,
            summary=" ".join((cls.__doc__ or "").split("\n\n")[0].split()),
        )
        return cls

    return declared
