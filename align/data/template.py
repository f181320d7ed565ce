r"""From a row to text: chat template, or plain text.

- A conversation goes through the tokenizer's chat template once: the prompt with the header of the answer, then the
  whole; what the whole has more is the completion.
- A conversation for a tokenizer without template becomes a transcript: the system turn as a paragraph of its own,
  then ``\n\nHuman: ...`` and ``\n\nAssistant: ...``. For Anthropic's HH data that is its text as published.
- Tools go through the template too. A template that writes nothing of a row's system turn, tools or tool calls refuses
  the row, and so does a tokenizer without template one with tools: what the model is to answer would be missing.
- Plain text is never put through a template.

Every completion ends in exactly one token that closes the turn: what a template writes behind its own (a line break
behind ``<|im_end|>``) is cut, since generation stops there; a completion that ends in no special token gets EOS.
The exception is a completion whose row says that it was cut off (``chosen_ended``, ``rejected_ended`` or
``completion_ended`` is false): nothing closes it, so that the model does not learn to stop in the middle of a sentence.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from align.data.rows import Message, PromptRow, RowError
from align.data.special import close, closing_tokens, own_bos, reopen, with_start

SPEAKERS = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}


class Rendered(NamedTuple):
    """A row as text.

    Attributes:
        prompt: everything before the completions.
        completions: each up to the token that closes it, in the row's order.
        templated: whether a chat template wrote it, which then decides about BOS too.
    """

    prompt: str
    completions: tuple[str, ...]
    templated: bool


class Renderer:
    """Renders rows for one tokenizer.

    Raises:
        DataError: when made, if the tokenizer has no EOS.
        RowError: when called, if the chat template refuses a row, leaves its tools out, or does not write the prompt
            the same with and without the completion.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._closing = closing_tokens(tokenizer)
        self._templated = has_template(tokenizer)
        self._writes_tools = self._writes_calls = self._writes_system = False

    def __call__(self, row: PromptRow[Any]) -> Rendered:
        """Return the texts of a row."""
        given = row.completions.values()
        if isinstance(row.prompt, str):
            prompt, texts = row.prompt, [cast(str, completion) for completion in given]
        else:
            prompt, texts = self._conversation(row, row.prompt, [cast(list[Message], turns) for turns in given])
        eos = str(self._tokenizer.eos_token)
        closed = [close(text, self._closing, eos) for text in texts]
        completions = tuple(
            text if ended else reopen(text, self._closing) for text, ended in zip(closed, row.ended, strict=True)
        )
        return Rendered(prompt, completions, self._templated and not isinstance(row.prompt, str))

    def _conversation(
        self, row: PromptRow[Any], prompt: list[Message], completions: Sequence[list[Message]]
    ) -> tuple[str, list[str]]:
        if not self._templated:
            _refuse_tools(row, [*prompt, *chain(*completions)])
            return open_turn(self._tokenizer, prompt, row.where), [_transcribed_answer(turns) for turns in completions]
        before = self._apply(row, prompt, answer_next=True)
        self._check_tools(row, prompt, before)
        self._check_system(row, prompt, before)
        return before, [self._answer(row, before, [*prompt, *turns]) for turns in completions]

    def _answer(self, row: PromptRow[Any], before: str, turns: list[Message]) -> str:
        whole = self._apply(row, turns)
        self._check_calls(row, turns, whole)
        if not whole.startswith(before):
            raise RowError(
                "template",
                "the chat template writes the prompt differently once the answer follows, so that no completion can "
                "be told from it",
                where=row.where,
                fix="give the tokenizer a chat template that does not",
            )
        return whole.removeprefix(before)

    def _apply(
        self, row: PromptRow[Any], turns: Sequence[Message], *, answer_next: bool = False, tools: bool = True
    ) -> str:
        given = {**row.template_settings, "tools": [dict(t) for t in row.tools] if tools and row.tools else None}
        return _apply(self._tokenizer, turns, row.where, answer_next=answer_next, settings=given)

    def _check_tools(self, row: PromptRow[Any], prompt: list[Message], text: str) -> None:
        if not row.tools or self._writes_tools:
            return
        if self._apply(row, prompt, answer_next=True, tools=False) == text:
            raise _left_out("tools", row.where)
        self._writes_tools = True

    def _check_system(self, row: PromptRow[Any], prompt: list[Message], text: str) -> None:
        if self._writes_system or prompt[0]["role"] != "system" or not prompt[0]["content"].strip():
            return
        try:
            left_out = self._apply(row, prompt[1:], answer_next=True) == text
        except RowError:  # it cannot do without
            left_out = False
        if left_out:
            fix = "write it into the first user turn, or give the tokenizer another chat template"
            raise RowError("template", "the chat template leaves the system turn out", where=row.where, fix=fix)
        self._writes_system = True

    def _check_calls(self, row: PromptRow[Any], turns: list[Message], text: str) -> None:
        if self._writes_calls or not any("tool_calls" in turn for turn in turns):
            return
        bare = [cast(Message, {key: v for key, v in turn.items() if key != "tool_calls"}) for turn in turns]
        if self._apply(row, bare) == text:
            raise _left_out("tool calls", row.where)
        self._writes_calls = True


def _left_out(what: str, where: str) -> RowError:
    fix = "give the tokenizer a chat template that knows tools"
    return RowError("template", f"the chat template leaves the {what} out", where=where, fix=fix)


def _refuse_tools(row: PromptRow[Any], turns: Sequence[Message]) -> None:
    called = any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns)
    for what, there in (("tools", row.tools or called), ("chat_template_kwargs", row.template_settings)):
        if there:
            problem = f"the row has {what}, but the tokenizer has no chat template to write them with"
            raise RowError("template", problem, where=row.where, fix="give it one, or train an instructed model")


def _transcribed_answer(completion: Sequence[Message]) -> str:
    return transcript(completion).removeprefix(SPEAKERS["assistant"])


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def open_turn(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], where: str) -> str:
    """Return the text of a conversation up to where the assistant is about to answer.

    Raises:
        RowError: if the chat template refuses it.
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
        RowError: if the chat template refuses it.
    """
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    text = open_turn(tokenizer, turns, where="prompt")
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return with_start(ids, tokenizer, None if has_template(tokenizer) else own_bos(tokenizer))


def join_neighbours(turns: Sequence[Message]) -> list[Message]:
    """Return turns with neighbours of one role made one, an empty line between what they say.

    A tool's turns, and turns that hold more than words, stay as they are.
    """
    joined: list[Message] = []
    for turn in turns:
        last = joined[-1] if joined else None
        if last and last["role"] == turn["role"] != "tool" and last.keys() == turn.keys() == {"role", "content"}:
            joined[-1] = Message(role=turn["role"], content=f"{last['content']}\n\n{turn['content']}")
        else:
            joined.append(turn)
    return joined


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Message],
    where: str,
    *,
    answer_next: bool,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    # Many templates insist that roles alternate; HH has rows that do not. What a template takes, it gets unchanged.
    refusal: Exception | None = None
    for attempt in (turns, join_neighbours(turns)):
        try:
            plain: list[Any] = [dict(turn) for turn in attempt]
            text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer_next, **settings)
        except Exception as error:  # a template may raise anything
            refusal = error
        else:
            return cast(str, text)
    raise RowError("template", f"the chat template refuses the row: {refusal}", where=where) from refusal
