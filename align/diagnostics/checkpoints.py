"""Tables of entanglement of checkpoints, kept as files: the same command measures only what is missing."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import torch
from tqdm import tqdm

from align.data.cache import written_whole
from align.diagnostics.table import Plan, Table, measured, together
from align.models.load import ADAPTER_CONFIG, Source, load_model
from align.objectives.base import Objective

FORMATS = ("parquet", "jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model to be measured.

    Attributes:
        name: of its files.
        path: of its weights.
    """

    name: str
    path: str


def checkpoints(paths: Sequence[str]) -> list[Checkpoint]:
    """Return the models that paths name: a run folder stands for all of its checkpoints, in their order.

    Raises:
        ValueError: if a run folder has none yet.
    """
    found: list[Checkpoint] = []
    for path in paths:
        folder = Path(path).expanduser()
        inside = _within(folder) if folder.is_dir() else None
        parts = [folder] if inside is None else inside
        prefix = f"{folder.name}-" if inside is not None and len(paths) > 1 else ""
        names = [prefix + part.name if inside is not None or folder.is_dir() else _plain(path) for part in parts]
        found += [
            Checkpoint(name=name, path=str(part) if folder.is_dir() else path)
            for name, part in zip(names, parts, strict=True)
        ]
    return _told_apart(found)


def _within(folder: Path) -> list[Path] | None:
    """Return the models in a run folder, or None for a folder that is a model itself."""
    if any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        return None
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    steps = sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [folder / "model"] if (folder / "model").is_dir() and not steps else []
    if not steps and not whole:
        raise ValueError(f"{folder} holds neither a model (config.json) nor checkpoints of a run (checkpoint-*)")
    return steps + whole


def _plain(path: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in path)


def _told_apart(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    seen: dict[str, int] = {}
    apart = []
    for one in found:
        seen[one.name] = seen.get(one.name, 0) + 1
        name = one.name if seen[one.name] == 1 else f"{one.name}-{seen[one.name]}"
        apart.append(Checkpoint(name=name, path=one.path))
    return apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured, beside the checkpoint: it is written into each result, so that no other is taken for it.

    Attributes:
        pairs: prepared, drawn, numbered.
        data: what they are of: file, number, seed.
        objective: whose weights are used, and how it was named.
        reference: its path, or None.
        batch_size: pairs measured at a time.
        verify: pairs whose whole gradients are compared.
        dtype: of the weights.
        pad: id that padding is filled with.
    """

    pairs: datasets.Dataset
    data: Mapping[str, Any]
    objective: tuple[Objective, Any]
    reference: str | None
    batch_size: int
    verify: int
    dtype: torch.dtype
    pad: int

    def key(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return what makes a result this one."""
        ids = [[row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in self.pairs]
        content = hashlib.sha256(repr(ids).encode())
        return {
            "model": checkpoint.path,
            "weights": _stamp(Path(checkpoint.path).expanduser()),
            "data": {**self.data, "content": content.hexdigest()[:16]},
            "objective": self.objective[1],
            "reference": self.reference,
            "verified": self.verify,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def _stamp(folder: Path) -> str | None:
    """Return what changes when weights in a folder are written again; None for what is no folder."""
    if not folder.is_dir():
        return None
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def load(path: str, dtype: torch.dtype) -> Any:
    """Load a model to be measured: an adapter stays one, and is then all that is differentiated by."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_model(Source(path=path, dtype=dtype, keep_adapter=True)).to(device).eval()  # type: ignore[arg-type]


def measure_checkpoint(checkpoint: Checkpoint, asked: Asked, folder: Path, form: str) -> dict[str, Any]:
    """Measure a checkpoint and write its table and its summary, or read them where they are there.

    Raises:
        ValueError: if a result of something else is in the way.
    """
    file, table_file = folder / f"{checkpoint.name}.json", folder / f"{checkpoint.name}.{form}"
    key = asked.key(checkpoint)
    if file.is_file() and table_file.is_file():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found.get("of") == key:
            return found
        raise ValueError(f"{file} is the result of something else ({_differing(found, key)}); choose another --out")
    if table_file.exists():
        raise ValueError(f"{table_file} is there without its {file.name}; choose another --out, or remove it")
    table = _measured(checkpoint, asked)
    write_rows(table.rows, table_file)
    result = {"summary": table.summary(), "layers": table.layers, "of": key}
    with written_whole(file) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _measured(checkpoint: Checkpoint, asked: Asked) -> Table:
    model = load(checkpoint.path, asked.dtype)
    reference = None
    if asked.reference is not None and asked.objective[0].needs_reference:
        reference = load(asked.reference, asked.dtype).requires_grad_(False)
    plan = Plan(objective=asked.objective[0], reference=reference, batch_size=asked.batch_size, verify=asked.verify)
    tables = []
    with tqdm(total=len(asked.pairs), desc=checkpoint.name, unit="pair") as bar:
        for table in measured(model, asked.pairs, plan, asked.pad):
            tables.append(table)
            bar.update(len(table.rows))
    return together(tables)


def write_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write a table by its file's ending: Parquet, or JSON lines."""
    with written_whole(file) as partial:
        if file.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), partial)
        else:
            partial.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows), encoding="utf-8")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a table that :func:`write_rows` wrote."""
    if file.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
        return rows
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _differing(found: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    of = found.get("of") or {}
    names = [name for name in key if of.get(name) != key[name]]
    return ", ".join(f"another {name}" for name in names) or "another version"
