"""``python -m align`` is ``align``."""

import sys

from align.cli.main import ended, main

sys.exit(ended(main()))
