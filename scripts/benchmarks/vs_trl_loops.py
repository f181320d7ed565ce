"""Training loops that take turns, a step at a time, and the least that a step could cost, for ``vs_trl.py``."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import TrainerCallback

from align.data.collate import PairCollator
from align.data.packing import Packing, prefix_of
from align.data.prepare import prepare_pairs
from align.models.layout import Layout
from align.models.tree_attention import NAME
from scripts.benchmarks.vs_trl_rows import LORA, Row, model_of, rows_of, tokenizer_of


@dataclass
class Turns(TrainerCallback):
    """Stops a trainer at the beginning of every step until it is its turn, and times what lies between.

    Attributes:
        seconds: of each step, by the clock.
        cpu_seconds: of each step, of the process.
        bytes: most that each step allocated on a GPU, above what was there before.
    """

    device: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.here, self.go, self.over = threading.Event(), threading.Event(), False
        self._since: tuple[float, float] | None = None

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Say that a step's end has come, and wait."""
        self._stop()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Say that all is over."""
        self._note()
        self.over = True
        self.here.set()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Keep the first step's gradient."""
        if state.global_step == 0:
            found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            self.gradients = [found[name].detach().float().cpu().clone() for name in sorted(found)]

    def _note(self) -> None:
        if self._since is not None:
            now = clocks(self.device)
            self.seconds.append(now[0] - self._since[0])
            self.cpu_seconds.append(now[1] - self._since[1])
            if self.device == "cuda":
                self.bytes.append(torch.cuda.max_memory_allocated() - self._before)

    def _stop(self) -> None:
        self._note()
        self.here.set()
        self.go.wait()
        self.go.clear()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        self._since = clocks(self.device)

    def turn(self) -> None:
        """Let the trainer do one step, and return when it has."""
        self.here.clear()
        self.go.set()
        self.here.wait()
        if self.error is not None:
            raise self.error


def clocks(device: str) -> tuple[float, float]:
    """Return the time by the clock and of the process, what the device has to do done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def start(trainer: Any, device: str) -> Turns:
    """Start a trainer's loop in a thread and return when its first step is about to begin."""
    turns = Turns(device)
    trainer.add_callback(turns)

    def loop() -> None:
        try:
            trainer.train()
        except BaseException as error:
            turns.error = error
            turns.over = True
            turns.here.set()

    threading.Thread(target=loop, daemon=True).start()
    turns.here.wait()
    if turns.error is not None:
        raise turns.error
    return turns


def watch(trainer: Any, arm: str) -> list[Tensor]:
    """Return a list that fills with the log-probabilities of each step's sequences, the chosen sides first."""
    found: list[Tensor] = []
    if arm.startswith("align"):
        plain = trainer.objective_loss

        def watched(policy: Any, reference: Any, batch: Mapping[str, Tensor]) -> Tensor:
            sides = (policy.chosen.summed().logps, policy.rejected.summed().logps)
            found.append(torch.cat([side.detach().float() for side in sides]).cpu())
            loss: Tensor = plain(policy, reference, batch)
            return loss

        trainer.objective_loss = watched
        return found

    def kept(module: nn.Module, inputs: Any, outputs: Any) -> None:
        if torch.is_grad_enabled() and outputs.log_probs is not None:
            found.append(outputs.log_probs.detach().float().sum(-1).cpu())

    trainer.model.register_forward_hook(kept)
    return found


class Limit:
    """A plain forward and backward of every step's unique tokens, and AdamW's step."""

    def __init__(self, row: Row, steps: int, device: str) -> None:
        self.device, self.seconds = device, list[tuple[float, float]]()
        tokenizer, model = tokenizer_of(row), model_of(row, device)
        prepared = prepare_pairs(rows_of(row, steps), tokenizer, max_length=None).dataset
        collate = PairCollator(1, packing=Packing(multiple=128 if device == "cuda" else 1))
        starts = range(0, len(prepared), row.pairs)
        batches = [collate([prepared[i] for i in range(s, s + row.pairs)]) for s in starts]
        found = [Layout.of(batch, prefix_of(("chosen", "rejected"))) for batch in batches]
        self.layouts = [layout.to(torch.device(device)) for layout in found if layout is not None]
        model.set_attn_implementation(NAME)
        if row.lora:
            from peft import get_peft_model

            model = get_peft_model(model, LoraConfig(**LORA))
        self.model = model.to(device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def step(self, number: int) -> None:
        """Do one, and time forward and backward, and all of it."""
        layout = self.layouts[number]
        start = clocks(self.device)[0]
        inner: Any = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda"):
            states = inner.model(
                input_ids=layout.input_ids,
                attention_mask=layout.spans,
                position_ids=layout.position_ids,
                use_cache=False,
            ).last_hidden_state
            logits = inner.lm_head(states.flatten(0, 1)[layout.parents])
            loss = nn.functional.cross_entropy(logits.float(), layout.targets)
        loss.backward()
        between = clocks(self.device)[0]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append((between - start, clocks(self.device)[0] - start))
