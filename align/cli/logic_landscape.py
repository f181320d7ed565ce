"""``align logic landscape``: losses in the order of entailment, as text, picture or page."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from align.cli.logic import print_json
from align.logic.circuit import log_ratio
from align.logic.describe import landscape_facts
from align.logic.formula import Atom
from align.logic.landscape import Landscape, Which, filtered, landscape
from align.logic.parsing import parse
from align.logic.rows import rows_of
from align.logic.structure import SIGNS

FORMATS = ("text", "json", "dot", "mermaid", "svg", "png")


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--twelve", action="store_true", help="without l3, l5, l14 and bCPO, as in the paper's figure")
    which.add_argument("--reference", action="store_true", help="the reference forms, DPO among them")
    parser.add_argument("--core", metavar="FORMULA", help="only losses whose weakest core is this")
    parser.add_argument("--format", choices=FORMATS, help="of what is printed or written; by the ending of --out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        nargs="?",
        const=Path("landscape.html"),
        help="write a page to click through",
    )


def run_landscape(arguments: argparse.Namespace) -> int:
    """Print or write a landscape."""
    if arguments.html is not None:
        if arguments.out or arguments.json or arguments.format or arguments.core:
            raise ValueError("--html writes a page of all landscapes: leave --out, --format, --core and --json out")
        return _page(arguments)
    if arguments.json and arguments.format:
        raise ValueError("--json is a format of its own: leave --format out")
    kind = _format(arguments)
    chosen = _chosen(arguments)
    if kind == "json":
        if arguments.out is None:
            print_json(landscape_facts(chosen))
            return 0
        raise ValueError("--out writes pictures and text; redirect the output of --json")
    if kind == "png":
        return _png(chosen, arguments.out)
    text = _text(kind, chosen)
    if arguments.out is None:
        print(text)
    else:
        _write(arguments.out, text)
    return 0


def _chosen(arguments: argparse.Namespace) -> Landscape:
    which: Which = "twelve" if arguments.twelve else "reference" if arguments.reference else "sixteen"
    whole = landscape(which)
    if arguments.core is None:
        return whole
    core = parse(arguments.core)
    unknown = set(core.atoms()) - set(whole.nodes[0].structure.atoms)
    if unknown:
        raise ValueError(f"--core: no loss of this landscape reads {', '.join(atom.name for atom in unknown)}")
    kept = filtered(whole, lambda node: rows_of(node.core, _atoms(whole)) == rows_of(core, _atoms(whole)))
    if not kept.nodes:
        raise ValueError(f"--core: no loss has this weakest core; there are {', '.join(whole.regions())}")
    return kept


def _atoms(whole: Landscape) -> tuple[Atom, ...]:
    return whole.nodes[0].structure.atoms


def _format(arguments: argparse.Namespace) -> str:
    if arguments.json:
        return "json"
    ending = "" if arguments.out is None else arguments.out.suffix.removeprefix(".")
    by_ending = {"mmd": "mermaid", "gv": "dot", "txt": "text"}.get(ending, ending)
    found = arguments.format or by_ending or "text"
    if found not in FORMATS:
        raise ValueError(f"--out {arguments.out}: no format is called {ending!r}; known: {', '.join(FORMATS)}")
    return str(found)


def _text(kind: str, chosen: Landscape) -> str:
    if kind == "text":
        return "\n".join(_lines(chosen))
    from align.report import hasse

    return str(getattr(hasse, kind)(chosen)).rstrip("\n")


def _lines(chosen: Landscape) -> Iterator[str]:
    yield "most constrained first; an arrow leads to the next looser losses"
    for region, names in chosen.regions().items():
        yield ""
        yield f"{region}   ({len(names)})"
        for name in names:
            node = chosen.node(name)
            marks = " ".join(f"{SIGNS[mark]:2}" for mark in node.structure.marks()) if node.structure.n == 2 else ""
            known = f"   known: {node.known}" if node.known else ""
            yield f"  {name:6} {marks}  {log_ratio(node.structure)}  → {', '.join(chosen.looser(name)) or '-'}{known}"


def _png(chosen: Landscape, out: Path | None) -> int:
    from align.report import hasse

    if out is None:
        raise ValueError("a PNG goes to a file: --out landscape.png")
    _refuse(out)
    hasse.png(chosen, out)
    print(f"wrote {out}")
    return 0


def _write(out: Path, text: str) -> None:
    from align.report.hasse import MADE_BY

    _refuse(out)
    text = text if MADE_BY in text else f"Made by {MADE_BY}.\n\n{text}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {out}")


def _refuse(out: Path) -> None:
    """Refuse a folder, and a file that no landscape was written to before."""
    from align.report.hasse import MADE_BY
    from align.report.overwriting import refuse_to_overwrite

    refuse_to_overwrite(out, MADE_BY)


def _page(arguments: argparse.Namespace) -> int:
    from align.report.landscape_page import write_landscape_page

    print(f"wrote {write_landscape_page(arguments.html)}; open it in a browser")
    return 0
