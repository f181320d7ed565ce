"""align: train language models on preferences, and know what the loss means and what it will do.

Names are loaded when first used, so that ``import align`` and ``align --help`` answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.diagnostics.attach import attach_entanglement as attach_entanglement
    from align.logic.compiled import FormulaObjective as FormulaObjective
    from align.objectives.base import Objective as Objective
    from align.objectives.base import PairObjective as PairObjective
    from align.objectives.base import SidedObjective as SidedObjective
    from align.objectives.dpo import DPO as DPO
    from align.objectives.incentives import incentives as incentives
    from align.objectives.logps import PairLogps as PairLogps
    from align.objectives.logps import PairTokenLogps as PairTokenLogps
    from align.objectives.logps import SequenceLogps as SequenceLogps
    from align.objectives.mixture import Mixture as Mixture
    from align.objectives.mixture import Part as Part
    from align.objectives.mixture import Smoothed as Smoothed
    from align.objectives.registry import OBJECTIVES as OBJECTIVES
    from align.recipe.load import load_recipe as load_recipe
    from align.trainers.base import AlignmentTrainer as AlignmentTrainer
    from align.trainers.d2o import D2OTrainer as D2OTrainer
    from align.trainers.pair import PairTrainer as PairTrainer
    from align.trainers.run import run_recipe as run_recipe
    from align.trainers.spo import SPOTrainer as SPOTrainer
    from align.trainers.spo import UnpairedSPOTrainer as UnpairedSPOTrainer
    from align.trainers.unpaired import UnpairedTrainer as UnpairedTrainer

__version__ = "0.1.0"

_HOMES = {
    "AlignmentTrainer": "align.trainers.base",
    "D2OTrainer": "align.trainers.d2o",
    "DPO": "align.objectives.dpo",
    "FormulaObjective": "align.logic.compiled",
    "Mixture": "align.objectives.mixture",
    "OBJECTIVES": "align.objectives.registry",
    "Objective": "align.objectives.base",
    "PairLogps": "align.objectives.logps",
    "PairObjective": "align.objectives.base",
    "PairTokenLogps": "align.objectives.logps",
    "PairTrainer": "align.trainers.pair",
    "Part": "align.objectives.mixture",
    "SPOTrainer": "align.trainers.spo",
    "UnpairedSPOTrainer": "align.trainers.spo",
    "SequenceLogps": "align.objectives.logps",
    "SidedObjective": "align.objectives.base",
    "Smoothed": "align.objectives.mixture",
    "UnpairedTrainer": "align.trainers.unpaired",
    "attach_entanglement": "align.diagnostics.attach",
    "incentives": "align.objectives.incentives",
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
