"""A stand-in for the workbench of a method that runs in one process."""

import torch


class Alone:
    """A workbench of one process, at the beginning of its training."""

    seed, step, processes, progress = 0, 0, 1, 0.0

    def gather(self, rows):
        return rows

    def drawn(self, draw, rows):
        return draw(rows)

    def place(self, rows):
        return torch.arange(len(rows))

    def generator(self, what=0):
        return torch.Generator().manual_seed(what)

    def over(self, function, rows):
        with torch.no_grad():
            return function(rows)
