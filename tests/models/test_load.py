"""Loading from folders, adapters and GGUF files."""

import pytest
import torch
from peft import LoraConfig

from align.models.adapters import add_adapter
from align.models.load import Source, describe_weights, disable_dropout, load_model, load_tokenizer


def test_a_folder_loads_in_the_type_asked_for(model_dir):
    assert load_model(Source(path=str(model_dir), dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert load_tokenizer(Source(path=str(model_dir))).pad_token_id is not None


def test_pickled_weights_are_refused(model_dir, tmp_path, model):
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text((model_dir / name).read_text())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load_model(Source(path=str(tmp_path)))


def test_missing_models_are_named(tmp_path):
    with pytest.raises(ValueError, match="cannot load 'someone/absent'"):
        load_model(Source(path="someone/absent"))
    with pytest.raises(ValueError, match="cannot load"):
        load_model(Source(path=str(tmp_path)))


def test_an_adapter_folder_loads_as_its_base_with_the_adapter_merged(model_dir, tmp_path):
    base = load_model(Source(path=str(model_dir)))
    adapted = add_adapter(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    adapted.save_pretrained(tmp_path)
    ids = torch.arange(5)[None]
    expected = adapted(input_ids=ids).logits
    loaded = load_model(Source(path=str(tmp_path)))
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_off_everywhere():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)).train()
    ids = torch.arange(6)[None]
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_gguf_weights_load_equal_and_can_be_saved_again(tmp_path, tokenizer, model):
    """A GGUF file written here: the model read back answers as the original did, and saves."""
    folder = write_gguf(tmp_path, model)
    source = Source(path=str(folder / "tiny.gguf"))
    loaded = load_model(source)
    ids = torch.arange(9)[None]
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    loaded.save_pretrained(tmp_path / "again")
    again = load_model(Source(path=str(tmp_path / "again")))
    torch.testing.assert_close(again(ids).logits, loaded(ids).logits)
    assert "dequantised from tiny.gguf" in describe_weights(source.path)
    assert describe_weights(str(tmp_path / "again")) is None


def write_gguf(folder, model):
    """Write a Llama as GGUF in float32: the names and the permutation of llama.cpp's format."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(str(folder / "tiny.gguf"), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {k: v.detach() for k, v in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours)
            if heads:
                rows, columns = weight.shape
                weight = weight.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_weights_that_lack_a_tensor_are_refused(model_dir, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(model_dir, tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors, model.layers.1.mlp.up_proj.weight among them"):
        load_model(Source(path=str(tmp_path / "m")))


def test_pickled_adapters_are_refused(model_dir, tmp_path):
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{model_dir}"}}')
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"no adapter_model.safetensors"):
        load_model(Source(path=str(tmp_path)))


def test_functional_dropout_is_off_too():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, word_embed_proj_dim=8
    )
    model = OPTForCausalLM(config).train()
    ids = torch.arange(6)[None]
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
