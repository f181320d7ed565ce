"""A process of a launch that trains several recipes, one after another.

``accelerate launch ... tests/launched.py FILE``: FILE holds a JSON list with the words of each ``align train``.
Processes start, import and find each other once. A word ``ALIGN_CACHE=FOLDER`` is the cache of that run and of later
ones; ``{rank}`` in it gives each process its own.
"""

import json
import os
import sys
from pathlib import Path


def main(file):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from align.cli.main import ended
    from align.cli.main import main as align
    from scripts.studies.fsdp_on_gloo import asked_for, use_fsdp_on_gloo

    if asked_for():
        use_fsdp_on_gloo()
    for asked in json.loads(Path(file).read_text()):
        words = [word for word in asked if not word.startswith("ALIGN_CACHE=")]
        for word in set(asked) - set(words):
            os.environ["ALIGN_CACHE"] = word.partition("=")[2].replace("{rank}", os.environ["RANK"])
        code = align(["train", *words])
        if code:
            return code
    return ended(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
