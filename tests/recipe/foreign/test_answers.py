import pytest

from align.recipe.foreign.answers import Answer, attention, dropped, grouped, missed, renamed, scaled_alpha, truth


def test_the_text_of_an_answer_names_our_key_or_the_reason():
    assert renamed("data.max_length").text == "data.max_length"
    assert renamed("data.max_length", "both").text == "data.max_length (both)"
    assert dropped("speed").text == "no counterpart: speed"
    assert grouped("model.lora", "a mapping").text == "model.lora (a mapping)"


def test_missed_keys_train_and_null_is_always_harmless():
    answer = missed("why", False)
    assert answer.trains
    assert answer.harmless == (None, False)
    assert not dropped("why").trains
    assert Answer(to="x").harmless == ()


def test_yaml_1_1_words_are_truth_values():
    assert [truth(v) for v in ("YES", "no", "n", 0, None)] == [True, False, "n", 0, None]


def test_attention_switches():
    assert attention("sdpa")("on") == "sdpa"
    with pytest.raises(ValueError, match="only true"):
        attention("sdpa")("sometimes")


def test_rank_stabilised_scale():
    """peft: rsLoRA scales by alpha / sqrt(r), plain LoRA by alpha / r."""
    for alpha, rank in ((16, 64), (32, 8)):
        assert scaled_alpha(alpha, rank) / rank == pytest.approx(alpha / rank**0.5)
