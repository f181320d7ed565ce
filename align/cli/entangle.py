"""``align entangle MODEL [MODEL ...] FILE``: how chosen and rejected gradients are entangled, pair by pair."""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.data_source import add_source_arguments, lengths_of, source_of

if TYPE_CHECKING:
    from align.diagnostics.checkpoints import Asked, Checkpoint
    from align.objectives.base import Objective

DESCRIPTION = (
    "Measure the gradients of both log-probabilities of every pair under a model: their norms, their cosine, which way "
    "a step of plain descent moves both, and how far the conditions are from turning. For several checkpoints, or a "
    "run folder, curves over them. By adapters alone where the model is a folder with one, else by all weights."
)
JSON_KEYS = ("pairs", "cosine_mean", "share_ideal", "share_both_down", "share_both_up", "coverage", "max_rel_error")
"""What ``--json`` prints first; the rest of the summary follows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("models", metavar="MODEL", nargs="+", help="a model's path or name, or a run folder")
    add_source_arguments(parser, model=None)
    parser.add_argument("--pairs", type=int, default=256, help="pairs drawn at random; 0 is all (default: 256)")
    parser.add_argument("--seed", type=int, default=None, help="of the drawing (default: 42)")
    parser.add_argument(
        "--objective", default="dpo", help="whose weights are used: a name, or as in a recipe (default: dpo)"
    )
    parser.add_argument("--reference", default=None, help="a model's path; by default the model itself")
    parser.add_argument("--batch-size", type=int, default=4, help="pairs measured at a time (default: 4)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float64"), help="of the weights")
    parser.add_argument("--verify", action="store_true", help="compare two pairs with whole gradients")
    parser.add_argument(
        "--tokens", metavar="ROW", type=int, action="append", default=[], help="draw this row's token by token map"
    )
    parser.add_argument("--most-tokens", type=int, default=None, help="of a side in a token map (default: 48)")
    parser.add_argument("--table", default="parquet", choices=("parquet", "jsonl"), help="form of the tables")
    parser.add_argument("--out", type=Path, default=Path("entanglement"), help="folder (default: entanglement)")


def run(arguments: argparse.Namespace) -> int:
    """Measure what is missing, draw, and say what came of it."""
    from align.diagnostics.checkpoints import checkpoints

    for name, needs in (("most_tokens", "tokens"), ("seed", "pairs")):
        if getattr(arguments, name) is not None and not getattr(arguments, needs):
            raise ValueError(
                f"--{name.replace('_', '-')} would not be used: "
                + (
                    "it is of token maps, which --tokens asks for"
                    if name == "most_tokens"
                    else "--pairs 0 is all pairs"
                )
            )
    arguments.seed = 42 if arguments.seed is None else arguments.seed
    arguments.most_tokens = 48 if arguments.most_tokens is None else arguments.most_tokens
    for name in ("batch_size", "most_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if arguments.pairs < 0:
        raise ValueError(f"--pairs must be at least 1, or 0 for all, got {arguments.pairs}")
    models = checkpoints(arguments.models)
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        summaries, files = _all(arguments, models)
    if arguments.json:
        ordered = {name: _first(summary) for name, summary in summaries.items()}
        print(json.dumps(next(iter(ordered.values())) if len(ordered) == 1 else ordered))
        return 0
    print(_told(summaries))
    for file in files:
        print(file)
    return 0


def _all(arguments: argparse.Namespace, models: "list[Checkpoint]") -> tuple[dict[str, Any], list[Path]]:
    from align.diagnostics.checkpoints import measure_checkpoint, read_rows
    from align.report.pair_figures import draw_checkpoints, draw_histograms

    asked, tokenizer, every = _asked(arguments, models[0].path)
    folder, summaries, files = arguments.out, {}, []
    for model in models:
        found = measure_checkpoint(model, asked, folder, arguments.table)
        summaries[model.name] = found["summary"]
        table = folder / f"{model.name}.{arguments.table}"
        pictures = [folder / f"{model.name}.{ending}" for ending in ("png", "svg")]
        title = f"{model.name}: {found['summary']['pairs']} pairs of {Path(arguments.file).name}"
        files += [table, *draw_histograms(read_rows(table), title, pictures)]
    if len(models) > 1:
        pictures = [folder / f"checkpoints.{ending}" for ending in ("png", "svg")]
        files += draw_checkpoints(summaries, f"{len(models)} checkpoints, {Path(arguments.file).name}", pictures)
    for row in arguments.tokens:
        for model in models:
            files += _token_map(arguments, model, every, row, tokenizer, asked)
    return summaries, files


def _asked(arguments: argparse.Namespace, model: str) -> "tuple[Asked, Any, Any]":
    import torch

    from align.data.prepare import prepare_pairs
    from align.diagnostics.checkpoints import Asked
    from align.diagnostics.table import drawn
    from align.models.load import Source, load_tokenizer

    tokenizer = load_tokenizer(Source(path=arguments.model or model))
    objective, named = _objective(arguments.objective)
    if arguments.reference is not None and not objective.needs_reference:
        raise ValueError(f"--reference would not be used: objective {named!r} needs no reference; leave it out")
    prepared = prepare_pairs([source_of(arguments)], tokenizer, **lengths_of(arguments)).dataset
    for row in arguments.tokens:
        if not 1 <= row <= len(prepared):
            raise ValueError(f"--tokens {row}: {arguments.file} has rows 1 to {len(prepared)}")
    pairs = drawn(prepared, arguments.pairs or None, arguments.seed)
    asked = Asked(
        pairs=pairs,
        data={"file": Path(arguments.file).name, "pairs": len(pairs), "of": len(prepared), "seed": arguments.seed},
        objective=(objective, named),
        reference=arguments.reference,
        batch_size=arguments.batch_size,
        verify=2 if arguments.verify else 0,
        dtype=getattr(torch, arguments.dtype),
        pad=int(str(tokenizer.pad_token_id)),
    )
    return asked, tokenizer, prepared


def _objective(text: str) -> "tuple[Objective, Any]":
    """Return the objective of ``--objective``, a name or a section of a recipe in YAML."""
    from align.recipe.errors import Origin
    from align.recipe.objective import build_objective
    from align.recipe.yaml_tree import read_yaml

    node = read_yaml(
        text if text.lstrip().startswith(("{", "[")) else f"{{name: {text}}}", lambda _: Origin("--objective")
    )
    assert node is not None
    objective, _ = build_objective(node, node)
    return objective, text


def _token_map(
    arguments: argparse.Namespace, model: "Checkpoint", pairs: Any, row: int, tokenizer: Any, asked: "Asked"
) -> list[Path]:
    from align.diagnostics.checkpoints import load, write_rows
    from align.diagnostics.token_map import token_map
    from align.models.logprobs import output_head
    from align.report.console import stage
    from align.report.token_map import draw_token_map

    stem = f"{model.name}-tokens-{row}"
    with stage(f"tokens of row {row} under {model.name}"):
        loaded = load(model.path, asked.dtype)
        found = token_map(loaded, output_head(loaded), pairs[row - 1], most=arguments.most_tokens)
    chosen, rejected = ([tokenizer.decode([i]) for i in ids] for ids in (found.chosen, found.rejected))
    table = arguments.out / f"{stem}.jsonl"
    write_rows(
        [
            {
                "chosen": one,
                "norm": float(found.norms[0][i]),
                "rejected": rejected,
                "cosines": found.cosines[i].tolist(),
            }
            for i, one in enumerate(chosen)
        ],
        table,
    )
    left_out = f"; {found.cut} tokens at the ends left out" if found.cut else ""
    title = f"row {row}, {model.name}{left_out}"
    pictures = [arguments.out / f"{stem}.{ending}" for ending in ("png", "svg")]
    return [table, *draw_token_map(found.cosines.cpu().double().numpy(), chosen, rejected, title, pictures)]


def _first(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in JSON_KEYS if key in summary} | summary


def _told(summaries: dict[str, Any]) -> str:
    lines = ["model                          pairs  cosine  s_l/s_w  ideal  both down  both up  covered"]
    for name, found in summaries.items():
        shares = "  ".join(
            f"{found[f'share_{case}']:>{width}.0%}" for case, width in (("ideal", 5), ("both_down", 9), ("both_up", 7))
        )
        lines.append(
            f"{name[:30]:30} {found['pairs']:5}  {found['cosine_mean']:+6.3f}  {found['norm_ratio_mean']:7.3f}  "
            f"{shares}  {found['coverage']:7.1%}"
        )
        if "max_rel_error" in found:
            lines.append(f"  against whole gradients: {found['max_rel_error']:.1e}, relative to the norms")
    return "\n".join(lines)
