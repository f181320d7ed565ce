"""Which module computes with which parameter, and how one sequence's gradient of it follows from a module's call.

Covered: Linear, GPT-2's Conv1D, biases, embeddings (learned positions, scaled ones), LayerNorm and every RMSNorm, what
peft builds of these, and any other module that maps rows to rows with one tensor in and one out. A parameter that is
used otherwise (fused experts, raw parameters) is not covered, and the share of those that are is reported.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call, vjp, vmap
from transformers.pytorch_utils import Conv1D

from align.diagnostics.places import ForeignShapeError, Sequences
from align.diagnostics.products import Lookup, Outer, Piece, Vectors, exactly
from align.models.beside import BESIDE

Rule = Callable[[nn.Module, str, Tensor, Tensor, Sequences], Piece]
"""From a module, the name of its parameter, what went in, the gradient of what came out, and the sequences."""


@dataclass(slots=True)
class Parameter:
    """A trainable parameter and who computes with it.

    Attributes:
        name: the first of its names in the model.
        value: the parameter itself.
        uses: module, its path, and what it calls the parameter.
    """

    name: str
    value: nn.Parameter
    uses: list[tuple[nn.Module, str, str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Numbers in it, of all processes together."""
        return int(getattr(self.value, "ds_numel", self.value.numel()))

    @property
    def covered(self) -> bool:
        """Whether there is a rule for each module that uses it."""
        rules = [rule_of(module, attribute) for module, _, attribute in self.uses]
        if len(rules) > 1 and any(rule not in (of_linear, of_embedding) for rule in rules):
            return False
        return bool(rules) and all(rule is not None for rule in rules)


def trainable_parameters(model: nn.Module) -> dict[int, Parameter]:
    """Return the trainable parameters of a model by identity, each once, with all modules that own them."""
    found: dict[int, Parameter] = {}
    for path, module in model.named_modules():
        if getattr(module, BESIDE, False):
            continue
        for attribute, value in module.named_parameters(recurse=False):
            if value.requires_grad:
                name = f"{path}.{attribute}".strip(".")
                found.setdefault(id(value), Parameter(name, value)).uses.append((module, path, attribute))
    return found


def coverage(parameters: dict[int, Parameter]) -> float:
    """Return the share of trainable numbers for which there is a rule."""
    total = sum(parameter.size for parameter in parameters.values())
    return sum(parameter.size for parameter in parameters.values() if parameter.covered) / total if total else 1.0


def rule_of(module: nn.Module, attribute: str) -> Rule | None:
    """Return how a sequence's gradient of a module's parameter is found, or None where it is not."""
    if isinstance(module, nn.Embedding):
        return of_embedding if attribute == "weight" and _looks_up(module) else None
    if isinstance(module, nn.Linear | Conv1D):
        return {"weight": of_linear, "bias": of_bias}.get(attribute)
    if _normaliser(module) is not None:
        return {"weight": of_scale, "bias": of_bias}.get(attribute)
    return of_rows if _maps_rows(module) else None


def of_linear(module: nn.Module, attribute: str, given: Tensor, slope: Tensor, sequences: Sequences) -> Piece:
    """Return the gradient of a weight matrix."""
    inputs, places = sequences.find(given)
    slopes, _ = sequences.find(slope)
    return Outer(inputs, slopes, places, transposed=isinstance(module, Conv1D))


def of_bias(module: nn.Module, attribute: str, given: Tensor, slope: Tensor, sequences: Sequences) -> Piece:
    """Return the gradient of what is added to every position."""
    flat, places = sequences.find(slope)
    return Vectors(_summed(exactly(places.take(flat)), getattr(module, attribute)))


def of_scale(module: nn.Module, attribute: str, given: Tensor, slope: Tensor, sequences: Sequences) -> Piece:
    """Return the gradient of what every normalised position is multiplied with, w or 1 + w alike."""
    normalised = _normaliser(module)
    assert normalised is not None
    if given.ndim == 4 and given.shape[0] == sequences.rows and given.shape[1] != sequences.time == given.shape[2]:
        # heads before time
        given, slope = given.transpose(1, 2), slope.transpose(1, 2)
    flat, places = sequences.find(given)
    slopes, _ = sequences.find(slope)
    into, out = exactly(places.take(flat)), exactly(places.take(slopes))
    return Vectors(_summed(normalised(into) * out, getattr(module, attribute)))


def of_embedding(module: nn.Module, attribute: str, given: Tensor, slope: Tensor, sequences: Sequences) -> Piece:
    """Return the gradient of an embedding; the row of ``padding_idx`` has none, as in torch."""
    assert isinstance(module, nn.Embedding)
    tokens, places = sequences.find(given)
    flat, _ = sequences.find(slope)
    named, slopes = places.take(tokens), exactly(places.take(flat)) * _scale(module)
    if module.padding_idx is not None:
        slopes = slopes.masked_fill((named == module.padding_idx).unsqueeze(-1), 0)
    return Lookup(named, slopes)


