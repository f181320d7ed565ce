"""``accelerate launch scripts/train.py RECIPE [KEY=VALUE ...]``: ``align train`` in every process of a launcher."""

import sys

from align.cli.main import ended, main

sys.exit(ended(main(["train", *sys.argv[1:]])))
