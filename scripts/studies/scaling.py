"""Two plans of full DPO: an 8 B model on 8 GPUs, a 70 B model on 64.

``python scripts/studies/scaling.py [--json] [--write]`` validates the recipes of ``recipes/scale/`` for GPUs of 80 GiB.
No weights are needed: each model is a folder with a config of its dimensions and a small tokenizer, both made here, as
are pairs whose lengths are drawn as those of UltraFeedback are. ``--write`` keeps docs/results/scaling.md.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs/results/scaling.md"
PAIRS = 8192
PROMPT, COMPLETION = (121, 1.0, 1024), (288, 0.7, 2048)
"""Median tokens, spread of the logarithm, and most tokens; arXiv:2410.20305 gives UltraFeedback's rows a median of 409
tokens, of which prompts have 0.42 of what completions have."""
WORDS = (
    *("the", "a", "good", "bad", "warm", "cold", "rain", "sun", "walk", "day"),
    *("night", "bread", "tea", "train", "late", "early", "happy", "sad", "quiet", "loud"),
)
ULTRAFEEDBACK = 61_135
"""Pairs of the data set that lengths are taken from."""
SYNC_EACH = "trainer.accelerator_config={gradient_accumulation_kwargs: {sync_each_batch: true}}"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A model's dimensions, and the GPUs that it is planned on."""

    recipe: str
    hidden: int
    inner: int
    layers: int
    heads: int
    gpus: int


PLANS = (
    Plan(recipe="dpo_8b", hidden=4096, inner=14336, layers=32, heads=32, gpus=8),
    Plan(recipe="dpo_70b", hidden=8192, inner=28672, layers=80, heads=64, gpus=64),
)


