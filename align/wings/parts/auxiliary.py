"""A further term of a loss that reads inside a network: hook, target, distance, coefficient."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class AuxiliaryTerm:
    """``coefficient * distance(inside, target)`` of each row; ``inside`` is what a module of the network returned.

    A coefficient of 0 hooks nothing and computes nothing: the network and its gradients are exactly the baseline's.

    Args:
        module: of the network, whose output is read.
        distance: from output and target to a loss a row.
        coefficient: its weight.
    """

    def __init__(self, module: nn.Module, distance: Callable[[Tensor, Tensor], Tensor], coefficient: float) -> None:
        self.distance, self.coefficient = distance, coefficient
        self._inside: Tensor | None = None
        self._hook = module.register_forward_hook(self._read) if coefficient else None

    def __call__(self, target: Callable[[], Tensor]) -> Tensor | float:
        """Return the term of the latest forward, of shape (rows,); 0.0 where the coefficient is 0.

        Args:
            target: makes the target, which gets no gradient; not called where the coefficient is 0.

        Raises:
            ValueError: the module has not been called since.
        """
        if not self.coefficient:
            return 0.0
        if self._inside is None:
            raise ValueError("the module that the term reads was not called in this forward")
        inside, self._inside = self._inside, None
        return self.coefficient * self.distance(inside, target().detach())

    def remove(self) -> None:
        """Take the hook away."""
        if self._hook is not None:
            self._hook.remove()

    def _read(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._inside = output[0] if isinstance(output, tuple) else output
