"""What the training backward itself knows of single sequences, read at the modules that train.

While a recorder is on a model, the output of every module with trainable parameters passes through an identity whose
backward gets the gradient of that output. The identity saves the module's input, as autograd does, and so takes part in
activation checkpointing of both kinds, where module hooks fall out of step.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from align.diagnostics.blocks import Parameter, of_embedding, rule_of, trainable_parameters
from align.diagnostics.gradients import PairGradients
from align.diagnostics.places import ForeignShapeError, Sequences
from align.diagnostics.products import Columns, Lookup, Outer, Piece, Products, crossed


class _Tap(torch.autograd.Function):
    """An identity whose backward hands on what went into a module, and the gradient of what came out."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: Tensor, recorder: "Recorder | None", module: nn.Module) -> Tensor:
        ctx.save_for_backward(given)
        ctx.recorder, ctx.module = recorder, module
        return output.detach()  # no view: what follows may change it in place

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (given,) = ctx.saved_tensors
        if ctx.recorder is not None:
            with torch.no_grad():
                ctx.recorder.take(ctx.module, given.detach(), slopes[0])
        return slopes[0], None, None, None


class Recorder:
    """Collects inner products within groups of sequences, parameter by parameter, from one backward.

    Args:
        model: whose modules are watched; wrappers around it (DDP) need not be.
        keep: whether gradients are kept in compact form, to be compared with a step that comes later.
        within: the part of the model whose modules are watched; None for all of it.
    """

    def __init__(self, model: nn.Module, *, keep: bool = False, within: nn.Module | None = None) -> None:
        self.parameters: Mapping[int, Parameter] = trainable_parameters(model if within is None else within)
        self.paused = False
        self.keep = keep
        self.sequences: Sequences | None = None
        self.uncovered: dict[str, str] = {
            p.name: "no rule for how it is used" for p in self.parameters.values() if not p.covered
        }
        self.products: dict[str, Products] = {}
        self.pieces: dict[int, list[Piece]] = defaultdict(list)
        self._calls: Counter[nn.Module] = Counter()
        self._takes: Counter[nn.Module] = Counter()
        self._columns: dict[int, Columns] = {}
        self._watching = False
        self._by_module: dict[nn.Module, list[tuple[Parameter, str]]] = defaultdict(list)
        for parameter in self.parameters.values():
            if parameter.covered:
                for module, _, attribute in parameter.uses:
                    self._by_module[module].append((parameter, attribute))
        self._handles: list[RemovableHandle] = []

    # ---- on the model ------------------------------------------------------------------------------------------

    def attach(self) -> "Recorder":
        """Put the identities on."""
        self._handles = [m.register_forward_hook(self._passed, with_kwargs=True) for m in self._by_module]
        return self

    def detach(self) -> None:
        """Take them off; what was collected stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def watching(self, sequences: Sequences) -> Iterator[None]:
        """Collect of the forward that is run inside, when its backward comes."""
        self.sequences = sequences
        with self.watching_unknown():
            yield

    @contextmanager
    def watching_unknown(self) -> Iterator[None]:
        """Collect of a forward whose sequences are set when they are known: by the time that it embeds them."""
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Collect nothing of a backward that is run inside."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def _passed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._watching:
            self._calls[module] += 1
        given = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if not isinstance(output, Tensor) or not isinstance(given, Tensor):
            return None
        if not (torch.is_grad_enabled() and output.requires_grad):
            return None
        in_backward = torch._C._current_graph_task_id() != -1
        mine = self._watching or in_backward  # a checkpoint runs its forward again within the backward
        if mine and isinstance(module, nn.Embedding):
            given, output = self._for_each_row(given, output)
        return _Tap.apply(output, given.detach(), self if mine else None, module)  # type: ignore[no-untyped-call]

    def _for_each_row(self, given: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Give learned positions, which are looked up once for all rows, a gradient a row."""
        assert self.sequences is not None
        rows = self.sequences.rows
        if given.shape[0] == 1 and given.ndim == 2 and rows > 1 and given.shape[1] == self.sequences.time:
            return given.expand(rows, -1), output.expand(rows, *output.shape[1:])
        return given, output

    # ---- in the backward ---------------------------------------------------------------------------------------

    def take(self, module: nn.Module, given: Tensor, slope: Tensor) -> None:
        """Collect from one call of a module."""
        if self.paused:
            return
        assert self.sequences is not None
        self._takes[module] += 1
        for parameter, attribute in self._by_module[module]:
            rule = rule_of(module, attribute)
            assert rule is not None
            try:
                piece = rule(module, attribute, given, slope, self.sequences)
                self._add(parameter, piece)
            except ForeignShapeError as error:
                self.uncovered[parameter.name] = str(error)

    def _add(self, parameter: Parameter, piece: Piece) -> None:
        found, key = piece.products(), id(parameter.value)
        once = len(parameter.uses) == 1 and self._calls[parameter.uses[0][0]] <= 1
        if not once:
            for before in self.pieces[key]:
                cross = crossed(before, piece)
                found = found + cross + cross.mT
            found = found + self._tied(parameter, piece)
        previous = self.products.get(parameter.name)
        self.products[parameter.name] = found if previous is None else previous + found
        if self.keep or not (once or self._is_tied_head(parameter, piece)):
            self.pieces[key].append(piece.kept(as_it_is=not once))

    def _is_tied_head(self, parameter: Parameter, piece: Piece) -> bool:
        """Whether all that others need of a piece is in its columns: the one call of a head that is an embedding."""
        kinds = [rule_of(module, attribute) for module, _, attribute in parameter.uses]
        heads = [module for module, _, _ in parameter.uses if isinstance(module, nn.Linear)]
        tied = of_embedding in kinds and len(heads) == 1 and self._calls[heads[0]] <= 1
        return tied and isinstance(piece, Outer) and not self.keep

    def _tied(self, parameter: Parameter, piece: Piece) -> Products | float:
        """Return the cross terms of embedding and head, where the head's columns were put by."""
        assert self.sequences is not None
        key = id(parameter.value)
        if self._is_tied_head(parameter, piece):
            assert isinstance(piece, Outer)
            self._columns[key] = Columns.of(piece, self.sequences.all.take(self.sequences.tokens.flatten()))
        elif isinstance(piece, Lookup) and key in self._columns:
            cross = self._columns[key].against(piece)
            return cross + cross.mT
        return 0.0

    def supply(self, module: nn.Module, pieces: Mapping[str, Piece]) -> None:
        """Add what a module would have said whose weights were used without a call of it.

        Args:
            module: one of the model's.
            pieces: by the name of its parameter; those that are not trained are passed over.
        """
        self._calls[module] += 1
        self._takes[module] += 1
        for parameter, attribute in self._by_module[module]:
            if attribute in pieces:
                self._add(parameter, pieces[attribute])

    def trains(self, module: nn.Module) -> bool:
        """Whether a parameter of a module is trained."""
        return bool(self._by_module.get(module))

    # ---- afterwards --------------------------------------------------------------------------------------------

    def finish(self) -> PairGradients:
        """Return what was collected, in units of the backward that was run.

        A parameter of a module that was never called is used in a way that is not seen, and is not covered.
        """
        for parameter in self.parameters.values():
            silent = [path for module, path, _ in parameter.uses if not self._calls[module]]
            if silent and parameter.name not in self.uncovered:
                self.uncovered[parameter.name] = f"{silent[0] or 'the model'} was not called as a module"
        seen = {name: found for name, found in self.products.items() if name not in self.uncovered}
        return PairGradients(by_parameter=seen, coverage=self.coverage)

    def faults(self) -> list[str]:
        """Return what makes the products wrong: modules whose backward was not run once for each call."""
        return [
            f"{type(module).__name__} was called {self._calls[module]} times, and its backward ran {count} times"
            for module, count in self._takes.items()
            if count != self._calls[module]
        ]

    @property
    def coverage(self) -> float:
        """Share of trainable numbers whose gradients were seen."""
        total = sum(parameter.size for parameter in self.parameters.values())
        seen = sum(p.size for p in self.parameters.values() if p.name not in self.uncovered)
        return seen / total if total else 1.0
