"""``align probe MODEL --rank``: what a model's representations are like, without training anything."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, a hub name or package:NAME of a transformers model")
    parser.add_argument("--rank", action="store_true", help="RankMe: the effective rank of its embeddings")
    parser.add_argument(
        "--data", metavar="FILE", required=True, help="a text file with a text a line, or a folder of pictures"
    )
    parser.add_argument("--rows", type=int, default=2048, help="most texts or pictures (default: 2048)")
    parser.add_argument(
        "--pool", choices=("mean", "last", "first"), default="mean", help="how a row's states become one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Embed the rows and say what they span.

    Raises:
        ValueError: nothing is asked, or the model or the data cannot be read.
    """
    if not arguments.rank:
        raise ValueError("say what to measure: --rank")
    if arguments.rows < 2:
        raise ValueError(f"--rows must be at least 2, got {arguments.rows}")
    from align.wings.embedding import embed_pictures, embed_texts
    from align.wings.parts.diagnostics import alpha_req, rankme, threshold_rank

    path = Path(arguments.data)
    if not path.exists():
        raise ValueError(f"--data {path}: there is no such file or folder")
    embed = embed_pictures if path.is_dir() else embed_texts
    embeddings = embed(arguments.model, path, rows=arguments.rows, pool=arguments.pool)
    n, width = embeddings.shape
    found: dict[str, Any] = {
        "model": arguments.model,
        "rows": n,
        "width": width,
        "rankme": rankme(embeddings),
        "threshold_rank": threshold_rank(embeddings),
        "alpha_req": alpha_req(embeddings),
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{n} embeddings of width {width}")
    print(f"RankMe:          {found['rankme']:.2f}   (1 ... {min(n, width)}; of runs of one method beside each other)")
    print(f"threshold rank:  {found['threshold_rank']}   (singular values above a thousandth of the largest)")
    print(f"alpha-ReQ:       {found['alpha_req']:.2f}   (exponent of the eigenvalues' decay)")
    if n < width:
        print(f"{n} rows are fewer than the width: the rank cannot show above {n}; give more rows")
    return 0
