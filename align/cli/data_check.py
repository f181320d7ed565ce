"""``align data check FILE [--json]``."""

import argparse
import json
from typing import TYPE_CHECKING

from align.cli.data_source import add_source_arguments, lengths_of, source_of, tokenizer_of

if TYPE_CHECKING:
    from align.data.check import CheckReport

DESCRIPTION = (
    "Count the rows that cannot be used, by kind, with their places. No model is loaded. With --model, its tokenizer "
    "and chat template are tried too, and lengths counted. The exit code is 0 where every row can be used, 1 where "
    "some cannot, 2 where the file cannot be read."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    add_source_arguments(parser, model=None)


def run(arguments: argparse.Namespace) -> int:
    """Count and say."""
    from align.data.check import check_rows

    source, lengths = source_of(arguments), lengths_of(arguments)
    tokenizer = tokenizer_of(arguments) if arguments.model else None
    report = check_rows(source, tokenizer, **lengths)
    if arguments.json:
        print(json.dumps(report.as_mapping(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines_of(report)))
    return 1 if report.bad else 0


def lines_of(report: "CheckReport") -> list[str]:
    """Return a report as lines to read."""
    from align.data.rows import KINDS

    lines = [f"{report.source}: {report.rows:,} rows, {report.rows - report.bad:,} can be used, {report.bad:,} cannot"]
    for kind, fault in report.faults.items():
        more = ", ..." if fault.count > len(fault.places) else ""
        lines += [
            f"  {kind}: {fault.count:,} ({KINDS[kind]})",  # type: ignore[index]
            f"    first:  {fault.example}",
            f"    places: {', '.join(fault.places)}{more}",
        ]
    if not report.tokenised:
        lines.append("chat template and lengths were not tried: name the model with --model")
    else:
        share = 100 * report.truncated / max(1, report.rows)
        noun = "completions" if report.unpaired else "pairs"
        lines.append(f"{report.truncated:,} {noun} ({share:.1f} %) would be cut, {report.dropped:,} dropped for length")
    return lines
