"""A reference that follows the policy: TR-DPO, Gorbatovski et al., 2024, arXiv:2404.09656.

Every so many optimiser steps the reference becomes ``alpha * policy + (1 - alpha) * reference``; alpha = 1 is the
paper's hard update. With adapters, the policy's weights are those with the adapters added.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.models.reference import FrozenReference
from align.recipe.sync import ReferenceSyncSettings

REFERENCE_FILE = "reference.safetensors"
"""What a checkpoint keeps of a reference that moves."""


class MovingReference(TrainerCallback):
    """Moves the reference towards the policy after every so many optimiser steps.

    Args:
        reference: that moves.
        policy: as it is before anything wraps it.
        settings: how far and how often.
        first: the step after which it is moved first; None for the first multiple of ``every``.
    """

    def __init__(
        self, reference: FrozenReference, policy: nn.Module, settings: ReferenceSyncSettings, first: int | None = None
    ) -> None:
        self.reference = reference
        self.policy = policy
        self.settings = settings
        self.first = settings.every if first is None else first

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move, where the step is the first, or a multiple of ``every`` behind it."""
        if state.global_step >= self.first and (state.global_step - self.first) % self.settings.every == 0:
            self.reference.move_towards(self.policy, self.settings.alpha)


def save_reference(reference: FrozenReference, folder: Path, step: int, name: str = REFERENCE_FILE) -> None:
    """Keep the reference's weights in the checkpoint of a step."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(reference.state(), checkpoint / name)


def load_reference(reference: FrozenReference, checkpoint: Path, name: str = REFERENCE_FILE) -> None:
    """Take the reference's weights from a checkpoint.

    Raises:
        ValueError: if the checkpoint was made by a run without such a copy of the policy.
    """
    file = checkpoint / name
    if not file.is_file():
        raise ValueError(f"{checkpoint} holds no {name}: the run it is of had no copy of the policy that moves")
    reference.load_state(load_file(file))
