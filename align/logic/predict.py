"""What the marks of a structure foretell of training: which row dominates at small probabilities, and what then.

Probabilities of whole responses are tiny, so that a truth table has nearly all its weight on the row where the policy
deems nothing valid, and the log-ratio depends on how that row is marked. Derived here from the definition; the authors'
own runs agree with it (see docs/logic.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from align.logic.circuit import circuit, symbol, text
from align.logic.formula import Atom
from align.logic.rows import cofactors, everything, listed, projected, support, values
from align.logic.structure import PAIR, Mark, Structure


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a loss does where probabilities are small.

    Attributes:
        ratio: what the log-ratio becomes, in words and letters.
        title: the class in a word or two.
        consequence: what training does then.
    """

    ratio: str
    title: str
    consequence: str


OUTLOOKS: Mapping[Mark, Outlook] = MappingProxyType(
    {
        "neither": Outlook(
            "log w - log l",
            "ratio",
            "only the ratio of the two counts: both may fall together, and all losses of this class train alike",
        ),
        "lose": Outlook(
            "log w",
            "winner-anchored",
            "the winner's likelihood is all that counts: the loser is hardly pushed, and both may rise together",
        ),
        "win": Outlook(
            "-log l",
            "loser only",
            "only the loser is pushed down, and driving both to nothing satisfies the loss: expect a collapse",
        ),
        "both": Outlook(
            "about 0",
            "stuck",
            "what nearly always holds counts on both sides: the loss stays near log 2, and its gradient vanishes",
        ),
    }
)
"""By the mark of the row where the policy deems nothing valid."""


def column_class(structure: Structure) -> Mark | None:
    """Return the mark of the row where the policy deems nothing valid; None for a structure without the policy.

    Rows of a reference form are marked as what they are made of: a row of the policy's atoms counts where it does for
    some values of the others.

    Examples:
        >>> from align.logic.formula import L, W
        >>> column_class(Structure.of(L >> W)), column_class(Structure.of(L >> W, W | L))
        ('win', 'neither')
    """
    policy = structure.policy_marks()
    return policy.mark(0) if policy.atoms else None


def outlook(structure: Structure) -> Outlook | None:
    """Return what is foretold where probabilities are small; None for a structure that is no loss of a pair."""
    mark = column_class(structure)
    matters = structure.without_idle_atoms()
    responses = {atom.response for atom in matters.atoms if atom.model == "M"}
    if mark is None or not responses <= {"w", "l"} or not responses or not structure.top or not structure.bottom:
        return None
    if any(atom.model not in ("M", "Ref") for atom in matters.atoms):
        return OF_ITS_OWN
    if len(responses) == 1:
        return _of_one(mark, responses == {"w"})
    return OUTLOOKS[mark] if _compares(structure) else OF_ITS_OWN


def _compares(structure: Structure) -> bool:
    """Whether a pair in plain right order only wins, and one in wrong order only loses, whatever the others deem."""
    policy = structure.policy_marks()
    return policy.atoms == PAIR and (policy.mark(0b10), policy.mark(0b01)) == ("win", "lose")


OF_ITS_OWN = Outlook(
    "see the ratio",
    "of its own",
    "it is none of the classes of preference losses; see what the ratio becomes",
)
"""Of losses that the classes do not speak of: pairs in plain order do not count as usual, or others decide too."""


def _of_one(mark: Mark, winner: bool) -> Outlook:
    """Return what is foretold of a loss that reads one response of the policy alone."""
    usual = OUTLOOKS[mark]
    if mark in ("neither", "both") or (mark == "lose") == winner:
        return usual
    letter, which = ("w", "winner") if winner else ("l", "loser")
    if mark == "win":
        consequence = f"only the {which} is pushed, down: making it impossible satisfies the loss"
        return Outlook(f"-log {letter}", f"{which} only, down", consequence)
    consequence = f"the likelihood of the {which} is all that counts, and is raised"
    return Outlook(f"log {letter}", f"{which} only, up", consequence)


Start = Literal["floor", "even", "far"]
STARTS: Mapping[Start, str] = MappingProxyType(
    {
        "floor": "on whole responses the loss is 0 from the start, and nothing is learnt",
        "even": "on whole responses the loss starts where neither side has won",
        "far": "on whole responses the loss starts as large as a log-likelihood, and pulls with all its weight",
    }
)
"""What a loss is where policy and reference alike deem next to nothing valid."""


