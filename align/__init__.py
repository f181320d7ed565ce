"""align: train language models on preferences, and know what the loss means and what it will do.

Names are loaded when first used, so that ``import align`` and ``align --help`` answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.objectives.base import PairObjective as PairObjective
    from align.objectives.dpo import DPO as DPO
    from align.objectives.logps import PairLogps as PairLogps
    from align.objectives.registry import OBJECTIVES as OBJECTIVES
    from align.recipe.load import load_recipe as load_recipe
    from align.trainers.base import AlignmentTrainer as AlignmentTrainer
    from align.trainers.pair import PairTrainer as PairTrainer
    from align.trainers.run import run_recipe as run_recipe

__version__ = "0.1.0"

_HOMES = {
    "AlignmentTrainer": "align.trainers.base",
    "DPO": "align.objectives.dpo",
    "OBJECTIVES": "align.objectives.registry",
    "PairLogps": "align.objectives.logps",
    "PairObjective": "align.objectives.base",
    "PairTrainer": "align.trainers.pair",
    "load_recipe": "align.recipe.load",
    "run_recipe": "align.trainers.run",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
