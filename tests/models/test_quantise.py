"""Quantised weights beneath adapters: what cannot work, and a run of nf4 and int8 on the CPU from recipe to peft."""

import json

import pytest
import torch

from align.models import quantise
from align.models.load import Source, load_model
from align.models.locate import Located
from align.models.quantise import is_quantised, quantisation_config, quantisation_faults

CPU = torch.device("cpu")


def faults(kind="nf4", device=CPU, located=None, **changes):
    settings = {"lora": True, "reference": "auto", "moves": False, **changes}
    return list(quantisation_faults(kind, device, located, **settings))


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(quantise, "find_spec", lambda name: object())


def test_what_cannot_work(installed):
    assert faults() == []
    assert "cannot work without model.lora" in faults(lora=False)[0]
    assert "bitsandbytes runs on cpu, cuda, xpu" in faults(device=torch.device("mps"))[0]
    assert "give the original weights" in faults(located=Located("folder", "a.gguf"))[0]
    assert "leave model.reference and model.reference_sync out" in faults(reference="base")[0]
    assert "leave model.reference and model.reference_sync out" in faults(moves=True)[0]


def test_the_package_is_asked_for(monkeypatch):
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    assert faults() == ["model.quantization=nf4 needs the package bitsandbytes: pip install 'align[qlora]'"]


def test_settings_of_bitsandbytes():
    found = quantisation_config("fp4", torch.bfloat16)
    assert (found.load_in_4bit, found.bnb_4bit_quant_type) == (True, "fp4")
    assert (found.bnb_4bit_use_double_quant, found.bnb_4bit_compute_dtype) == (True, torch.bfloat16)
    assert quantisation_config("int8", torch.float32).load_in_8bit


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "q.yaml"
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32, quantization: nf4, lora: {{r: 4}}}}\n"
        f"data: {{train: {pairs_file}}}\nobjective: dpo\n"
        "trainer: {max_steps: 3, logging_steps: 1, learning_rate: 1.0e-2, disable_tqdm: true, save_steps: 2}\n"
    )
    return path


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_run_on_quantised_weights(recipe, tmp_path, model_dir, kind):
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from align import load_recipe
    from align.trainers.run import run_recipe

    run = tmp_path / "run"
    run_recipe(load_recipe(recipe, [f"output.dir={run}", f"model.quantization={kind}"]))
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), run / "model")
    assert not is_quantised(adapted.get_base_model())
    merged = load_model(Source(path=str(run / "model")))
    ids = torch.arange(3, 19).reshape(2, 8)
    torch.testing.assert_close(merged(ids).logits, adapted.merge_and_unload()(ids).logits)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_weights_lie_in_four_bits(model_dir):
    pytest.importorskip("bitsandbytes")
    model = load_model(Source(path=str(model_dir), quantisation="nf4"))
    assert is_quantised(model)
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert kinds["model.layers.0.mlp.up_proj.weight"] == torch.uint8
    assert kinds["model.embed_tokens.weight"] == torch.float32
    assert not is_quantised(load_model(Source(path=str(model_dir))))
