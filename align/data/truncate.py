"""Making a pair fit: three policies, the same prompt ids for both sides always."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from align.data.rows import Kind, RowError

Truncation = Literal["keep_start", "keep_end", "drop"]
POLICIES: tuple[str, ...] = get_args(Truncation)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """A pair as token ids.

    Attributes:
        prompt_ids: ids before the completions, at least one, the same for both sides.
        chosen_ids: ids of the preferred completion, at least one, with the token that closes it unless cut.
        rejected_ids: ids of the other one, likewise.
        weight: how much the pair counts in the loss, > 0.
        where: place of its row in the source.
        prompt_hash: digest of the prompt's text before anything was cut; equal prompts have equal ones.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    weight: float
    where: str
    prompt_hash: str

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longer completion."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def truncate(
    pair: TokenPair, max_length: int | None, policy: Truncation, *, bos: int | None = None
) -> TokenPair | None:
    """Return the pair cut to ``max_length`` tokens of prompt and completion, or None where it is to be dropped.

    - ``keep_start`` cuts the ends of completions.
    - ``keep_end`` cuts the start of the prompt, as much as the longer completion asks for, but leaves BOS in front
      of what is kept; where a completion does not fit beside one prompt token, its end is cut too.
    - ``drop`` leaves the pair out.

    Args:
        pair: with at least one prompt token and one token in each completion.
        max_length: in tokens; None for no limit.
        policy: as above.
        bos: the id that ``keep_end`` keeps in front of a prompt that begins with it.

    Raises:
        RowError: if no completion token would be left, or nothing that tells chosen from rejected.
    """
    if max_length is None or pair.length <= max_length:
        return _checked(pair, "same", "chosen and rejected become the same tokens", "remove the row")
    if policy == "drop":
        return None
    cut = _keep_start(pair, max_length) if policy == "keep_start" else _keep_end(pair, max_length, bos)
    if not cut.chosen_ids:
        raise RowError(
            "nothing_left",
            f"the prompt alone has {len(pair.prompt_ids)} tokens, so nothing is left of the completions within "
            f"max_length {max_length}",
            where=pair.where,
            fix="raise max_length, or set truncation to keep_end or drop",
        )
    return _checked(
        cut,
        "nothing_left",
        f"chosen and rejected are the same within max_length {max_length}",
        f"raise max_length, or set truncation to {'drop' if policy == 'keep_end' else 'keep_end or drop'}",
    )


def _keep_start(pair: TokenPair, max_length: int) -> TokenPair:
    room = max(0, max_length - len(pair.prompt_ids))
    return replace(pair, chosen_ids=pair.chosen_ids[:room], rejected_ids=pair.rejected_ids[:room])


def _keep_end(pair: TokenPair, max_length: int, bos: int | None) -> TokenPair:
    room = max(1, max_length - (pair.length - len(pair.prompt_ids)))
    prompt = pair.prompt_ids[-room:]
    if 1 < room < len(pair.prompt_ids) and pair.prompt_ids[0] == bos:
        prompt = [pair.prompt_ids[0], *prompt[1:]]
    room = max_length - len(prompt)
    return replace(pair, prompt_ids=prompt, chosen_ids=pair.chosen_ids[:room], rejected_ids=pair.rejected_ids[:room])


def _checked(pair: TokenPair, kind: Kind, problem: str, fix: str) -> TokenPair:
    if pair.chosen_ids == pair.rejected_ids:
        raise RowError(kind, problem, where=pair.where, fix=fix)
    return pair
