r"""From a raw row in any of the known forms of pairs to a :class:`~align.data.rows.Row`.

``preference`` reads these, by what the cells hold:

====================  ====================  ==================================================================
prompt                chosen and rejected   what is made of it
====================  ====================  ==================================================================
text                  text                  plain text, taken as it is
absent                text                  plain text; the prompt is the start they share (:func:`shared_start`)
turns                 turns                 a conversation
absent                turns                 a conversation; the prompt is the leading turns they share
text                  turns                 a conversation; the text is a user turn, in front or already there
turns                 text                  a conversation; each completion is an assistant turn
====================  ====================  ==================================================================

``hh`` reads transcripts (``\n\nHuman: ... \n\nAssistant: ...``) as conversations; a ``prompt`` column, if
there is one, stands in front of both. ``auto`` takes a row as ``hh`` where there is no prompt and both sides begin
as transcripts do, else as ``preference``.

Optional columns: ``weight``, a positive number; ``chosen_score`` and ``rejected_score``, numbers; ``chosen_ended`` and
``rejected_ended``, false where a completion was cut off by a limit, so that nothing closes it
(:mod:`align.data.template`); ``tools``, a list of JSON schemas (or the same as JSON text), and
``chat_template_kwargs``, a mapping, both for the chat template. A row with pictures, sound or video is refused: leaving
them out would change what it asks. Single completions are read by :mod:`align.data.unpaired`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from align.data.columns import (
    ended_of,
    refuse_broken_texts,
    refuse_other_media,
    refuse_other_prompt,
    required,
    score_of,
    shared_columns,
    there,
)
from align.data.rows import Message, Row, RowError, Text
from align.data.turns import (
    Conversation,
    check_order,
    is_transcript,
    read_transcript,
    read_turns,
    split_given_prompt,
    split_shared_turns,
)

Form = Literal["auto", "preference", "hh"]


def to_row(raw: Mapping[str, Any], where: str, form: Form = "auto") -> Row:
    """Make a row of raw columns; columns it does not know are left alone.

    Args:
        raw: ``chosen``, ``rejected`` and perhaps ``prompt``, ``weight`` and the like; None counts as absent.
        where: its place, for errors.
        form: as in a recipe's ``format``.

    Raises:
        RowError: if a column is missing or of the wrong type, a completion is empty, both are the same, turns
            have unknown roles or stand in the wrong order, or the weight is not a positive number.
    """
    refuse_other_media(raw, where)
    refuse_single(raw, where)
    prompt = raw.get("prompt")
    chosen, rejected = (required(raw, column, where) for column in ("chosen", "rejected"))
    transcript = form == "hh" or (
        form == "auto" and prompt is None and is_transcript(chosen) and is_transcript(rejected)
    )
    parts: tuple[Text, Text, Text]
    if transcript:
        parts = _from_transcripts(prompt, chosen, rejected, where)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        parts = _from_texts(raw, prompt, chosen, rejected, where)
    else:
        parts = _from_turns(prompt, chosen, rejected, where)
    row = Row(
        prompt=parts[0],
        chosen=parts[1],
        rejected=parts[2],
        chosen_ended=ended_of(raw, "chosen_ended", where),
        rejected_ended=ended_of(raw, "rejected_ended", where),
        chosen_score=score_of(raw, "chosen_score", where),
        rejected_score=score_of(raw, "rejected_score", where),
        **shared_columns(raw, where),
    )
    refuse_broken_texts(row, may_say_nothing=transcript)
    if row.chosen == row.rejected:
        raise RowError("same", "chosen and rejected are the same", where=where, fix="remove the row")
    return row


def refuse_single(raw: Mapping[str, Any], where: str) -> None:
    """Refuse a row that holds a single completion where a pair is needed.

    Raises:
        RowError: if it does.
    """
    pair = any(there(raw, column) for column in ("chosen", "rejected", "chosen_ids", "rejected_ids"))
    single = any(there(raw, column) for column in ("completion", "completion_ids"))
    if single and not pair:
        raise RowError(
            "missing",
            "the row is a single completion with a label, but the objective needs pairs (chosen and rejected)",
            where=where,
            fix="give pairs, or use an objective that trains on single completions, such as kto",
        )


def shared_start(chosen: str, rejected: str) -> str:
    r"""Return the start that two texts share, up to the last word both have whole.

    One space before the words that differ belongs to the completions, as tokenizers would have it; line breaks
    and further spaces belong to the prompt. Where the differing words begin with different letters this is TRL's
    rule too; where they share letters, TRL cuts inside the word and this does not.

    Examples:
        >>> shared_start("The sky is blue.", "The sky is black.")
        'The sky is'
        >>> shared_start("Answer:\nyes", "Answer:\nno")
        'Answer:\n'
    """
    end = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    end = min(len(chosen), len(rejected)) if end is None else end
    if chosen[end : end + 1].isspace() and rejected[end : end + 1].isspace():
        return chosen[:end]
    while end and not chosen[end - 1].isspace():
        end -= 1
    return chosen[: end - 1] if chosen[:end].endswith(" ") else chosen[:end]


def _from_texts(raw: Mapping[str, Any], prompt: Any, chosen: str, rejected: str, where: str) -> tuple[Text, Text, Text]:
    if prompt is None:
        return _without_prompt(raw, chosen, rejected, where)
    if isinstance(prompt, str):
        return prompt, chosen, rejected
    answers = [Message(role="assistant", content=chosen)], [Message(role="assistant", content=rejected)]
    return _ordered((read_turns(prompt, where, "prompt"), *answers), where)


def _without_prompt(raw: Mapping[str, Any], chosen: str, rejected: str, where: str) -> tuple[str, str, str]:
    if chosen == rejected:
        raise RowError("same", "chosen and rejected are the same", where=where, fix="remove the row")
    prompt = shared_start(chosen, rejected)
    refuse_other_prompt(raw, where, known=prompt)
    if not prompt.strip():
        raise RowError(
            "missing",
            "there is no column 'prompt', and chosen and rejected share no start that could be it",
            where=where,
            fix="name the prompt's column in 'columns', or give an empty prompt",
        )
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _from_turns(prompt: Any, chosen: Any, rejected: Any, where: str) -> Conversation:
    sides = read_turns(chosen, where, "chosen"), read_turns(rejected, where, "rejected")
    if prompt is None:
        return _ordered(split_shared_turns(*sides, where), where)
    return _ordered(split_given_prompt(prompt, *sides, where), where)


def _from_transcripts(prompt: Any, chosen: Any, rejected: Any, where: str) -> Conversation:
    if prompt is not None and not all(isinstance(text, str) for text in (prompt, chosen, rejected)):
        problem = "must be a transcript, like chosen and rejected"
        raise RowError("wrong_type", problem, where=where, column="prompt")
    sides = [text if prompt is None else prompt + text for text in (chosen, rejected)]
    return split_shared_turns(
        read_transcript(sides[0], where, "chosen"), read_transcript(sides[1], where, "rejected"), where
    )


def _ordered(parts: Conversation, where: str) -> Conversation:
    prompt, chosen, rejected = parts
    check_order(prompt, {"chosen": chosen, "rejected": rejected}, where)
    return parts
