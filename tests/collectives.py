"""A process of a launch that counts how often processes talk to one another while recipes train.

``accelerate launch ... tests/collectives.py OUT FILE``, FILE as in ``launched.py``: what python code calls; gradients
are reduced by DDP below python.
"""

import json
import sys
import traceback
from collections import Counter
from pathlib import Path

import torch.distributed as dist

NAMES = ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "broadcast", "gather", "reduce")
CALLERS = ("read", "_get_num_items_in_batch", "nested_gather", "store_flos", "settle", "decide")
"""Ours: metrics of a logging step, weight of a step's rows; transformers', when it logs: its loss, its operations;
ours, on the first batch: what is computed faster, and whether activations are kept."""
counts: Counter[str] = Counter()


def counted(name):
    whole = getattr(dist, name)

    def call(*args, **options):
        callers = {frame.name for frame in traceback.extract_stack()}
        counts[next((caller for caller in CALLERS if caller in callers), name)] += training
        return whole(*args, **options)

    return call


training = 0


def main(out, file):
    for name in NAMES:
        setattr(dist, name, counted(name))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from align.cli.main import ended
    from align.cli.main import main as align
    from align.trainers.base import AlignmentTrainer

    epoch = AlignmentTrainer._run_epoch

    def run_epoch(*args, **options):
        global training
        training = 1
        try:
            return epoch(*args, **options)
        finally:
            training = 0

    AlignmentTrainer._run_epoch = run_epoch
    found = []
    for words in json.loads(Path(file).read_text()):
        counts.clear()
        if code := align(["train", *words]):
            return code
        found.append({name: count for name, count in counts.items() if count})
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(found))
    return ended(0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
