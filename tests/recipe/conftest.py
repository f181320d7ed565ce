from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch

torch.set_num_threads(1)

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file into an empty current folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def to_file(text: str, name: str = "r.yaml") -> str:
        Path(name).write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return name

    return to_file


@pytest.fixture
def small(write: Write) -> str:
    """A recipe that is right, and the folder's only file."""
    return write("""
        model: {path: org/tiny}
        data:
          train: org/pairs
          eval_fraction: 0.1
        objective: {name: dpo, beta: 0.2}
        trainer:
          max_steps: 20
    """)
