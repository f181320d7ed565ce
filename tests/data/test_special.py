import pytest

from align.data.rows import DataError
from align.data.special import close, closing_tokens, own_bos, with_start


def test_bos_is_found_by_trying(chatml, llama):
    assert own_bos(chatml) is None
    assert own_bos(llama) == llama.bos_token_id
    llama.backend_tokenizer.post_processor = None
    assert own_bos(llama) is None


def test_bos_comes_once(llama):
    bos = llama.bos_token_id
    assert with_start([7], llama, bos) == [bos, 7]
    assert with_start([bos, 7], llama, bos) == [bos, 7]
    assert with_start([7], llama, None) == [7]


def test_an_empty_prompt_becomes_one_token(chatml, llama):
    assert with_start([], llama, None) == [llama.bos_token_id]
    assert with_start([], chatml, None) == [chatml.eos_token_id]


def test_closing_tokens_are_the_special_ones_but_bos(chatml, llama):
    assert set(closing_tokens(chatml)) == {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
    assert "<|bos|>" not in closing_tokens(llama)
    llama.bos_token = llama.eos_token
    assert "<|eos|>" in closing_tokens(llama)
    llama.eos_token = None
    with pytest.raises(DataError, match="no eos_token"):
        closing_tokens(llama)


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("Yes.", "Yes.<e>"),
        ("", "<e>"),
        ("Yes. \n", "Yes. \n<e>"),
        ("Yes.<e>", "Yes.<e>"),
        ("Yes.<t>\n", "Yes.<t>"),
        ("Yes.<t>\n<e>", "Yes.<t>"),
        ("Yes.<t><t>", "Yes.<t>"),
        ("a<t>b", "a<t>b<e>"),
        (" <t>\n", " <t>"),
    ],
)
def test_a_completion_closes_once(text: str, closed: str):
    assert close(text, ["<t>", "<e>"], "<e>") == closed
