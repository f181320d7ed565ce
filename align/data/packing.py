"""How the rows of a batch are laid into what a model computes: shared, packed, or a row each."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from align.data.prefix_tree import lay_out, tree_size

Row = tuple[str, Hashable, Sequence[int], Sequence[int]]
"""Side, group, prompt and completion of a row of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What collators lay out beside the plain rows of a batch.

    Attributes:
        sharing: rows of a group share what they begin with.
        packing: rows stand one behind the other; else each tree is a sequence by itself, and padded.
        budget: most tokens of a packed sequence; None for one sequence.
        multiple: sequences are padded to a multiple of this many tokens.
        sides: of pair batches, sets of sides that are computed together, a layout for each set.
        score_prompts: of pair batches, score the tokens of the chosen rows' prompts too.
    """

    sharing: bool = True
    packing: bool = True
    budget: int | None = None
    multiple: int = 1
    sides: tuple[tuple[str, ...], ...] = (("chosen", "rejected"),)
    score_prompts: bool = False

    def keys(
        self,
        prefix: str,
        sequences: Sequence[tuple[Sequence[int], Sequence[int]]],
        groups: Sequence[Hashable],
        whole: Sequence[bool] | None = None,
    ) -> dict[str, Tensor]:
        """Return the layout of rows as keys of their batch.

        Args:
            prefix: that the keys begin with.
            sequences: prompt and completion of each row.
            groups: equal for rows of which one begins as another does.
            whole: rows of which prompts are scored too; None for none.
        """
        rows = [[*prompt, *completion] for prompt, completion in sequences]
        starts = [len(prompt) for prompt, _ in sequences]
        if whole is not None:
            starts = [1 if asked else start for asked, start in zip(whole, starts, strict=True)]
        apart = groups if self.sharing else list(range(len(rows)))
        budget = self.budget if self.packing else 1  # into which no two trees fit
        laid = lay_out(rows, starts, apart, budget=budget, multiple=self.multiple)
        return {f"{prefix}{name}": tensor for name, tensor in laid.items()}

    def of_sides(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return a layout for every set of sides that is computed, of the rows of a batch in its order."""
        found: dict[str, Tensor] = {}
        for sides in self.sides:
            some = [row for row in rows if row[0] in sides]
            if some:
                found |= self.keys(
                    prefix_of(sides),
                    [(prompt, completion) for _, _, prompt, completion in some],
                    [group for _, group, _, _ in some],
                    [self.score_prompts and side == "chosen" for side, _, _, _ in some],
                )
        return found


def prefix_of(sides: Sequence[str]) -> str:
    """Return what keys of the layout of some sides begin with."""
    return f"packed_{'_'.join(sides)}_"


def shared_tokens(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> int:
    """Return how many tokens are computed less when the completions of a prompt share what they begin with."""
    rows = [[*prompt, *completion] for completion in completions]
    return sum(map(len, rows)) - tree_size(rows)
