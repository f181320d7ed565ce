"""What ``align env`` says, and what it keeps to itself."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

import align
from align.cli import env
from align.cli.main import main
from align.models.machine import free_memory


def test_json_and_the_page_say_the_same(capsys):
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["align", "machine", "gpus", "packages", "variables", "folders"]
    assert main(["env"]) == 0
    page = capsys.readouterr().out
    for section, values in found.items():
        assert f"{section}:\n" in page
        assert all(f"  {name}:" in page for name in values)


def test_versions_are_those_that_are_imported():
    import torch
    import transformers

    found = env.environment()["packages"]
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
    assert env.installed("no-such-package-anywhere") is None
    assert {"trl", "peft", "accelerate", "datasets", "deepspeed", "safetensors", "tokenizers"} <= found.keys()


def test_a_checkout_says_its_commit():
    found = env.aligned()
    assert found["version"] == align.__version__
    root = Path(align.__file__).parents[1]
    if (root / ".git").exists():
        words = ["git", "-C", str(root), "rev-parse", "HEAD"]
        assert found["commit"].startswith(subprocess.run(words, capture_output=True, text=True).stdout.strip())


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_TOKEN", "hf_abc", "set"),
        ("WANDB_API_KEY", "abc", "set"),
        ("ALIGN_HUB_PASSWORD", "abc", "set"),
        ("HF_ENDPOINT", "https://me:secret@hub.example/x", "https://...@hub.example/x"),
        ("TOKENIZERS_PARALLELISM", "false", "false"),
        ("OMP_NUM_THREADS", "2", "2"),
        ("CUDA_VISIBLE_DEVICES", "", ""),
        ("WORLD_SIZE", "4", "4"),
        ("MASTER_ADDR", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_variables_and_secrets(name, value, shown):
    assert env.variables({name: value, "LANG": "C", "AWS_SECRET": "x"}) == {name: shown}


def test_the_home_folder_is_not_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert env.short("/home/somebody/x:/home/somebody") == "~/x:~"
    assert env.short("/home/somebodyelse") == "/home/somebodyelse"
    assert env.variables({"HF_HOME": "/home/somebody/hub"}) == {"HF_HOME": "~/hub"}


def test_memory_is_what_a_run_could_use():
    said = free_memory(torch.device("cpu"))
    assert env.machine()["memory, total"] == f"{said.total / 2**30:.1f} GiB"
    assert said.source in env.machine()["memory, available"]


def test_folders_and_their_size(tmp_path, monkeypatch):
    cache, hub = tmp_path / "cache", tmp_path / "hf"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "a").write_bytes(b"x" * (2**30 // 100))
    (hub / "accelerate").mkdir(parents=True)
    (hub / "accelerate" / "default_config.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 8\n")
    monkeypatch.setenv("ALIGN_CACHE", str(cache))
    monkeypatch.setenv("HF_HOME", str(hub))
    found = env.folders()
    assert found["align cache"] == f"{cache} (0.01 GiB in 1 files)"
    assert found["accelerate default"].endswith("default_config.yaml (distributed_type MULTI_GPU, num_processes 8)")
    assert env.size(tmp_path / "none") == "not there"
    assert env.size(tmp_path, most=1).startswith("more than")


def test_no_gpu_is_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert env.gpus()["count"] == 0
