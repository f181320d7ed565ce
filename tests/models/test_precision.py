"""What number types are chosen."""

import pytest
import torch

from align.models import precision
from align.models.precision import choose_precision

CPU = torch.device("cpu")


def test_what_the_recipe_says_is_taken():
    chosen = choose_precision("bfloat16", CPU, lora=False)
    assert (chosen.weights, chosen.autocast) == (torch.bfloat16, False)


@pytest.mark.parametrize(
    ("device", "fast", "lora", "weights", "autocast"),
    [
        ("cpu", False, True, torch.float32, False),
        ("cpu", True, True, torch.float32, True),
        ("cuda", True, False, torch.float32, True),
        ("cuda", True, True, torch.bfloat16, True),
        ("mps", False, False, torch.float32, False),
    ],
)
def test_auto(monkeypatch, device, fast, lora, weights, autocast):
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: fast)
    chosen = choose_precision("auto", torch.device(device), lora=lora)
    assert (chosen.weights, chosen.autocast) == (weights, autocast)
    assert device in chosen.reason


def test_a_device_that_is_not_here_is_not_asked(monkeypatch):
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: pytest.fail("asked"))
    chosen = choose_precision("auto", torch.device("cuda"), lora=True, fast=True)
    assert (chosen.weights, chosen.autocast) == (torch.bfloat16, True)


@pytest.mark.parametrize(("capabilities", "fast"), [({"amx_tile": True}, True), ({"avx512_bf16": True}, False)])
def test_cpus_are_fast_at_bfloat16_only_with_tiles(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.fast_bfloat16(CPU) is fast
