"""The house's rules that a tool can check."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for p in (ROOT / "align").rglob("*.py") if p.name != "__init__.py")


def test_modules_are_found():
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_sizes_and_names(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.stem not in {"util", "utils", "helper", "helpers", "misc", "common"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_has_its_mirror(path):
    relative = path.relative_to(ROOT / "align")
    assert (ROOT / "tests" / relative.parent / f"test_{path.name}").is_file()


def test_nothing_large_or_foreign_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    large = [f for f in files if (ROOT / f).is_file() and (ROOT / f).stat().st_size > 1_000_000]
    assert not large
    assert not [f for f in files if f.endswith((".gguf", ".safetensors", ".bin", ".jsonl.gz"))]