def model_folder(plan: Plan, folder: Path) -> Path:
    """Write a config of Llama 3.1's dimensions and a tokenizer, and return their folder."""
    from transformers import LlamaConfig

    tokenizer = made_tokenizer()
    config = LlamaConfig(
        vocab_size=128264,
        hidden_size=plan.hidden,
        intermediate_size=plan.inner,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_theta=500000.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_tokenizer() -> Any:
    """Return a byte-level tokenizer that has each of the words as one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([" ".join(WORDS)] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def pairs_file(folder: Path) -> Path:
    """Write pairs of words that are a token each, always the same."""
    draw = random.Random(0)

    def some(median: float, spread: float, most: int) -> str:
        count = min(most, max(4, round(draw.lognormvariate(math.log(median), spread))))
        return " ".join(draw.choices(WORDS, k=count))

    file = folder / "pairs.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for number in range(PAIRS):
            row = {"prompt": f"{number} {some(*PROMPT)}", "chosen": some(*COMPLETION), "rejected": some(*COMPLETION)}
            out.write(json.dumps(row) + "\n")
    return file


def planned(plan: Plan, folder: Path, file: Path) -> dict[str, Any]:
    """Validate a plan's recipe, and return the facts, the page, and how long it took."""
    model = model_folder(plan, folder / plan.recipe)
    words = [f"recipes/scale/{plan.recipe}.yaml", f"model.path={model}", f"data.train={file}"]
    words += [f"output.dir={folder / 'run'}", "--gpus", str(plan.gpus), "--gpu-memory", "80", "--json"]
    environment = {**os.environ, "ALIGN_CACHE": str(folder / "cache")}
    begun = time.perf_counter()
    command = [sys.executable, "-m", "align", "validate", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{plan.recipe} failed:\n{done.stderr[-4000:]}")
    facts = json.loads(done.stdout)
    facts["gpus"]["command"] = as_published(plan, facts["gpus"]["command"])
    return {"recipe": plan.recipe, "seconds": round(time.perf_counter() - begun, 1), **facts}


def as_published(plan: Plan, command: str | None) -> str | None:
    """Return a command without this study's folders."""
    if command is None:
        return None
    launch = command.partition(" scripts/train.py ")[0]
    return f"{launch} scripts/train.py recipes/scale/{plan.recipe}.yaml data.train=FILE"


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a result file keeps: nothing that names a folder of this machine."""
    parts = ("recipe", "seconds", "lengths", "batches", "steps", "gpus", "warnings")
    model = {name: value for name, value in found["model"].items() if name not in ("path", "notes")}
    return {**{name: found[name] for name in parts}, "model": model}


def table(found: dict[str, Any]) -> str:
    """Return a plan's engines as a table, in GiB of one GPU at its worst moment."""
    gpus, gib = found["gpus"], 2**30
    shown = ("weights + reference", "gradients", "optimiser", "buffers", "activations", "peak")
    heads = ("engine", *shown, "verdict", "s a step")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in gpus["engines"]:
        parts = row["stages"][row["peak_stage"]]
        weights = parts["weights"] + parts["reference copy"]
        gradients, optimiser, activations = (
            parts.get(name, 0) for name in ("gradients", "optimiser state", "activations")
        )
        buffers = row["peak_bytes"] - weights - gradients - optimiser - activations
        sizes = (weights, gradients, optimiser, buffers, activations, row["peak_bytes"])
        moment = "" if row["peak_stage"] == "training" else f" ({row['peak_stage']})"
        cells = [row["engine"], *(f"{size / gib:.1f}" for size in sizes), row["verdict"] + moment]
        lines.append("| " + " | ".join([*cells, f"{row['step_seconds']:.1f}"]) + " |")
    return "\n".join(lines)


def section(found: dict[str, Any]) -> str:
    """Return what the page says of a plan."""
    gpus, steps, model = found["gpus"], found["steps"], found["model"]
    facts = (
        f"{model['parameters'] / 1e9:.2f} B parameters; batches of {gpus['rows']} pairs a GPU, {steps['batch']} pairs "
        f"a step; {steps['rows']:,} pairs in {steps['steps']} steps; {100 * found['batches']['padding']:.0f} % of "
        f"positions are padding. The estimate itself took {found['seconds']:.0f} s on one core."
    )
    notes = [f"Under {row['engine']}, {row['note']}." for row in gpus["engines"] if row["note"]]
    heading = f"## `recipes/scale/{found['recipe']}.yaml` on {gpus['count']} GPUs"
    parts = [heading, fill(facts, 120), table(found), *(wrapped(note) for note in notes), *recommendation(found)]
    return "\n\n".join(parts)


def recommendation(found: dict[str, Any]) -> list[str]:
    """Return what the page says of the engine that is recommended, or of what to change."""
    gpus, rows = found["gpus"], found["steps"]["rows"]
    chosen = next((row for row in gpus["engines"] if row["engine"] == gpus["recommended"]), None)
    if chosen is None:
        return ["None fits. " + "; ".join(way["change"] for way in gpus["advice"])]
    many = chosen["training_seconds"] * ULTRAFEEDBACK / rows
    told = (
        f"Recommended: {chosen['engine']}. A step is {gpus['step_flops'] / 1e12:,.0f} TFLOP on each GPU: "
        f"{chosen['computing_seconds']:.1f} s of computing and {chosen['sending_seconds']:.1f} s of sending, of which "
        f"{chosen['waiting_seconds']:.1f} s are waited for. Training takes about "
        f"{duration(chosen['training_seconds'])}, and evaluations {duration(gpus['evaluation_seconds'])}. As many "
        f"pairs as UltraFeedback has ({ULTRAFEEDBACK:,}) would take {duration(many)}."
    )
    return [fill(told, 120), f"```bash\n{gpus['command']}\n```"]


def wrapped(text: str) -> str:
    """Return a paragraph in lines, the settings in it as code."""
    return fill(text.replace(SYNC_EACH, f"`{SYNC_EACH}`"), 120, break_long_words=False, break_on_hyphens=False)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


HEAD = """# Two plans for many GPUs

`python scripts/studies/scaling.py --write`: what `align validate RECIPE --gpus N --gpu-memory 80` says of the two
recipes in `recipes/scale/`. **Nothing here was run on GPUs**; the model behind it is in [scaling.md](../scaling.md).
GiB of one GPU at its worst moment; *buffers* are gradient buckets, gathered weights and 2 GiB in reserve. {pairs:,}
pairs, drawn so that prompts have a median of {prompt} tokens and completions of {completion}.

"""


def main() -> int:
    """Make both plans, and print or keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument("--write", action="store_true", help="keep the page under docs/results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = study(Path(scratch))
    page = HEAD.format(pairs=PAIRS, prompt=PROMPT[0], completion=COMPLETION[0]) + "\n\n".join(map(section, found))
    print(json.dumps(found, indent=2) if given.json else page)
    if given.write:
        RESULT.write_text(page + "\n", encoding="utf-8")
        RESULT.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def study(scratch: Path) -> Sequence[dict[str, Any]]:
    """Return the facts of both plans."""
    file = pairs_file(scratch)
    return [kept(planned(plan, scratch, file)) for plan in PLANS]


if __name__ == "__main__":
    sys.exit(main())