def of_rows(module: nn.Module, attribute: str, given: Tensor, slope: Tensor, sequences: Sequences) -> Piece:
    """Return the gradient of any parameter of a module that maps each row by itself: differentiated row by row."""
    if given.shape[0] != sequences.rows or slope.shape[0] != sequences.rows:
        raise ForeignShapeError(f"{type(module).__name__} was called with {tuple(given.shape)}")
    bare, name = _Bare(module), f"within.{attribute}"
    value = getattr(module, attribute).detach()

    def gradient(row: Tensor, out: Tensor) -> Tensor:
        def forward(weight: Tensor) -> Tensor:
            mapped: Tensor = functional_call(bare, {name: weight}, (row.unsqueeze(0),)).squeeze(0)
            return mapped

        slope: Tensor = vjp(forward, value)[1](out)[0]
        return slope

    rows = sequences.groups.flatten()
    found = vmap(gradient)(given.detach()[rows], slope[rows])
    return Vectors(exactly(found).reshape(*sequences.groups.shape, -1))


class _Bare(nn.Module):
    """A module without the hooks that others put on its call."""

    def __init__(self, within: nn.Module) -> None:
        super().__init__()
        self.within = within

    def forward(self, given: Tensor) -> Any:
        return self.within.forward(given)


def _summed(values: Tensor, like: nn.Parameter) -> Tensor:
    """Sum over what is neither group nor member nor a dimension of the parameter; shape (groups, members, numbers)."""
    dimensions = len(getattr(like, "ds_shape", like.shape))
    between = tuple(range(2, values.ndim - dimensions))
    return (values.sum(between) if between else values).flatten(2)


def _normaliser(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what a norm does before it scales, or None where the module is no norm that is known."""
    if module not in _NORMS:
        _NORMS[module] = next((n for n in _candidates(module) if _is_right(module, n)), None)
    return _NORMS[module]


_NORMS: WeakKeyDictionary[nn.Module, Callable[[Tensor], Tensor] | None] = WeakKeyDictionary()


def _candidates(module: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """Return what a norm may do, by its name and its settings; the likelier first."""
    name = type(module).__name__
    own = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if isinstance(module, nn.RMSNorm) and own is None:
        own = torch.finfo(module.weight.dtype).eps
    if own is None or not name.endswith(("RMSNorm", "LayerNorm")) or "Gated" in name:
        return []
    whole = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    dimensions = tuple(range(-len(module.normalized_shape), 0)) if whole else (-1,)  # type: ignore[arg-type]
    centred = [False] if name.endswith("RMSNorm") else [True, False]
    return [partial(_normalised, dimensions=dimensions, eps=float(own), centred=one) for one in centred]


def _normalised(given: Tensor, *, dimensions: tuple[int, ...], eps: float, centred: bool) -> Tensor:
    moved = given - given.mean(dimensions, keepdim=True) if centred else given
    return moved * torch.rsqrt(moved.square().mean(dimensions, keepdim=True) + eps)


def _is_right(module: nn.Module, normalised: Callable[[Tensor], Tensor]) -> bool:
    """Try a norm on a few numbers; where weights are sharded, its name has to do."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or hasattr(weight, "ds_id") or isinstance(weight, DTensor):
        return True
    drawn = torch.linspace(-1.0, 3.0, 2 * weight.numel(), device=weight.device).view(2, 1, *weight.shape)
    given = (drawn + drawn.roll(1, -1).square()).to(weight.dtype)
    with torch.no_grad():
        found: Tensor = module.forward(given).float()
        plain = normalised(given.float())
    bias = getattr(module, "bias", None)
    shift = 0.0 if bias is None else bias.detach().float()
    scale = weight.detach().float()
    close = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 5e-2
    return any(torch.allclose(found, plain * factor + shift, close, close) for factor in (scale, 1 + scale))


def _looks_up(module: nn.Embedding) -> bool:
    own = type(module).forward is nn.Embedding.forward
    plain = module.max_norm is None and not module.scale_grad_by_freq
    return plain and (own or isinstance(getattr(module, "embed_scale", None), Tensor | float | int))


def _scale(module: nn.Embedding) -> Any:
    if type(module).forward is nn.Embedding.forward:
        return 1.0
    scale = module.embed_scale
    return scale.to(module.weight.dtype).item() if isinstance(scale, Tensor) else scale


def _maps_rows(module: nn.Module) -> bool:
    """Whether a module can be tried row by row: its parameters are its own and whole, and it has no parts."""
    kinds = (nn.Conv1d,)
    return isinstance(module, kinds) and not hasattr(next(module.parameters()), "ds_id")
