"""The section of ``align validate --gpus``: a row an engine, and what to start the run with."""

from collections.abc import Iterator, Mapping
from typing import Any

Facts = Mapping[str, Any]
Row = tuple[str, str]

HEADS = ("weights + ref", "gradients", "optimiser", "buffers", "activations", "peak", "step")
GIB = 2**30
NO_BUFFERS = ("weights", "reference copy", "gradients", "optimiser state", "activations")


def title_of(gpus: Facts) -> str:
    """Return the section's title.

    Examples:
        >>> title_of({"count": 64, "memory": 80.0, "nodes": 8})
        'on 64 GPUs of 80 GiB, in 8 nodes (GiB of one GPU at the worst moment)'
    """
    nodes = f", in {gpus['nodes']} nodes" if gpus["nodes"] > 1 else ""
    number = f"{gpus['count']} GPU" + ("s" if gpus["count"] > 1 else "")
    return f"on {number} of {gpus['memory']:g} GiB{nodes} (GiB of one GPU at the worst moment)"


def on_gpus(facts: Facts) -> Iterator[Row]:
    """Yield the rows of the section; those that begin with a space are shown as they are."""
    gpus = facts["gpus"]
    yield "", _cells(HEADS) + "   verdict"
    for row in gpus["engines"]:
        yield row["engine"], _engine(row)
    for row in gpus["engines"]:
        if row["note"]:
            yield f"under {row['engine']}", row["note"]
    if gpus["recommended"] is None:
        yield "recommended", f"none fits; {_first(gpus)}"
    else:
        yield from _start(facts, gpus)
    yield from _assumed(gpus)


def duration(seconds: float) -> str:
    """Return seconds in the unit that people would use.

    Examples:
        >>> duration(0.412), duration(75.0), duration(600.0), duration(86400.0)
        ('0.41 s', '75 s', '10 min', '24.0 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _engine(row: Facts) -> str:
    parts = row["stages"][row["peak_stage"]]
    held = [parts.get(name, 0) for name in NO_BUFFERS]
    weights, reference, gradients, optimiser, activations = held
    sizes = (weights + reference, gradients, optimiser, row["peak_bytes"] - sum(held), activations, row["peak_bytes"])
    moment = "" if row["peak_stage"] == "training" else f" (worst in {row['peak_stage']})"
    cells = [*(f"{size / GIB:.1f}" for size in sizes), duration(row["step_seconds"])]
    return f"{_cells(cells)}   {row['verdict']}{moment}"


def _cells(cells: Any) -> str:
    return " " + "".join(f"{cell:>{max(len(head), 7) + 2}}" for cell, head in zip(cells, HEADS, strict=True))


def _start(facts: Facts, gpus: Facts) -> Iterator[Row]:
    row = next(row for row in gpus["engines"] if row["engine"] == gpus["recommended"])
    tight = ", but it is tight" if row["verdict"] == "tight" else ""
    yield "recommended", f"{row['engine']}: the simplest engine that fits{tight}"
    yield "start it with", " " + gpus["command"]
    if gpus["several_nodes"]:
        yield "", gpus["several_nodes"]
    steps = facts["steps"]
    evaluations = f", and {duration(gpus['evaluation_seconds'])} of evaluations" if gpus["evaluation_seconds"] else ""
    yield "estimated time", f"{steps['steps']:,} steps in about {duration(row['training_seconds'])}{evaluations}"
    shown = f"{duration(row['computing_seconds'])} computing, {duration(row['sending_seconds'])} sending, of which "
    waits = duration(row["waiting_seconds"]) if row["waiting_seconds"] else "nothing"
    yield "a step", f"{gpus['step_flops'] / 1e12:,.0f} TFLOP on each GPU: {shown}{waits} is waited for"


def _first(gpus: Facts) -> str:
    ways = gpus["advice"]
    if not ways:
        return "nothing that is known here would help"
    named = "; ".join(f"{way['change']} ({way['saves_bytes'] / GIB:.1f} GiB less)" for way in ways[:3])
    return f"first, for {ways[0]['engine']}: {named}"


def _assumed(gpus: Facts) -> Iterator[Row]:
    speed = f"{100 * gpus['utilisation']:g} % of {gpus['tflops']:,g} TFLOP/s"
    links = f"{gpus['node_bandwidth']:g} GB/s to a GPU inside a node"
    if gpus["nodes"] > 1:
        links += f" of {gpus['per_node']}, {gpus['network_bandwidth']:g} GB/s for each GPU between nodes"
    yield "assumed", f"{speed}; {links}; nothing here is measured"
