"""Special tokens: what stands at the very start, and what closes a turn."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from align.data.rows import DataError


def own_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id that the tokenizer by itself puts in front of plain text (BOS), or None if it puts none."""
    marked: list[int] = tokenizer("a", return_attention_mask=False)["input_ids"]
    bare: list[int] = tokenizer("a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
    bos = tokenizer.bos_token_id
    return bos if bos is not None and marked[:1] == [bos] and bare[:1] != [bos] else None


def with_start(prompt_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, bos: int | None) -> list[int]:
    """Return a prompt's ids with ``bos`` in front, once, and never empty.

    The first token of a completion needs one before it to be predicted from, so an empty prompt becomes one token:
    BOS where there is one, else EOS.

    Args:
        prompt_ids: the prompt's ids without anything added.
        tokenizer: says which tokens there are.
        bos: the id to put in front where the prompt does not begin with it, or None for none.
    """
    ids = list(prompt_ids)
    if bos is not None and ids[:1] != [bos]:
        ids = [bos, *ids]
    if ids:
        return ids
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [first]


def closing_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens that may close a turn: all but BOS and the unknown token.

    Raises:
        DataError: if the tokenizer has no EOS.
    """
    if tokenizer.eos_token is None:
        raise DataError("the tokenizer has no eos_token", fix="set it in its files")
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    tokens = dict.fromkeys((*tokenizer.all_special_tokens, *added))
    opening = {tokenizer.bos_token, tokenizer.unk_token} - {tokenizer.eos_token}
    return tuple(token for token in tokens if token and token not in opening)


def close(text: str, closing: Sequence[str], eos: str) -> str:
    r"""Return a completion that ends in exactly one special token.

    White space and further special tokens behind the first of the last ones are cut; ``eos`` is added where
    there is none.

    Examples:
        >>> close("Yes.<|im_end|>\n", ["<|im_end|>", "</s>"], "</s>")
        'Yes.<|im_end|>'
        >>> close("Yes.", ["<|im_end|>", "</s>"], "</s>")
        'Yes.</s>'
    """
    end = None
    rest = text.rstrip()
    while token := next((token for token in closing if rest.endswith(token)), None):
        end = len(rest)
        rest = rest[: -len(token)].rstrip()
    return text + eos if end is None else text[:end]


def reopen(text: str, closing: Sequence[str]) -> str:
    """Return a completion without the special token that closes it.

    Examples:
        >>> reopen("Yes, and<|im_end|>", ["<|im_end|>"])
        'Yes, and'
    """
    return next((text.removesuffix(token) for token in closing if text.endswith(token)), text)
