"""How long ``align logic`` takes to answer: whole processes, one after the other.

``python scripts/benchmarks/logic_commands.py [--json] [--write]`` runs each command of :data:`COMMANDS` once to warm
the file cache and then :data:`REPEATS` times, and gives the median and the slowest. ``--write`` keeps the table in
docs/results/logic_commands.md. An empty Python process is timed beside them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs/results/logic_commands.md"
REPEATS = 7
COMMANDS = (
    "show dpo",
    "show cCPO",
    "table CPO --at w=0.3,l=0.2",
    "compile cCPO",
    "check CPO entails cCPO",
    "check cCPO entails CPO --functional",
    "landscape",
    "landscape --json",
    "landscape --reference --json",
    "landscape --format svg",
    "count",
    "neighbours CPO",
    "meet ORPO CPO",
    "join ORPO CPO",
    "diff dpo cCPO-ref",
    "zoo",
    "decompile log(w*(1-l)/(l*(1-w)))",
    "decompile simpo",
    "show chain(16)",
)
HEAD = f"""# How long `align logic` takes

`python scripts/benchmarks/logic_commands.py --write`: whole processes, from start to end, median and slowest of
{REPEATS} after one that warms the file cache. `decompile` imports torch and sympy, the others neither.

"""


def main() -> None:
    """Time every command, and print or keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--write", action="store_true", help="keep the table under docs/results")
    given = parser.parse_args()
    rows = [{"command": "python -c pass", **timed([sys.executable, "-c", "pass"])}]
    for command in COMMANDS:
        print(command, file=sys.stderr, flush=True)
        rows.append({"command": f"align logic {command}", **timed([str(_align()), "logic", *command.split()])})
    print(json.dumps(rows, indent=2) if given.json else table(rows))
    if given.write:
        RESULT.write_text(HEAD + table(rows) + "\n", encoding="utf-8")


def _align() -> Path:
    return Path(sys.executable).parent / "align"


def timed(words: list[str]) -> dict[str, float]:
    """Return the median and the longest time of a process, in seconds."""
    times = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{words}: {done.stderr.decode()}")
        if repeat:
            times.append(time.perf_counter() - start)
    return {"median_s": round(statistics.median(times), 3), "slowest_s": round(max(times), 3)}


def table(rows: list[dict[str, object]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| command | median, s | slowest, s |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `{r['command']}` | {r['median_s']} | {r['slowest_s']} |" for r in rows)])


if __name__ == "__main__":
    main()
