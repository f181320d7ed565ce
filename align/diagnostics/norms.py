"""Norms of the gradients of both log-probabilities, from the graph of a forward that is about to train.

A backward through activations alone, which leaves the graph as it is and touches no weight, before the step's own: what
a remedy needs in the very step that it corrects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.diagnostics.capture import Recorder
from align.diagnostics.gradients import LAYER
from align.diagnostics.measure import Rows, measure
from align.objectives.logps import PairTokenLogps


class NormProbe:
    """Watches a forward, and says the norms of what it computed.

    Args:
        model: the policy, not wrapped.
        head: its output embedding.
        own_pass: whether to run a forward of its own before, where an engine does not let the graph of its own be
            differentiated twice (DeepSpeed, FSDP).
        head_only: whether to look at the head's weight alone; of a model with adapters, which leave the head as it is,
            at the adapters of the last layer.
    """

    def __init__(self, model: nn.Module, head: nn.Module, *, own_pass: bool = False, head_only: bool = False) -> None:
        self.model, self.head, self.own_pass = model, head, own_pass
        self._measured: Tensor | None = None
        self._within = self._part(model, head) if head_only else None
        self._entries: list[Tensor] = []
        self._recorder: Recorder | None = None

    @contextmanager
    def forward(self, rows: Rows) -> Iterator[None]:
        """Watch the forward inside, of the rows of a batch of pairs; the model is to be released after its backward."""
        self.release()
        if self.own_pass:
            found = measure(self.model, self.head, rows, within=self._within)
            self._measured = found.gradients.products
            yield
            return
        self._entries = []
        self._recorder = Recorder(self.model, within=self._within)
        self._recorder.paused = True
        modules = [self._within] if self._within is not None else _embeddings(self.model)
        handles = [
            module.register_forward_pre_hook(self._enter_part, with_kwargs=True)
            if self._within is not None
            else module.register_forward_hook(self._enter)
            for module in modules
        ]
        try:
            self._recorder.attach()  # until its backward, in which a checkpoint runs the forward again
            with self._recorder.watching(rows.sequences):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def products(self, policy: PairTokenLogps) -> Float[Tensor, "groups members members"]:
        """Return inner products of the gradients of summed log-probabilities, as the rows of the forward were grouped.

        Raises:
            ValueError: if activation checkpointing is of the kind that cannot be differentiated twice.
        """
        if self._measured is not None:
            return self._measured
        recorder = self._recorder
        assert recorder is not None
        total = policy.summed()
        recorder.paused = False
        try:
            torch.autograd.grad(
                total.chosen.sum() + total.rejected.sum(), self._entries, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if "checkpoint" in str(error) and "reentrant" in str(error):
                raise ValueError(
                    "disentangle differentiates the forward twice, which reentrant activation checkpointing cannot: "
                    "set trainer.activation_checkpointing_kwargs={use_reentrant: false}"
                ) from error
            raise
        finally:
            recorder.paused = True
        return recorder.finish().products

    def release(self) -> None:
        """Take everything off the model."""
        if self._recorder is not None:
            self._recorder.detach()

    def _enter(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor) and torch._C._current_graph_task_id() == -1:
            self._entries.append(output if output.requires_grad else output.requires_grad_())

    def _enter_part(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if torch.is_grad_enabled() and isinstance(given, Tensor) and torch._C._current_graph_task_id() == -1:
            self._entries.append(given)

    def _part(self, model: nn.Module, head: nn.Module) -> nn.Module:
        if any(parameter.requires_grad for parameter in head.parameters()):
            return head
        layers: dict[int, nn.Module] = {
            int(found[1]): module
            for path, module in model.named_modules()
            if (found := LAYER.search(f"{path}.")) and f"{path}.".endswith(f".{found[1]}.")
        }
        if not layers:
            raise ValueError("norms: head needs a head that is trained, or numbered layers with adapters; use all")
        last: nn.Module = layers[max(layers)]
        return last


def _embeddings(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]
