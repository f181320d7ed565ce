"""Gradients of the log-probabilities of pairs, as far as their norms and inner products say."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairGradients:
    """Inner products of ``grad log pi(y_w)`` and ``grad log pi(y_l)`` of each pair, over all parameters covered.

    Attributes:
        by_parameter: name: matrices of inner products; the first member of a pair is the chosen, the second the
            rejected; further ones are what was measured beside them.
        coverage: share of trainable numbers that the products run over.
    """

    by_parameter: Mapping[str, Float[Tensor, "pairs members members"]]
    coverage: float

    def of_units(self, weights: Float[Tensor, "pairs members"]) -> "PairGradients":
        """Return the gradients of log-probabilities, given those of what they were multiplied with and summed to."""
        size = (weights[:, :, None] * weights[:, None, :]).double()
        return self._changed(lambda products: products / size)

    def pick(self, pairs: Int[Tensor, " some"] | Bool[Tensor, " pairs"]) -> "PairGradients":
        """Return those of some pairs."""
        return self._changed(lambda products: products[pairs])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "PairGradients":
        found = {name: change(products) for name, products in self.by_parameter.items()}
        return PairGradients(by_parameter=found, coverage=self.coverage)

    @property
    def products(self) -> Float[Tensor, "pairs members members"]:
        """The matrices, summed over parameters."""
        return torch.stack(list(self.by_parameter.values())).sum(0)

    @property
    def chosen_norm(self) -> Float[Tensor, " pairs"]:
        """``s_w``: norm of the gradient of the chosen log-probability, in nats a unit of weight."""
        return self.products[:, 0, 0].clamp(min=0).sqrt()

    @property
    def rejected_norm(self) -> Float[Tensor, " pairs"]:
        """``s_l``: that of the rejected one."""
        return self.products[:, 1, 1].clamp(min=0).sqrt()

    @property
    def inner(self) -> Float[Tensor, " pairs"]:
        """Inner product of the two gradients."""
        return self.products[:, 0, 1]

    @property
    def cosine(self) -> Float[Tensor, " pairs"]:
        """Cosine of the angle between the two; NaN where one of them is 0."""
        return self.inner / (self.chosen_norm * self.rejected_norm)

    def by_layer(self) -> dict[str, Float[Tensor, "pairs members members"]]:
        """Return the products of each part of the model: a layer by its number, the rest by name.

        Examples:
            >>> eye = torch.eye(2)[None]
            >>> found = PairGradients(by_parameter={"h.0.a": eye, "h.0.b": eye, "wte.weight": eye}, coverage=1.0)
            >>> {name: float(products[0, 0, 0]) for name, products in found.by_layer().items()}
            {'wte': 1.0, 'layer 0': 2.0}
        """
        found: dict[str, Tensor] = {}
        for name, products in self.by_parameter.items():
            part = part_of(name)
            found[part] = found[part] + products if part in found else products
        return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def part_of(name: str) -> str:
    """Return which part of a model a parameter belongs to: ``layer 3``, or the name of what is outside the layers."""
    layer = LAYER.search(f".{name}.")
    return f"layer {layer[1]}" if layer else name.rsplit(".", 1)[0].rsplit(".", 1)[-1]


def _order(part: str) -> tuple[int, int, str]:
    number = part.removeprefix("layer ")
    if number.isdigit():
        return 1, int(number), ""
    return (2 if "norm" in part or "head" in part or part.startswith("ln_") else 0), 0, part
