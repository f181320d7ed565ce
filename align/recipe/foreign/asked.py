"""What a file asks of its loss, under TRL's names of settings, and the parts of an objective that come of it."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from align.recipe.errors import RecipeError
from align.recipe.foreign.draft import Draft, Setting
from align.recipe.foreign.given import Given

Part: TypeAlias = dict[str, Setting]
"""Settings of one objective of ours: ``name``, its own settings, and perhaps ``weight``."""


class Asked:
    """Settings of TRL's trainers as a file gives them, whatever it calls them.

    Args:
        given: the file.
        draft: the recipe in the making, for decisions and reasons.
        names: their key for each setting that they have; None for TRL's own names.
        loss: where a loss that the file does not name comes from.
    """

    def __init__(
        self, given: Given, draft: Draft, names: Mapping[str, str] | None = None, loss: str = "TRL's default"
    ) -> None:
        self.given = given
        self.draft = draft
        self.names = names
        self.loss = loss

    def key(self, setting: str) -> str:
        """Return their key for a setting of TRL's; empty where they have none."""
        return setting if self.names is None else self.names.get(setting, "")

    def gave(self, setting: str) -> bool:
        """Return whether the file has the setting, and not as null."""
        return self.given.peek(self.key(setting)) is not None

    def take(self, setting: str, default: Any = None) -> Any:
        """Return a setting's value, or what stands for its absence."""
        return self.given.take(self.key(setting), default)

    def setting(self, setting: str, default: Any, *, default_of: str = "TRL", note: str = "") -> Setting:
        """Return a setting's value with the word on where it comes from."""
        source = self.key(setting) if self.gave(setting) else f"{default_of}'s default"
        return Setting(value=self.take(setting, default), source=source, note=note)

    def name(self, ours: str, note: str = "") -> Setting:
        """Return the name of one of our objectives with the word on what named it there."""
        return Setting(value=ours, source=self.key("loss_type") if self.gave("loss_type") else self.loss, note=note)

    def decide(self, setting: str, text: str) -> None:
        """Leave a decision to the reader."""
        key = self.key(setting)
        self.draft.decide(key, self.given.line(key), text)

    def leave(self, setting: str, reason: str) -> None:
        """Leave a setting out, with the reason, if the file has it."""
        if self.gave(setting):
            self.take(setting)
            self.draft.leave(self.key(setting), reason)

    def refuse(self, setting: str, message: str) -> RecipeError:
        """Return the error of a file that cannot be brought over."""
        return self.given.refuse(self.key(setting), message)


def likelihood(weight: Setting, what: str = "") -> Part:
    """Return the part that adds the chosen's negative log-likelihood, a mean over the tokens of the batch."""
    nll = Setting(value="batch_mean", source="a mean over the batch's tokens")
    return {"name": Setting(value="sft", source=what), "nll": nll, "weight": weight}


def set_objective(draft: Draft, parts: list[Part]) -> None:
    """Set the section ``objective``: a mapping for one part of weight 1, else a list."""
    alone = len(parts) == 1 and ("weight" not in parts[0] or parts[0]["weight"].value == 1)
    for index, part in enumerate(parts):
        for key, setting in part.items():
            if not alone:
                draft.settings[f"objective.{index}.{key}"] = setting
            elif key != "weight":
                draft.settings[f"objective.{key}"] = setting
