"""What a run writes and shows while it trains."""

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from align.report.metrics_file import METRICS_FILE

SHORT = {
    "loss": "loss {:.4f}",
    "logps/chosen": "chosen {:.2f}",
    "logps/rejected": "rejected {:.2f}",
    "rewards/margins": "margin {:+.3f}",
    "rewards/accuracies": "acc {:.2f}",
    "eval_loss": "held-out loss {:.4f}",
    "eval_accuracy": "held-out acc {:.3f}",
    "eval_auc": "held-out AUC {:.3f}",
    "tokens_per_second": "{:.0f} tok/s",
    "d2o/sampled_tokens_per_second": "{:.0f} sampled tok/s",
    "rows_per_second": "{:.0f} rows/s",
}
"""What a line on the terminal shows of a log entry; everything is in the metrics file."""


def one_line(step: int, logs: Mapping[str, Any]) -> str | None:
    """Return a log entry as a line for people, or None where it has nothing they look for.

    Examples:
        >>> one_line(5, {"loss": 0.6931, "rewards/accuracies": 0.5})
        'step     5 | loss 0.6931 | acc 0.50'
    """
    parts = [form.format(logs[key]) for key, form in SHORT.items() if key in logs]
    return " | ".join([f"step {step:5d}", *parts]) if parts else None


def write_line(
    callback: TrainerCallback,
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
    logs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Write a log entry as a line, above a bar where there is one."""
    line = one_line(state.global_step, logs or {})
    if state.is_world_process_zero and line:
        tqdm.write(line)


class OneLineProgress(ProgressCallback):
    """transformers' progress bar, with log entries as short lines above it instead of dictionaries."""

    on_log = write_line

    @classmethod
    def replace_default(cls, trainer: Trainer) -> None:
        """Put this in the place of the trainer's own progress bar or printer."""
        trainer.remove_callback(PrinterCallback)
        if trainer.pop_callback(ProgressCallback) is not None:
            trainer.add_callback(cls())
        else:
            trainer.add_callback(OneLinePrinter())


class OneLinePrinter(TrainerCallback):
    """The same lines where progress bars are switched off."""

    on_log = write_line


class MetricsFile(TrainerCallback):
    """Writes every log entry to ``metrics.jsonl`` in the run folder, a JSON object a line."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop what a killed run logged after the checkpoint it continues from: those steps come again.

        A run that starts afresh puts an earlier run's file aside instead.
        """
        file = metrics_file(args)
        if not state.is_world_process_zero or not file.is_file():
            return
        if state.global_step == 0:
            aside = next(p for i in count(1) if not (p := file.with_name(f"metrics-{i}.jsonl")).exists())
            file.rename(aside)
            return
        kept = [line for line in file.read_text().splitlines() if _step(line) <= state.global_step]
        file.write_text("".join(line + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append the entry."""
        if state.is_world_process_zero:
            with metrics_file(args).open("a") as out:
                out.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")


def metrics_file(args: TrainingArguments) -> Path:
    """Return where a run's log entries go."""
    return Path(str(args.output_dir)) / METRICS_FILE


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
