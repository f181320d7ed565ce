"""``align report RUN_DIR [RUN_DIR ...]``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_dirs", metavar="RUN_DIR", type=Path, nargs="+", help="a run folder; several are compared")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=None,
        help="the page; report.html in the run folder by default, of several runs in the folder you are in",
    )
    parser.add_argument(
        "--plots", metavar="DIR", type=Path, default=None, help="write every chart there as well, as PNG and SVG"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from align.report.page import write_report

    for path in write_report(arguments.run_dirs, arguments.out, arguments.plots):
        print(path)
    return 0
