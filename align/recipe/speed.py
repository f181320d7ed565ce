"""The section ``speed``: how the same numbers are computed faster."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from align.recipe.convert import build
from align.recipe.errors import RecipeError
from align.recipe.yaml_tree import Node

Choice: TypeAlias = Literal["auto"] | bool
"""``auto`` is on where it works and pays, and off without an error where not; ``true`` is on, or an error."""
KEY = "speed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSettings:
    """What is computed once instead of twice, or not at all; results stay what they are, but for rounding.

    ``speed: auto`` is the default, ``speed: off`` computes everything row by row.
    """

    sharing: Choice = "auto"
    """Compute what the responses to a prompt begin with in common (the prompt, and more) once for all of them."""
    packing: Choice = "auto"
    """Lay the rows of a batch one behind the other instead of padding them."""
    token_budget: int | None = None
    """Most tokens of a packed sequence; null lays a whole batch into one."""
    tiling: Choice = "auto"
    """Compute log-probabilities in tiles of tokens and vocabulary, and again in the backward, without their table."""
    cache: Choice = "auto"
    """Keep the reference's log-probabilities on disk, for this run and for others with the same reference and rows."""
    checkpointing: Choice = "auto"
    """Compute activations again in the backward instead of keeping them: a third more time, far less memory. ``auto``
    does where they would not fit into what is free; false leaves it to ``trainer.activation_checkpointing`` alone."""

    def __post_init__(self) -> None:
        if self.token_budget is not None and self.token_budget < 2:
            raise ValueError(f"token_budget must be at least 2, or null, got {self.token_budget}")
        if self.token_budget is not None and self.packing is False:
            raise ValueError("token_budget does not apply: packing is off")


OFF = SpeedSettings(sharing=False, packing=False, tiling=False, cache=False, checkpointing=False)


def build_speed(node: Node) -> SpeedSettings:
    """Make the section; ``auto`` and ``off`` stand for all settings.

    Raises:
        RecipeError: for an unknown setting, or a value out of range.
    """
    words: dict[Any, SpeedSettings] = {"auto": SpeedSettings(), "off": OFF, False: OFF, None: SpeedSettings()}
    if isinstance(node.value, dict):
        found: SpeedSettings = build(node, SpeedSettings, KEY)
        return found
    if isinstance(node.value, list) or node.value not in words or (node.value == 0 and node.value is not False):
        raise RecipeError("expected auto, off, or a mapping of settings", key=KEY, origin=node.origin)
    return words[node.value]
