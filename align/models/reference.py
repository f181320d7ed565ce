"""The reference policy: what the trained policy is compared with, always explicit."""

import copy
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from align.models.adapters import has_adapter
from align.models.sharding import duplicate, is_partitioned, prepared_reference
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
    def place(self, accelerator: Accelerator) -> None:
        """Bring weights of its own, where it has some, to where the engine wants them."""


class FrozenReference(Reference):
    """A second model whose weights never change."""

    def __init__(self, model: nn.Module, *, equals_policy_at_start: bool, description: str) -> None:
        self.module = model.eval().requires_grad_(False)
        self.equals_policy_at_start = equals_policy_at_start
        self.description = description
        self._away_from: torch.device | None = None
        self._finer: dict[str, torch.Tensor] = {}

    def move_towards(self, policy: nn.Module, alpha: float) -> None:
        """Make every weight ``alpha * policy + (1 - alpha) * reference``.

        Weights of fewer digits than float32 that the policy trains are kept in float32 beside, from the first move on:
        small shares of small steps would be rounded away.

        Args:
            policy: with or without adapters, not wrapped.
            alpha: share of the policy, in (0, 1].

        Raises:
            ValueError: if the two are not of one structure.
        """
        own, theirs = dict(self.module.named_parameters()), dict(whole_weights(policy))
        if alpha < 1 and not self._finer:
            coarse = {name: weight for name, weight in own.items() if weight.dtype.itemsize < 4 and name in theirs}
            moved = [name for name in coarse if theirs[name].requires_grad or theirs[name].dtype.itemsize >= 4]
            self._finer = {name: own[name].detach().float() for name in moved}
        move_towards({**own, **self._finer}, theirs, alpha)
        with torch.no_grad():
            for name, finer in self._finer.items():
                own[name].copy_(finer)

    def state(self) -> dict[str, torch.Tensor]:
        """Return its weights as a checkpoint keeps them, each once, as fine as they are moved."""
        saved = self.module.state_dict()
        once = {name for found in (self.module.named_parameters(), self.module.named_buffers()) for name, _ in found}
        whole = {name: value for name, value in saved.items() if name in once} | self._finer
        return {name: value.detach().contiguous() for name, value in whole.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what :meth:`state` gave, or names of tied weights in place of each other.

        Raises:
            ValueError: if weights are missing, or there are others.
        """
        own, saved = dict(self.module.named_parameters()), self.module.state_dict()
        there = {saved[name].data_ptr() for name in state if name in saved}
        wrong = [name for name in state if name not in saved]
        wrong += [name for name, weight in own.items() if weight.data_ptr() not in there]
        if wrong:
            raise ValueError(f"the reference that was kept is of another model: {wrong[0]!r} is only in one of them")
        device = next(iter(own.values())).device
        kept = {name: value.to(device) for name, value in state.items()}
        self._finer = {
            name: value
            for name, value in kept.items()
            if name in own and value.dtype.itemsize > own[name].dtype.itemsize
        }
        self.module.load_state_dict(kept, strict=False)

    def place(self, accelerator: Accelerator) -> None:
        """Bring the frozen model to the device, or shard it as the policy is."""
        self.module = prepared_reference(self.module, accelerator)

    def put_by(self, folder: Path) -> None:
        """Let weights take no memory of the device until they are asked for; sharded and quantised ones stay.

        Args:
            folder: where weights of a CPU's model lie meanwhile, in a file that has no name and goes with the process.
        """
        weights = list(self.module.parameters())
        stays = any(type(weight) is not nn.Parameter or is_partitioned(weight) for weight in weights)
        if not weights or stays or any(isinstance(weight.data, DTensor) for weight in weights):
            return
        if weights[0].device.type == "cpu":
            _map_weights(self.module, folder)
        else:
            self._away_from = weights[0].device
            self.module.to("cpu")

    @contextmanager
    def model(self, policy: nn.Module) -> Iterator[nn.Module]:
        """Give the frozen model."""
        if self._away_from is None:
            yield self.module
            return
        try:
            yield self.module.to(self._away_from)
        finally:
            self.module.to("cpu")


class AdapterOffReference(Reference):
    """The policy itself with its adapters switched off: no second copy of the weights."""

    equals_policy_at_start = True
    description = "adapter_off: the policy with its adapters switched off"

    def __init__(self, adapted: Any) -> None:
        self.adapted = adapted

    def place(self, accelerator: Accelerator) -> None:
        """Do nothing: the weights are the policy's."""

    @contextmanager
    def model(self, policy: nn.Module) -> Iterator[nn.Module]:
        """Give the policy with its adapters off until the context ends."""
        with self.adapted.disable_adapter():
            yield policy


class KeptReference(Reference):
    """A reference whose log-probabilities are on disk: its weights are put by, for rows that come later.

    Args:
        before: what it was.
        folder: as :meth:`FrozenReference.put_by`.
    """

    def __init__(self, before: Reference, folder: Path) -> None:
        self.before = before
        if isinstance(before, FrozenReference):
            before.put_by(folder)
        self.equals_policy_at_start = before.equals_policy_at_start
        self.description = f"{before.description}; its log-probabilities are kept"

    def place(self, accelerator: Accelerator) -> None:
        """Do nothing: it was placed before."""

    def model(self, policy: nn.Module) -> Any:
        """Give what it was."""
        return self.before.model(policy)


def _map_weights(module: nn.Module, folder: Path) -> None:
    """Read weights from a file from now on; where that cannot be written, they stay in memory."""
    weights = {name: weight.detach().contiguous() for name, weight in module.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError, RuntimeError), tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as made:
        torch.save(weights, Path(made) / "weights")
        mapped = torch.load(Path(made) / "weights", mmap=True, weights_only=True)
        for name, weight in module.named_parameters():
            weight.data = mapped[name]


def moving_copy(policy: nn.Module) -> FrozenReference:
    """Return a copy of the policy that can move: adapters merged, so that its weights are whole ones.

    Raises:
        ValueError: if its adapters are more than something added to the weights (DoRA, biases of LoRA).
    """
    for module in policy.modules():
        for kind in ("use_dora", "lora_bias"):
            if any(dict(getattr(module, kind, None) or {}).values()):
                raise ValueError(
                    f"a reference that moves cannot take over adapters with {kind}: leave reference_sync out, or use "
                    "plain LoRA"
                )
    duplicate: Any = copy.deepcopy(policy)
    merged = duplicate.merge_and_unload() if has_adapter(duplicate) else duplicate
    return FrozenReference(
        merged, equals_policy_at_start=True, description="base: a copy of the policy, which follows it"
    )


@torch.no_grad()
def move_towards(own: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Make every weight of a reference ``alpha * policy + (1 - alpha) * reference``, in place.

    Args:
        own: weights of the reference by name.
        theirs: of the policy, adapters added.
        alpha: share of the policy, in (0, 1].

    Raises:
        ValueError: if the two are not of one structure.
    """
    for name, weight in own.items():
        if name not in theirs or theirs[name].shape != weight.shape:
            raise ValueError(
                f"the reference cannot follow the policy: its weight {name!r}, shape {tuple(weight.shape)}, has no "
                "counterpart; leave model.reference out, or name a model of the same structure"
            )
        weight.lerp_(theirs[name].to(weight.dtype), alpha)


def whole_weights(policy: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a model by name, adapters added to the layers they sit on."""
    model = policy.get_base_model() if has_adapter(policy) else policy
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, weight in model.named_parameters():
        layer_name, is_layer, rest = name.partition(".base_layer.")
        if not is_layer:
            if not any(name.startswith(f"{layer}.") for layer in layers):
                yield name, weight
            continue
        deltas = [layers[layer_name].get_delta_weight(a) for a in layers[layer_name].active_adapters]
        whole = weight.detach().float() if weight.dtype.itemsize < 4 else weight.detach()
        yield f"{layer_name}.{rest}", sum(deltas, start=whole) if rest == "weight" else weight


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
            duplicate(policy), equals_policy_at_start=True, description="base: a frozen copy of the policy"
        )
    if loaded is None:
        raise ValueError(f"reference {kind!r} was not loaded; known kinds: {', '.join(REFERENCES)}, or a model's path")
    return FrozenReference(loaded, equals_policy_at_start=False, description=f"a model of its own: {kind}")
