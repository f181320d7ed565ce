"""docs/methods.md is what the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_fresh():
    script = [sys.executable, "scripts/method_reference.py"]
    made = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True, env=None)
    assert (ROOT / "docs" / "methods.md").read_text() == made.stdout, (
        "python scripts/method_reference.py > docs/methods.md"
    )
