"""The page of broken inputs says what is said today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_fresh():
    study = runpy.run_path(str(ROOT / "scripts/studies/broken_inputs.py"))
    assert len(study["CASES"]) >= 12
    assert study["page"]() == (ROOT / "docs/results/broken_inputs.md").read_text(encoding="utf-8")
