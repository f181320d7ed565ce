"""Recipes of other projects brought over: what the tool said of each, as a page.

``python scripts/studies/brought_over.py FOLDER > docs/results/brought_over.md``

FOLDER holds the files and ``SOURCES.txt``: a line each, ``FILE REPOSITORY PATH COMMIT``, and behind it the method of a
file of TRL's form that is for another trainer than DPO's without a key that says so. The files stay where they are; the
page has the tool's words on them only.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HEAD = """# Recipes of other projects, brought over

Command: `python scripts/studies/brought_over.py FOLDER > docs/results/brought_over.md`, with FOLDER the files as
published and a list of their sources. Below is what `align recipes convert` and `align train` said of each on stderr,
trimmed, and which defaults of the other project the recipe that came out writes out.

"""
KEPT = 12
"""Lines of one output that are shown."""


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the files, and SOURCES.txt")
    folder = parser.parse_args().folder
    lines = (folder / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    sources = [line.split() for line in lines if line.strip()]
    results = [(words[:4], converted(folder, words[0], *words[4:])) for words in sources]
    print(HEAD + summary(results))
    for words, result in results:
        print(section(folder, words, result))


def converted(folder: Path, name: str, *method: str) -> tuple[int, str, str]:
    """Return exit code, recipe and words of ``align recipes convert``."""
    done = align(folder, "recipes", "convert", name, *(f"--method={word}" for word in method))
    return done.returncode, done.stdout, done.stderr


def align(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run align in the folder."""
    return subprocess.run(
        [sys.executable, "-m", "align", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def summary(results: list[tuple[list[str], tuple[int, str, str]]]) -> str:
    """Return a row for each file."""
    rows = [
        "| file | exit code | settings | defaults written out | to decide | loads |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (_, repository, path, _), (code, recipe, _) in results:
        settings = len(re.findall(r"^ +(?:- |\w+: )", recipe, flags=re.MULTILINE))
        defaults = len(re.findall(r"# (?:TRL|Axolotl)'s default", recipe))
        loads = loading(recipe) if code == 0 else "no recipe"
        rows.append(
            f"| {repository}, {path} | {code} | {settings} | {defaults} | {recipe.count('# DECIDE')} | {loads} |"
        )
    return "\n".join(rows) + "\n"


def loading(recipe: str) -> str:
    """Return whether our loader takes a recipe."""
    from tempfile import TemporaryDirectory

    from align.recipe.load import load_recipe

    with TemporaryDirectory() as place:
        file = Path(place) / "recipe.yaml"
        file.write_text(recipe, encoding="utf-8")
        load_recipe(file)
    return "yes"


def section(folder: Path, words: list[str], result: tuple[int, str, str]) -> str:
    """Return what was said of one file."""
    name, repository, path, commit = words
    _, recipe, said = result
    refused = align(folder, "train", name).stderr.partition("error: ")[2]
    defaults = re.findall(r"^ +(\S+: \S+)  # (?:TRL|Axolotl)'s default", recipe, flags=re.MULTILINE)
    shown = f"\nDefaults written out: {', '.join(f'`{line}`' for line in defaults)}.\n" if defaults else ""
    train = f"$ align train {name}\nerror: {trimmed(refused, 4)}"
    return (
        f"## {path}\n\n{repository}, commit `{commit[:12]}`.\n\n"
        f"```\n$ align recipes convert {name}\n{trimmed(said)}\n{train}\n```\n{shown}"
    )


def trimmed(text: str, most: int = KEPT) -> str:
    """Return the first lines of a text, each of at most 200 characters."""
    lines = text.strip().splitlines()
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join([line if len(line) <= 200 else line[:197] + "..." for line in lines[:most]] + more)


if __name__ == "__main__":
    main()
