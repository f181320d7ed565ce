import pytest

from align.data.rows import DataError, Row, RowError
from align.data.template import Renderer, has_template, render_prompt

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Is the sky blue?"}
YES = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}
TURNS = Row(prompt=[SYSTEM, USER], chosen=[YES], rejected=[NO], where="pairs.jsonl:4")
TEXT = Row(prompt="Sky?", chosen=" Blue.", rejected=" Red.", where="pairs.jsonl:5")


def test_chatml_is_cut_behind_the_token_that_closes(chatml):
    rendered = Renderer(chatml)(TURNS)
    assert rendered.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs the sky blue?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert rendered.completions == ("Yes.<|im_end|>", "No.<|im_end|>")
    assert rendered.templated


def test_llamas_turns_close_with_their_own_token(llama):
    rendered = Renderer(llama)(TURNS)
    assert rendered.prompt.startswith("<|bos|><|head|>system<|/head|>")
    assert rendered.completions == ("Yes.<|eot|>", "No.<|eot|>")


def test_a_template_without_a_closing_token_gets_eos(chatml):
    chatml.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert Renderer(chatml)(TURNS).completions[0] == "Yes.\n<|endoftext|>"


def test_without_a_template_a_conversation_is_a_transcript(plain):
    rendered = Renderer(plain)(TURNS)
    assert rendered == (
        "Be brief.\n\nHuman: Is the sky blue?\n\nAssistant:",
        (" Yes.<|endoftext|>", " No.<|endoftext|>"),
        False,
    )
    assert not has_template(plain)


def test_plain_text_is_never_templated(chatml):
    assert Renderer(chatml)(TEXT) == ("Sky?", (" Blue.<|endoftext|>", " Red.<|endoftext|>"), False)


def test_a_completion_of_several_turns_closes_at_its_end(chatml):
    row = Row(prompt=[USER], chosen=[YES, USER, NO], rejected=[NO], where="a:1")
    chosen = Renderer(chatml)(row).completions[0]
    assert chosen.startswith("Yes.<|im_end|>\n<|im_start|>user\n")
    assert chosen.endswith("assistant\nNo.<|im_end|>")


def test_a_template_that_rewrites_the_prompt_is_refused(chatml):
    chatml.chat_template = "{{ messages | length }}: {{ messages[-1]['content'] }}"
    with pytest.raises(DataError, match=r"pairs\.jsonl:4: the chat template writes the prompt differently"):
        Renderer(chatml)(TURNS)


def test_what_a_template_refuses_is_said(chatml):
    chatml.chat_template = "{{ raise_exception('no system turns here') }}"
    with pytest.raises(DataError, match=r"pairs\.jsonl:4: the chat template refuses the row: no system turns here"):
        Renderer(chatml)(TURNS)


def test_neighbours_of_one_role_are_joined_only_for_a_template_that_refuses_them(chatml):
    row = Row(prompt=[USER, YES, NO, USER], chosen=[YES], rejected=[NO], where="a:1")
    assert Renderer(chatml)(row).prompt.count("<|im_start|>assistant") == 3
    strict = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
    )
    chatml.chat_template = strict + "{% endif %}[{{ m['content'] }}]{% endfor %}"
    assert Renderer(chatml)(row).prompt == "[Is the sky blue?][Yes.\n\nNo.][Is the sky blue?]"


def test_the_prompt_alone_has_the_ids_that_training_sees(chatml, llama):
    for tokenizer in (chatml, llama):
        text = Renderer(tokenizer)(Row(prompt=[USER], chosen=[YES], rejected=[NO], where="a:1")).prompt
        assert render_prompt(tokenizer, USER["content"]) == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert render_prompt(tokenizer, [USER]) == render_prompt(tokenizer, USER["content"])


def test_the_prompt_alone_without_a_template(plain_llama):
    ids = render_prompt(plain_llama, USER["content"])
    assert plain_llama.decode(ids) == "<|bos|>\n\nHuman: Is the sky blue?\n\nAssistant:"


def test_a_completion_that_was_cut_off_is_not_closed(chatml):
    cut = Row(prompt=[USER], chosen=[YES], rejected=[NO], rejected_ended=False, where="pairs.jsonl:6")
    assert Renderer(chatml)(cut).completions == ("Yes.<|im_end|>", "No.")


def test_nor_is_one_in_a_transcript(plain):
    cut = Row(prompt=[USER], chosen=[YES], rejected=[NO], rejected_ended=False, where="pairs.jsonl:6")
    assert Renderer(plain)(cut).completions == (" Yes.<|endoftext|>", " No.")


TOOLS = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>"
    "{{ m['role'] }}\n{{ m['content'] }}{% if m.tool_calls %}CALL {{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKS = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"up": 1}}}]}
SAYS = {"role": "tool", "name": "look", "content": "blue"}


def test_tools_go_through_the_template(chatml):
    chatml.chat_template = TOOLS
    row = Row(prompt=[USER, ASKS, SAYS], chosen=[YES], rejected=[NO], tools=({"name": "look"},), where="a:1")
    rendered = Renderer(chatml)(row)
    assert rendered.prompt.startswith('<|im_start|>tools\n[{"name": "look"}]<|im_end|>')
    assert 'assistant\nCALL [{"function"' in rendered.prompt
    assert "<|im_start|>tool\nblue<|im_end|>" in rendered.prompt
    assert rendered.completions[0] == "Yes.<|im_end|>"
    called = Renderer(chatml)(Row(prompt=[USER], chosen=[ASKS], rejected=[NO], where="a:1"))
    assert called.completions[0].startswith('CALL [{"function": {"name": "look"')


def test_settings_of_a_row_reach_the_template(chatml):
    chatml.chat_template = CHATML_BRIEF
    bare, brief = (
        Renderer(chatml)(Row(prompt=[USER], chosen=[YES], rejected=[NO], where="a:1", template_settings=given))
        for given in ({}, {"brief": True})
    )
    assert brief.prompt == "Be brief. " + bare.prompt


CHATML_BRIEF = (
    "{% if brief %}Be brief. {% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"prompt": [USER], "tools": ({"name": "look"},)}, "the chat template leaves the tools out"),
        ({"prompt": [USER, ASKS, SAYS]}, "the chat template leaves the tool calls out"),
    ],
)
def test_a_template_that_leaves_tools_out_is_refused(chatml, parts, said):
    with pytest.raises(RowError, match=said) as error:
        Renderer(chatml)(Row(chosen=[YES], rejected=[NO], where="a:1", **parts))
    assert error.value.kind == "template"


@pytest.mark.parametrize("parts", [{"tools": ({"name": "look"},)}, {"template_settings": {"brief": True}}])
def test_a_transcript_has_no_place_for_tools(plain, parts):
    with pytest.raises(RowError, match="has no chat template to write them with"):
        Renderer(plain)(Row(prompt=[USER], chosen=[YES], rejected=[NO], where="a:1", **parts))


def test_a_template_that_leaves_the_system_turn_out_is_refused(chatml):
    chatml.chat_template = chatml.chat_template.replace(
        "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
    )
    with pytest.raises(RowError, match=r"pairs\.jsonl:4: the chat template leaves the system turn out"):
        Renderer(chatml)(TURNS)
    assert (
        Renderer(chatml)(Row(prompt=[USER], chosen=[YES], rejected=[NO], where="a:1")).completions[0]
        == "Yes.<|im_end|>"
    )
