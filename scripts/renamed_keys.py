"""Writes the tables of docs/coming-from-trl.md from what align answers to other projects' keys.

``python scripts/renamed_keys.py`` renews the page; ``--print`` prints it and leaves it alone.
"""

import argparse
import re
from pathlib import Path

from align.recipe.foreign import axolotl, handbook, trl
from align.recipe.foreign.answers import Answer

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-trl.md"
TABLES = {"trl": trl.TABLE, "alignment-handbook": handbook.TABLE, "axolotl": axolotl.TABLE | axolotl.PREFIXES}
MARKS = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def main() -> None:
    """Renew the page, or print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    arguments = parser.parse_args()
    page = MARKS.sub(lambda found: found[1] + table(TABLES[found[2]]) + found[3], PAGE.read_text(encoding="utf-8"))
    if arguments.print:
        print(page, end="")
    else:
        PAGE.write_text(page, encoding="utf-8")


def table(answers: dict[str, Answer]) -> str:
    """Return answers as a table, keys of one answer in one row: those with a counterpart before the others."""
    rows: dict[str, list[str]] = {}
    for key, answer in sorted(
        answers.items(), key=lambda item: (not item[1].to, not item[1].to and not item[1].trains)
    ):
        rows.setdefault(cell(answer), []).append(f"`{key}`" if key in whole(answers) else f"`{key}...`")
    lines = [f"| {', '.join(keys)} | {said} |" for said, keys in rows.items()]
    return "\n".join(["| there | here |", "| --- | --- |", *lines]) + "\n"


def whole(answers: dict[str, Answer]) -> set[str]:
    """Return the keys that are no beginnings of keys."""
    return answers.keys() - axolotl.PREFIXES.keys() if answers.keys() >= axolotl.PREFIXES.keys() else set(answers)


def cell(answer: Answer) -> str:
    """Return what stands on the right of a row."""
    says = answer.says.replace("|", "\\|")
    if answer.to:
        return f"`{answer.to}`" + (f": {says}" if says else "")
    return ("**to decide:** " if answer.trains else "none: ") + says


if __name__ == "__main__":
    main()
