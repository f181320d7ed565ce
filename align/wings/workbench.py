"""What a method runs on: its data, seeds, trained stages that survive being killed, and the pictures it draws."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments

from align.data.cache import written_whole
from align.recipe.trainer_arguments import training_arguments
from align.report.console import is_main, say
from align.report.look import save
from align.report.run_record import PICTURES_FOLDER
from align.trainers.base import gather_with_gradient
from align.trainers.folder import RunFolder
from align.wings.gallery import Splits
from align.wings.processes import drawn, own, processes
from align.wings.recipe import MethodRecipe
from align.wings.trainer import Losses, MethodTrainer

FINISHED_FILE = "finished.pt"
MAIN = "main"


class Workbench:
    """One run of a method.

    Args:
        recipe: the run's.
        data: what it trains on and is tested on.
        folder: of the run.
        keeps: whether stages are kept in the folder, so that a killed run goes on; claims, whose runs are short, do
            without.
    """

    def __init__(self, recipe: MethodRecipe, data: Splits, folder: Path, *, keeps: bool = True) -> None:
        self.recipe, self.data, self.folder, self.keeps = recipe, data, folder, keeps
        self.seed = recipe.seed
        self.model: nn.Module | None = None
        """The network of the main stage, once it is trained: what the run leaves."""
        self.tokenizer: Any = None
        """What reads the texts of that network, where a method has one."""
        self._trainer: MethodTrainer | None = None
        self.device = self.arguments().device
        """Where networks are and batches come; asked once, since making arguments resets accelerate's state."""

    # ---- of the machine ----------------------------------------------------------------------------------------

    def arguments(self, stage: str = MAIN, **forced: Any) -> TrainingArguments:
        """Return the training arguments of a stage: the recipe's, with some values of the method's own."""
        quiet: dict[str, Any] = (
            {}
            if self.keeps
            else {
                "save_strategy": "no",
                "eval_strategy": "no",
                "disable_tqdm": True,
                "logging_strategy": "no",
                "logging_first_step": False,
            }
        )
        return training_arguments(self.recipe, self._folder_of(stage), **quiet | forced)  # type: ignore[arg-type]

    def generator(self, what: int = 0) -> torch.Generator:
        """Return a generator that depends on the run's seed and on nothing drawn before."""
        return torch.Generator().manual_seed(1_000_003 * what + self.seed)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, one after the other, with gradient."""
        return gather_with_gradient(rows) if self.processes > 1 else rows

    def drawn(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """Return what is drawn for this process's rows of a batch, alike for any number of processes."""
        return drawn(draw, rows)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return processes()

    def place(self, rows: Tensor) -> Tensor:
        """Return where this process's rows are among :meth:`gather`'s."""
        found = own(len(rows))
        return torch.arange(found.start, found.stop, device=rows.device)

    # ---- training ----------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimiser steps the present stage has done."""
        return 0 if self._trainer is None else self._trainer.state.global_step

    @property
    def progress(self) -> float:
        """Share of the present stage that is done, in [0, 1]."""
        return 0.0 if self._trainer is None else self.step / max(1, self._trainer.state.max_steps)

    def sgd(self, parameters: Any, momentum: float) -> torch.optim.Optimizer:
        """Return stochastic gradient descent at the recipe's rate and decay, where a group has none of its own.

        ``TrainingArguments`` name an ``sgd`` too, which has no momentum.
        """
        rate, decay = (float(self.recipe.trainer.get(name, 0.0)) for name in ("learning_rate", "weight_decay"))
        return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay)

    def train(
        self,
        model: nn.Module,
        losses: Losses,
        rows: Dataset[Any],
        *,
        stage: str = MAIN,
        sampler: Sampler[int] | None = None,
        figures: Callable[[], Mapping[str, float]] | None = None,
        couples_rows: bool = False,
        optimizer: torch.optim.Optimizer | None = None,
        **forced: Any,
    ) -> nn.Module:
        """Train a network to the end of a stage and return it, in evaluation mode; a finished stage is read back.

        Args:
            model: the network.
            losses: from network and batch to the rows' losses.
            rows: what is trained on.
            stage: its name; :data:`MAIN` trains in the run's own folder, and its network is what the run leaves.
            sampler: order of the rows; one with ``state_dict`` is kept in checkpoints.
            figures: what evaluations while it trains say of the network.
            couples_rows: whether a row's loss depends on the other rows of its batch.
            optimizer: one of the method's own.
            forced: training arguments that stand over the recipe's, such as ``max_steps``.

        Raises:
            ValueError: the loss became no number.
        """
        if stage == MAIN:
            self.model = model
        model.to(self.device)
        if self._read_back(stage, model):
            return model.eval()
        if figures is None:
            forced = {"eval_strategy": "no", **forced}
        arguments = self.arguments(stage, **forced)
        # a stage draws as it would alone, whatever stages came before it in this process
        torch.manual_seed(self.seed)
        options: dict[str, Any] = {} if optimizer is None else {"optimizers": (optimizer, None)}
        self._trainer = trainer = MethodTrainer(
            model,
            arguments,
            losses=losses,
            rows=rows,
            sampler=sampler,
            figures=figures,
            couples_rows=couples_rows,
            **options,
        )
        checkpoint = RunFolder(self._folder_of(stage)).last_checkpoint() if self.keeps else None
        if checkpoint is not None:
            say(f"{stage}: continuing from {checkpoint.name}")
        trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if not math.isfinite(trained.metrics["train_loss"]):
            raise ValueError(f"{stage}: the loss became {trained.metrics['train_loss']}; lower trainer.learning_rate")
        self._trainer = None
        self._write(stage, model)
        return model.eval()

    def _folder_of(self, stage: str) -> Path:
        return self.folder if stage == MAIN else self.folder / stage

    def _read_back(self, stage: str, model: nn.Module) -> bool:
        file = self._folder_of(stage) / FINISHED_FILE
        if not self.keeps or not file.is_file():
            return False
        model.load_state_dict(torch.load(file, weights_only=True, map_location=self.device))
        say(f"{stage}: finished before; its network is read back")
        return True

    def _write(self, stage: str, model: nn.Module) -> None:
        if self.keeps and is_main():
            with written_whole(self._folder_of(stage) / FINISHED_FILE) as partial:
                torch.save(model.state_dict(), partial)

    # ---- what is looked at -------------------------------------------------------------------------------------

    def picture(self, name: str, draw: Callable[[], Figure]) -> None:
        """Draw a picture into the run's folder, where reports find it; runs that keep nothing draw nothing."""
        if self.keeps and is_main():
            folder = self.folder / PICTURES_FOLDER
            save(draw(), [folder / f"{name}.png"])

    def over(self, function: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int = 512) -> Tensor:
        """Return a function of many rows, computed without gradient in batches on the device, on the CPU."""
        with torch.no_grad():
            parts = [function(part.to(self.device)).cpu() for part in torch.split(rows, batch_size)]
        return torch.cat(parts)
