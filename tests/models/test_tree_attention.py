"""Rows laid out as trees against the same rows by themselves, in models that transformers has."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.data.collate import padded
from align.data.prefix_tree import lay_out as keys_of
from align.models.layout import Layout
from align.models.logprobs import TiledHead, completion_logps, output_head, packed_logps
from align.models.tiled_head import Tiles, rule_of
from align.models.tree_attention import NAME, is_spans


def lay_out(*args, **options):
    return Layout.of(keys_of(*args, **options), "")


SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {**SIZES, "head_dim": 8}
MODELS = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": HEADS,
    "olmo2": SIZES,
    "phi": SIZES,
    "gpt_neox": SIZES,
    "mistral": {**HEADS, "sliding_window": 5},
    "gemma2": {**HEADS, "sliding_window": 6, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {**HEADS, "sliding_window": 6},
    "cohere": {**SIZES, "logit_scale": 0.3},
    "granite": {**SIZES, "logits_scaling": 3.0, "attention_multiplier": 0.2},
    "gpt2": {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "mixtral": {**SIZES, "num_local_experts": 3, "num_experts_per_tok": 2},
}


def rows():
    """Five groups: a shared start of the responses, many responses, one that begins another, a row alone."""
    torch.manual_seed(3)

    def drawn(count):
        return torch.randint(3, 61, (count,)).tolist()

    prompts = [drawn(n) for n in (9, 4, 20, 3, 7)]
    start = drawn(3)
    answers = [
        [[*start, *drawn(4)], [*start, *drawn(2)]],
        [drawn(n) for n in (5, 2, 3, 8)],
        [drawn(2), drawn(2)],
        [start, [*start, 5, 6]],
        [drawn(6)],
    ]
    sequences = [(p, answer) for p, group in zip(prompts, answers, strict=True) for answer in group]
    return sequences, [number for number, group in enumerate(answers) for _ in group]


def gradients(model, tokens, weights):
    model.zero_grad()
    (tokens.logp * weights).masked_fill(~tokens.mask, 0).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(model, *, budget=None, sharing=True, tiles=True, tolerance=1e-5):
    sequences, groups = rows()
    ids, real, completion = padded(sequences, 0)
    head = output_head(model)
    before = copy.deepcopy(model)
    plain = completion_logps(
        before, output_head(before), input_ids=ids, attention_mask=real, completion_mask=completion
    )
    model.set_attn_implementation(NAME)
    whole, starts = [[*p, *a] for p, a in sequences], [len(p) for p, _ in sequences]
    layout = lay_out(whole, starts, groups if sharing else range(len(whole)), budget=budget, multiple=4)
    tiled = TiledHead(Tiles(tokens=7, vocabulary=13, kept=0), rule_of(model.config)) if tiles else None
    packed = packed_logps(model, head, layout, tiled=tiled)
    assert torch.equal(packed.mask, plain.mask)
    weights = torch.randn(plain.logp.shape, dtype=plain.logp.dtype)
    one, other = gradients(before, plain, weights), gradients(model, packed, weights)
    gap = (packed.logp - plain.logp).masked_fill(~plain.mask, 0).abs() / plain.logp.abs().clamp(min=1)
    assert float(gap.detach().max()) < tolerance
    assert one.keys() == other.keys()
    scale = max(float(gradient.norm()) for gradient in one.values())
    for name, gradient in one.items():  # a bias of keys has no gradient but rounding
        assert float((gradient - other[name]).norm()) < tolerance * max(float(gradient.norm()), 1e-2 * scale), name


@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_and_gradients_are_those_of_rows_by_themselves(kind):
    torch.manual_seed(0)
    compare(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **MODELS[kind])).eval())


@pytest.mark.parametrize(
    "options", [{"budget": 40}, {"budget": 1}, {"sharing": False}, {"tiles": False}, {"sharing": False, "budget": 30}]
)
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_however_rows_are_laid_out(kind, options):
    torch.manual_seed(0)
    compare(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **MODELS[kind])).eval(), **options)


def test_in_float64_to_its_rounding():
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SIZES)
    compare(AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval(), tolerance=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_activation_checkpointing(reentrant):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES))
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    compare(model.train())


def test_what_is_no_tree_is_sdpa_and_nothing_of_it_is_saved(tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES)).eval()
    ids, real, _ = padded(rows()[0], 0)
    expected = model(input_ids=ids, attention_mask=real).logits
    written = model.generate(ids[:1], max_new_tokens=5, do_sample=False, pad_token_id=0)
    model.set_attn_implementation(NAME)
    torch.testing.assert_close(model(input_ids=ids, attention_mask=real).logits, expected)
    assert torch.equal(model.generate(ids[:1], max_new_tokens=5, do_sample=False, pad_token_id=0), written)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert not is_spans(real)


def test_attention_with_unknown_parts_is_refused():
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_oss", **{**HEADS, "num_local_experts": 2, "num_experts_per_tok": 1})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config._attn_implementation = NAME
    layout = lay_out([[3, 4, 5], [3, 6]], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="attention over trees knows no s_aux"):
        packed_logps(model, output_head(model), layout)