def start(structure: Structure) -> Start | None:
    """Return where the loss starts if the probabilities of policy and reference are small alike.

    The fewer statements must hold for a side's likeliest row, the larger its count: the log-ratio is about as many
    times log p as the top's row has more of them than the bottom's. None for one that counts nothing on a side.

    Examples:
        >>> from align.logic.formula import L, REF_W, W
        >>> start(Structure.of(L >> W, W | L)), start(Structure.of((L & REF_W) >> W, W | L)), start(Structure.of(W))
        ('even', 'floor', 'far')
    """
    if not structure.top or not structure.bottom:
        return None
    top, bottom = (_fewest(rows, structure) for rows in (structure.top, structure.bottom))
    return "even" if top == bottom else "floor" if top < bottom else "far"


def _fewest(rows: int, structure: Structure) -> int:
    """Return how many statements are true in a set's row that has the fewest; fixed probabilities do not count."""
    fixed = sum(1 << (structure.n - 1 - k) for k, atom in enumerate(structure.atoms) if atom.model == "Const")
    return min((row & ~fixed).bit_count() for row in listed(rows, structure.n))


def leading_ratio(structure: Structure) -> str:
    """Return what the log-ratio tends to as the policy's probabilities go to 0.

    Examples:
        >>> from align.logic.formula import L, W
        >>> leading_ratio(Structure.of(L >> W)), leading_ratio(Structure.of(L >> W, W | L).reference_form())
        ('log [ 1 / l ]', 'log [ w·rl / (l·rw) ]')
    """
    over, under = (_leading(rows, structure) for rows in (structure.top, structure.bottom))
    if over == under:
        return "0"
    bracketed = [f"({side})" if len(side) > 2 else side for side in (over, under)]
    over = over if "+" not in over else bracketed[0]
    return f"log [ {over} / {bracketed[1]} ]" if under != "1" or over == "1" else f"log [ {over} ]"


def _leading(rows: int, structure: Structure) -> str:
    """Return the terms of a side with the fewest of the policy's probabilities."""
    policy = tuple(atom for atom in structure.atoms if atom.model == "M")
    others = tuple(atom for atom in structure.atoms if atom.model != "M")
    seen = listed(projected(rows, structure.atoms, policy), len(policy))
    least = min((row.bit_count() for row in seen), default=0)
    terms = [_term(rows, structure, policy, others, row) for row in seen if row.bit_count() == least]
    return " + ".join(terms) or "0"


def _term(rows: int, structure: Structure, policy: tuple[Atom, ...], others: tuple[Atom, ...], row: int) -> str:
    held = rows
    for atom, value in zip(policy, values(row, len(policy)), strict=True):
        true, false = cofactors(held, structure.atoms.index(atom), structure.n)
        held = true if value else false
    rest = circuit(projected(held, structure.atoms, others), others)
    letters = [symbol(atom) for atom, value in zip(policy, values(row, len(policy)), strict=True) if value]
    written = text(rest)
    factors = [*letters, *([] if written == "1" else [written if len(written) <= 3 else f"({written})"])]
    return "·".join(factors) or "1"


def unread(structure: Structure) -> list[str]:
    """Return the responses whose probability the loss does not depend on."""
    matters = {*support(structure.top, structure.n), *support(structure.bottom, structure.n)}
    read = {structure.atoms[k].response for k in matters if structure.atoms[k].model == "M"}
    if not read <= {"w", "l"}:
        return []  # no loss of a pair
    return [response for response in ("w", "l") if response not in read]


def rewards_both_down(structure: Structure) -> bool:
    """Whether the loss can be driven to its best by making both responses impossible."""
    return column_class(structure) == "win"


def warnings(structure: Structure, *, link: str = "logistic", decreasing: bool | None = True) -> list[str]:
    """Return what to know before training, in words."""
    found = []
    if rewards_both_down(structure):
        found.append("driving both responses to probability 0 satisfies it; add a likelihood term (sft), or normalise")
    elif start(structure) == "floor":
        found.append("on whole responses its loss is 0 from the start: use length_normalised")
    if column_class(structure) == "both":
        found.append("its gradient vanishes at small probabilities: use length_normalised")
    for response in unread(structure):
        found.append(f"it does not read the {'winner' if response == 'w' else 'loser'}")
    if decreasing is False:
        found.append(f"its link ({link}) is not decreasing: entailment says nothing of the order of its losses")
    if structure.top == everything(structure.n):
        found.append("everything counts for the winner: its log-ratio is never below 0")
    return found
