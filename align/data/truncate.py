"""Making a row fit: three policies, the same prompt ids for both sides of a pair always."""

from typing import Literal, TypeVar, get_args

from align.data.rows import Kind, RowError
from align.data.tokens import PromptTokens

Tokens = TypeVar("Tokens", bound=PromptTokens)

Truncation = Literal["keep_start", "keep_end", "drop"]
POLICIES: tuple[str, ...] = get_args(Truncation)


def truncate(row: Tokens, max_length: int | None, policy: Truncation, *, bos: int | None = None) -> Tokens | None:
    """Return the row cut to ``max_length`` tokens of prompt and completion, or None where it is to be dropped.

    - ``keep_start`` cuts the ends of completions.
    - ``keep_end`` cuts the start of the prompt, as much as the longest completion asks for, but leaves BOS in front
      of what is kept; where a completion does not fit beside one prompt token, its end is cut too.
    - ``drop`` leaves the row out.

    Args:
        row: with at least one prompt token and one token in each completion.
        max_length: in tokens; None for no limit.
        policy: as above.
        bos: the id that ``keep_end`` keeps in front of a prompt that begins with it.

    Raises:
        RowError: if no completion token would be left, or nothing that tells chosen from rejected.
    """
    if max_length is None or row.length <= max_length:
        return _checked(row, "same", "chosen and rejected become the same tokens", "remove the row")
    if policy == "drop":
        return None
    prompt = row.prompt_ids if policy == "keep_start" else _prompt_end(row, max_length, bos)
    room = max(0, max_length - len(prompt))
    if not room:
        raise RowError(
            "nothing_left",
            f"the prompt alone has {len(prompt)} tokens, so nothing is left of the completions within "
            f"max_length {max_length}",
            where=row.where,
            fix="raise max_length, or set truncation to keep_end or drop",
        )
    return _checked(
        row.cut_to(prompt, [ids[:room] for ids in row.completions.values()]),
        "nothing_left",
        f"chosen and rejected are the same within max_length {max_length}",
        f"raise max_length, or set truncation to {'drop' if policy == 'keep_end' else 'keep_end or drop'}",
    )


def _prompt_end(row: PromptTokens, max_length: int, bos: int | None) -> list[int]:
    whole = row.prompt_ids
    room = max(1, max_length - (row.length - len(whole)))
    kept = whole[-room:]
    return [whole[0], *kept[1:]] if 1 < room < len(whole) and whole[0] == bos else kept


def _checked(row: Tokens, kind: Kind, problem: str, fix: str) -> Tokens:
    if row.alike:
        raise RowError(kind, problem, where=row.where, fix=fix)
    return row
