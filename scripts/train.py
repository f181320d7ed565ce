"""``accelerate launch scripts/train.py RECIPE [KEY=VALUE ...]``: ``align train`` in every process of a launcher."""

import sys

from align.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
