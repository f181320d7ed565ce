"""``align plot RUN_DIR``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run folder, with its metrics.jsonl")
    parser.add_argument("--out", type=Path, default=None, help="folder of the pictures; the run folder by default")


def run(arguments: argparse.Namespace) -> int:
    """Draw the curves and say where they are."""
    from align.report.curves import draw_curves

    for path in draw_curves(arguments.run_dir, arguments.out):
        print(path)
    return 0
