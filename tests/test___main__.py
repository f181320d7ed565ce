"""``python -m align`` is ``align``."""

import subprocess
import sys


def test_version():
    done = subprocess.run([sys.executable, "-m", "align", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("align ")
