import pytest

from align.data.formats import to_row
from align.data.rows import DataError, Row, UnpairedRow
from align.data.tokenize import PairTokenizer, resolved_length

USER = {"role": "user", "content": "Is the sky blue?"}
YES = {"role": "assistant", "content": "Yes, it is."}
NO = {"role": "assistant", "content": "No."}
TURNS = Row(prompt=[USER], chosen=[YES], rejected=[NO], weight=0.5, where="pairs.jsonl:4")
TEXT = Row(prompt="Is the sky blue?", chosen=" Yes, it is.", rejected=" No.", where="pairs.jsonl:5")


def one(tokenizer, row: Row):
    return PairTokenizer(tokenizer)([row])[0]


def test_ids_come_back_as_the_template_wrote_them(chatml):
    pair = one(chatml, TURNS)
    assert chatml.decode(pair.prompt_ids) == "<|im_start|>user\nIs the sky blue?<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.decode(pair.chosen_ids) == "Yes, it is.<|im_end|>"
    assert (pair.weight, pair.where, pair.prompt_hash) == (0.5, "pairs.jsonl:4", TURNS.prompt_digest)


def test_the_prompt_is_what_generation_starts_from(chatml, llama):
    for tokenizer in (chatml, llama):
        started = tokenizer.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
        assert one(tokenizer, TURNS).prompt_ids == started


@pytest.mark.parametrize("row", [TURNS, TEXT])
def test_completions_end_in_exactly_one_closing_token(chatml, llama, row: Row):
    for tokenizer, closing in ((chatml, "<|im_end|>"), (llama, "<|eot|>")):
        end = tokenizer.convert_tokens_to_ids(closing) if row is TURNS else tokenizer.eos_token_id
        pair = one(tokenizer, row)
        for ids in (pair.chosen_ids, pair.rejected_ids):
            assert ids[-1] == end
            assert sum(token in tokenizer.all_special_ids for token in ids) == 1


def test_bos_comes_once(llama, plain_llama):
    for row in (TURNS, TEXT):
        pair = one(llama, row)
        assert pair.prompt_ids[0] == llama.bos_token_id
        assert llama.bos_token_id not in pair.prompt_ids[1:] + pair.chosen_ids + pair.rejected_ids
    written = Row(prompt="<|bos|>Is it?", chosen=" Yes", rejected=" No", where="a:1")
    assert one(plain_llama, written).prompt_ids.count(plain_llama.bos_token_id) == 1


def test_a_template_without_bos_is_followed(llama):
    llama.chat_template = llama.chat_template.removeprefix("{{ bos_token }}")
    assert llama.bos_token_id not in one(llama, TURNS).prompt_ids


def test_the_boundary_is_between_tokens(plain):
    pair = one(plain, TEXT)
    assert plain.decode(pair.prompt_ids) == "Is the sky blue?"
    assert plain.decode(pair.chosen_ids) == " Yes, it is.<|endoftext|>"
    glued = Row(prompt="Is the s", chosen="ky blue", rejected="un red", where="a:1")
    assert plain.decode(one(plain, glued).prompt_ids) == "Is the s"


def test_an_empty_prompt_still_predicts_the_first_token(plain, plain_llama):
    row = Row(prompt="", chosen="Yes", rejected="No", where="a:1")
    assert one(plain_llama, row).prompt_ids == [plain_llama.bos_token_id]
    plain_llama.chat_template = None
    assert one(plain, row).prompt_ids == [plain.eos_token_id]


@pytest.mark.parametrize("name", ["chatml", "llama", "plain", "plain_llama"])
def test_every_form_of_one_conversation_has_the_same_ids(request: pytest.FixtureRequest, name: str):
    tokenizer = request.getfixturevalue(name)
    human = "\n\nHuman: Is the sky blue?\n\nAssistant:"
    raws = [
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": USER["content"], "chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": USER["content"], "chosen": [YES], "rejected": [NO]},
        {"chosen": f"{human} Yes, it is.", "rejected": f"{human} No."},
    ]
    if name.startswith("plain"):
        raws.append({"prompt": human, "chosen": " Yes, it is.", "rejected": " No."})
    pairs = PairTokenizer(tokenizer)([to_row(raw, "a:1") for raw in raws])
    assert len({(*p.prompt_ids, -1, *p.chosen_ids, -1, *p.rejected_ids) for p in pairs}) == 1


def test_an_assistant_that_says_nothing_is_one_closing_token(chatml):
    raw = {"chosen": "\n\nHuman: Hi\n\nAssistant: ", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    pairs = PairTokenizer(chatml)
    assert chatml.decode(pairs([to_row(raw, "a:1")])[0].chosen_ids) == "<|im_end|>"
    assert pairs.counts.silent == 1


def test_counts_by_hand(plain):
    rows = [Row(prompt="a", chosen=c, rejected="z", where="a:1") for c in ("b", "bcdef", "bcdefghijk")]
    whole = PairTokenizer(plain, max_length=None)(rows)
    lengths = [len(pair.chosen_ids) for pair in whole]
    assert lengths[0] == 2
    cutting = PairTokenizer(plain, max_length=1 + lengths[1])
    cutting(rows[:2])
    cutting(rows[2:])
    assert (cutting.counts.rows, cutting.counts.pairs, cutting.counts.truncated) == (3, 3, 1)
    assert cutting.counts.prompt_tokens == 3
    assert cutting.counts.chosen_tokens == lengths[0] + 2 * lengths[1]
    assert cutting.counts.rejected_tokens == 6
    dropping = PairTokenizer(plain, max_length=1 + lengths[1], truncation="drop")
    assert len(dropping(rows)) == 2
    assert (dropping.counts.rows, dropping.counts.pairs, dropping.counts.dropped) == (3, 2, 1)


def test_limits(plain):
    assert resolved_length(plain, None) is None
    plain.model_max_length = 512
    assert resolved_length(plain, None) == 512
    assert resolved_length(plain, 8) == 8
    with pytest.raises(ValueError, match="max_length must be at least 2"):
        PairTokenizer(plain, max_length=1)
    assert PairTokenizer(plain)([]) == []


def test_texts_that_become_the_same_tokens_are_refused(llama):
    row = Row(prompt=[USER], chosen=[YES], rejected=[{**YES, "content": " Yes, it is. "}], where="pairs.jsonl:8")
    with pytest.raises(DataError, match=r"pairs\.jsonl:8: chosen and rejected become the same tokens"):
        PairTokenizer(llama)([row])


def test_single_completions_are_tokenised_and_counted_alike(chatml):
    rows = [
        UnpairedRow(prompt=[USER], completion=[YES], desirable=True, where="a:1"),
        UnpairedRow(prompt=[USER], completion=[NO], desirable=False, completion_ended=False, where="a:2"),
    ]
    both = PairTokenizer(chatml)
    good, bad = both(rows)
    pair = one(chatml, TURNS)
    assert (good.prompt_ids, good.completion_ids) == (pair.prompt_ids, pair.chosen_ids)
    assert bad.completion_ids == pair.rejected_ids[:-1]
    counts = both.counts
    assert (counts.rows, counts.kept, counts.pairs, counts.desirable, counts.undesirable) == (2, 2, 0, 1, 1)
    assert (counts.desirable_tokens, counts.undesirable_tokens) == (len(good.completion_ids), len(bad.completion_ids))
