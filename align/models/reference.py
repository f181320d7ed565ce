"""The reference policy: what the trained policy is compared with, always explicit."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from align.models.adapters import has_adapter
from align.recipe.paths import REFERENCES


class Reference(ABC):
    """Lends a model that computes reference log-probabilities.

    Attributes:
        equals_policy_at_start: whether policy and reference are one function before the first update.
        description: one line for people.
    """

    equals_policy_at_start: bool
    description: str

    @abstractmethod
    def model(self, policy: nn.Module) -> Any:
        """Return a context manager that gives the reference, given the policy as it is called in training."""

    @abstractmethod
    def place(self, device: torch.device) -> None:
        """Bring weights of its own, where it has some, to a device."""


class FrozenReference(Reference):
    """A second model whose weights never change."""

    def __init__(self, model: nn.Module, *, equals_policy_at_start: bool, description: str) -> None:
        self.module = model.eval().requires_grad_(False)
        self.equals_policy_at_start = equals_policy_at_start
        self.description = description

    def place(self, device: torch.device) -> None:
        """Bring the frozen model to a device."""
        self.module.to(device)

    @contextmanager
    def model(self, policy: nn.Module) -> Iterator[nn.Module]:
        """Give the frozen model."""
        yield self.module


class AdapterOffReference(Reference):
    """The policy itself with its adapters switched off: no second copy of the weights."""

    equals_policy_at_start = True
    description = "adapter_off: the policy with its adapters switched off"

    def __init__(self, adapted: Any) -> None:
        self.adapted = adapted

    def place(self, device: torch.device) -> None:
        """Do nothing: the weights are the policy's."""

    @contextmanager
    def model(self, policy: nn.Module) -> Iterator[nn.Module]:
        """Give the policy with its adapters off until the context ends."""
        with self.adapted.disable_adapter():
            yield policy


def resolve_reference(
    kind: str, policy: nn.Module, *, needed: bool, loaded: nn.Module | None = None
) -> Reference | None:
    """Turn a recipe's ``model.reference`` into a reference, or None where the objective needs none.

    Args:
        kind: ``auto``, ``base``, ``adapter_off``, ``none``, or the path that ``loaded`` was loaded from.
        policy: the policy as it is before training.
        needed: whether the objective compares with a reference.
        loaded: the model at the path, for the last kind.

    Raises:
        ValueError: for combinations that cannot work, or a reference that nothing would use.
    """
    if not needed:
        if kind not in ("auto", "none"):
            raise ValueError(f"reference {kind!r} would not be used: the objective needs no reference; leave it out")
        return None
    if kind == "none":
        raise ValueError("reference 'none' cannot work: the objective compares with a reference")
    if kind == "auto":
        kind = "adapter_off" if has_adapter(policy) else "base"
    if kind == "adapter_off":
        if not has_adapter(policy):
            raise ValueError("reference 'adapter_off' needs adapters; set model.lora, or use reference 'base'")
        return AdapterOffReference(policy)
    if kind == "base":
        return FrozenReference(
            copy.deepcopy(policy), equals_policy_at_start=True, description="base: a frozen copy of the policy"
        )
    if loaded is None:
        raise ValueError(f"reference {kind!r} was not loaded; known kinds: {', '.join(REFERENCES)}, or a model's path")
    return FrozenReference(loaded, equals_policy_at_start=False, description=f"a model of its own: {kind}")
