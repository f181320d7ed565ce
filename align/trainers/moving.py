"""A reference that follows the policy: TR-DPO, Gorbatovski et al., 2024, arXiv:2404.09656.

Every so many optimiser steps the reference becomes ``alpha * policy + (1 - alpha) * reference``; alpha = 1 is the
paper's hard update. With adapters, the policy's weights are those with the adapters added.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.models.reference import FrozenReference, move_towards
from align.recipe.sync import ReferenceSyncSettings

REFERENCE_FILE = "reference.safetensors"
"""What a checkpoint keeps of a reference that moves."""


class MovingReference(TrainerCallback):
    """Moves the reference towards the policy after every so many optimiser steps."""

    def __init__(self, reference: FrozenReference, policy: nn.Module, settings: ReferenceSyncSettings) -> None:
        self.reference = reference
        self.policy = policy  # as it is before anything wraps it
        self.settings = settings

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move, where the step's number is a multiple of ``every``."""
        if state.global_step % self.settings.every == 0:
            move_towards(self.reference.module, self.policy, self.settings.alpha)


def save_reference(reference: FrozenReference, folder: Path, step: int, name: str = REFERENCE_FILE) -> None:
    """Keep the reference's weights in the checkpoint of a step."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_model(reference.module, str(checkpoint / name))


def load_reference(reference: FrozenReference, checkpoint: Path, name: str = REFERENCE_FILE) -> None:
    """Take the reference's weights from a checkpoint.

    Raises:
        ValueError: if the checkpoint was made by a run whose reference did not move.
    """
    file = checkpoint / name
    if not file.is_file():
        raise ValueError(f"{checkpoint} holds no {name}: the run it is of had a fixed reference")
    load_model(reference.module, str(file), device=str(next(reference.module.parameters()).device))
