"""Adapters change nothing as made, and say which model they belong on."""

import pytest
import torch

from align.models.adapters import add_adapter, has_adapter, lora_config
from align.recipe.schema import LoraSettings


def test_a_fresh_adapter_changes_nothing_and_only_it_is_trained(model, tmp_path):
    ids = torch.arange(6)[None]
    before = model(ids).logits
    model.name_or_path = "package:some-weights"
    adapted = add_adapter(model, lora_config(LoraSettings(r=4, lora_alpha=8.0)))
    assert torch.equal(adapted(input_ids=ids).logits, before)
    assert all("lora_" in name for name, p in adapted.named_parameters() if p.requires_grad)
    assert has_adapter(adapted)
    assert not has_adapter(object())
    adapted.save_pretrained(tmp_path)
    assert '"base_model_name_or_path": "package:some-weights"' in (tmp_path / "adapter_config.json").read_text()


def test_a_list_of_targets_of_which_one_is_no_layer_is_refused(model):
    settings = LoraSettings(target_modules=["q_proj", "v_prj"])
    with pytest.raises(ValueError, match=r"model\.lora\.target_modules: the model has no layer 'v_prj'; did you mean"):
        add_adapter(model, lora_config(settings))
