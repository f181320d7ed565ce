r"""From a row to text: chat template, or plain text.

- A conversation goes through the tokenizer's chat template once: the prompt with the header of the answer, then the
  whole; what the whole has more is the completion.
- A conversation for a tokenizer without template becomes a transcript: the system turn as a paragraph of its own,
  then ``\n\nHuman: ...`` and ``\n\nAssistant: ...``. For Anthropic's HH data that is its text as published.
- Plain text is never put through a template.

Every completion ends in exactly one token that closes the turn: what a template writes behind its own (a line break
behind ``<|im_end|>``) is cut, since generation stops there; a completion that ends in no special token gets EOS.
The exception is a completion whose row says that it was cut off (``chosen_ended`` or ``rejected_ended`` is false):
nothing closes it, so that the model does not learn to stop in the middle of a sentence.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from align.data.rows import DataError, Message, Row
from align.data.special import close, closing_tokens, own_bos, reopen, with_start

SPEAKERS = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}


class Rendered(NamedTuple):
    """A row as text.

    Attributes:
        prompt: everything before the completions.
        chosen: the preferred completion, up to the token that closes it.
        rejected: the other one, likewise.
        templated: whether a chat template wrote it, which then decides about BOS too.
    """

    prompt: str
    chosen: str
    rejected: str
    templated: bool


class Renderer:
    """Renders rows for one tokenizer.

    Raises:
        DataError: when made, if the tokenizer has no EOS; when called, if the chat template refuses a row, or does
            not write the prompt the same with and without the completion.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._closing = closing_tokens(tokenizer)
        self._templated = has_template(tokenizer)

    def __call__(self, row: Row) -> Rendered:
        """Return the texts of a row."""
        if isinstance(row.prompt, str):
            texts = row.prompt, cast(str, row.chosen), cast(str, row.rejected)
        else:
            sides = cast(list[Message], row.chosen), cast(list[Message], row.rejected)
            texts = self._conversation(row.prompt, *sides, row.where)
        eos = str(self._tokenizer.eos_token)
        ends = row.chosen_ended, row.rejected_ended
        closed = [close(text, self._closing, eos) for text in texts[1:]]
        chosen, rejected = (
            text if ended else reopen(text, self._closing) for text, ended in zip(closed, ends, strict=True)
        )
        return Rendered(texts[0], chosen, rejected, self._templated and not isinstance(row.prompt, str))

    def _conversation(
        self, prompt: list[Message], chosen: list[Message], rejected: list[Message], where: str
    ) -> tuple[str, str, str]:
        before = open_turn(self._tokenizer, prompt, where)
        return before, self._answer(before, prompt, chosen, where), self._answer(before, prompt, rejected, where)

    def _answer(self, before: str, prompt: list[Message], completion: list[Message], where: str) -> str:
        if not self._templated:
            return transcript(completion).removeprefix(SPEAKERS["assistant"])
        whole = _apply(self._tokenizer, [*prompt, *completion], where, answer_next=False)
        if not whole.startswith(before):
            raise DataError(
                "the chat template writes the prompt differently once the answer follows, so that no completion can "
                "be told from it",
                where=where,
                fix="give the tokenizer a chat template that does not",
            )
        return whole.removeprefix(before)


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def open_turn(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], where: str) -> str:
    """Return the text of a conversation up to where the assistant is about to answer.

    Raises:
        DataError: if the chat template refuses it.
    """
    if has_template(tokenizer):
        return _apply(tokenizer, prompt, where, answer_next=True)
    return transcript(prompt) + SPEAKERS["assistant"]


def transcript(turns: Sequence[Message]) -> str:
    r"""Return turns as plain text.

    Examples:
        >>> transcript([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        'Be brief.\n\nHuman: Hi'
    """
    return "".join(
        turn["content"] if turn["role"] == "system" else f"{SPEAKERS[turn['role']]} {turn['content']}" for turn in turns
    )


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[Message]) -> list[int]:
    """Return the ids that stand before the answer, exactly as training sees them.

    Args:
        tokenizer: with a chat template or without.
        prompt: what a user says, or a conversation that ends with what a user says.

    Raises:
        DataError: if the chat template refuses it.
    """
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    text = open_turn(tokenizer, turns, where="prompt")
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return with_start(ids, tokenizer, None if has_template(tokenizer) else own_bos(tokenizer))


def join_neighbours(turns: Sequence[Message]) -> list[Message]:
    """Return turns with neighbours of one role made one, an empty line between what they say."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = Message(role=turn["role"], content=f"{joined[-1]['content']}\n\n{turn['content']}")
        else:
            joined.append(turn)
    return joined


def _apply(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], where: str, *, answer_next: bool) -> str:
    # Many templates insist that roles alternate; HH has rows that do not. What a template takes, it gets unchanged.
    refusal: Exception | None = None
    for attempt in (turns, join_neighbours(turns)):
        try:
            plain = [{"role": turn["role"], "content": turn["content"]} for turn in attempt]
            text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer_next)
        except Exception as error:  # a template may raise anything
            refusal = error
        else:
            return cast(str, text)
    raise DataError(f"the chat template refuses the row: {refusal}", where=where) from refusal
