"""What may be written over: only files that say who made them."""

from pathlib import Path


def refuse_to_overwrite(path: Path, made_by: str) -> None:
    """Let a file be written over only if it is not there or says that this tool made it.

    Args:
        path: of the file.
        made_by: what stands near the start of every file that the tool makes.

    Raises:
        ValueError: otherwise, naming it.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if path.exists() and made_by.encode() not in path.read_bytes()[:4096]:
        raise ValueError(f"{path} exists and was not made by {made_by}; choose another name or remove it")
