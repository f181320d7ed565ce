"""Tiles against the whole table: values, gradients, what models do to logits, and that the table is never there."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from align.models.tiled_head import LogitRule, Tiles, can_be_tiled, rule_of, tiled_logps

RULES = {
    "plain": LogitRule(),
    "scaled": LogitRule(scale=0.3),
    "capped": LogitRule(softcap=2.0),
    "all": LogitRule(scale=1.5, softcap=3.0, temperature=0.7),
}


def parts(dtype=torch.float64, tokens=11, width=6, vocabulary=23):
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, width, dtype=dtype), torch.randn(vocabulary, width, dtype=dtype)
    return hidden, weight, torch.randn(vocabulary, dtype=dtype), torch.randint(0, vocabulary, (tokens,))


def whole(hidden, weight, bias, targets, rule):
    logits = hidden @ weight.T + (0 if bias is None else bias)
    logits = logits * rule.scale
    if rule.softcap is not None:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    logp = torch.log_softmax(logits / rule.temperature, -1)
    return logp.gather(1, targets[:, None])[:, 0], torch.logsumexp(2 * logp, -1)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    "tiles", [Tiles(tokens=4, vocabulary=7, kept=0), Tiles(tokens=11, vocabulary=23, kept=0), Tiles()]
)
@pytest.mark.parametrize("trained", ["all", "no bias", "frozen head"])
def test_values_and_gradients(rule, tiles, trained):
    hidden, weight, bias, targets = parts()
    bias = None if trained == "no bias" else bias
    leaves = [hidden] if trained == "frozen head" else [t for t in (hidden, weight, bias) if t is not None]
    for leaf in leaves:
        leaf.requires_grad_()
    expected, squares = whole(hidden, weight, bias, targets, rule)
    found, collision = tiled_logps(hidden, weight, bias, targets, rule=rule, tiles=tiles, collision=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(collision, squares.detach(), rtol=1e-12, atol=1e-12)
    assert not collision.requires_grad
    pull = torch.linspace(-1, 2, len(targets), dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad((found * pull).sum(), leaves),
        torch.autograd.grad((expected * pull).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_extreme_logits():
    hidden, weight, _, targets = parts(torch.float32)
    found, _ = tiled_logps(
        hidden * 300, weight, None, targets, rule=LogitRule(), tiles=Tiles(tokens=3, vocabulary=5, kept=0)
    )
    expected, _ = whole((hidden * 300).double(), weight.double(), None, targets, LogitRule())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("grad", [True, False])
def test_low_precision_sums_in_float32(grad):
    hidden, weight, _, targets = parts(torch.bfloat16, tokens=64, width=32, vocabulary=500)
    weight.requires_grad_(grad)
    hidden.requires_grad_()
    found, _ = tiled_logps(
        hidden, weight, None, targets, rule=LogitRule(), tiles=Tiles(tokens=16, vocabulary=64, kept=0)
    )
    assert found.dtype == torch.float32
    plain = torch.log_softmax((hidden @ weight.T).float(), -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-5)
    found.sum().backward()
    exact = hidden.detach().double().requires_grad_()
    whole(exact, weight.detach().double(), None, targets, LogitRule())[0].sum().backward()
    assert float((hidden.grad.double() - exact.grad).norm() / exact.grad.norm()) < 1e-2


class Largest(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.elements = max(self.elements, found.numel())
        return found


@pytest.mark.parametrize("frozen", [False, True])
def test_no_table_of_tokens_and_vocabulary(frozen):
    hidden, weight, _, targets = parts(torch.float32, tokens=200, width=4, vocabulary=300)
    hidden.requires_grad_()
    weight.requires_grad_(not frozen)
    with Largest() as largest:
        found, _ = tiled_logps(
            hidden, weight, None, targets, rule=LogitRule(), tiles=Tiles(tokens=20, vocabulary=30, kept=5_000)
        )
        found.sum().backward()
    assert largest.elements <= 300 * 4  # the gradient of the weights is the largest there is; a table has 60,000


def test_rules_of_configurations():
    from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

    assert rule_of(LlamaConfig()) == LogitRule()
    assert rule_of(Gemma2Config(final_logit_softcapping=30.0)) == LogitRule(softcap=30.0)
    assert rule_of(GraniteConfig(logits_scaling=4.0)) == LogitRule(scale=0.25)
    assert rule_of(CohereConfig(logit_scale=0.5)) == LogitRule(scale=0.5)


def test_heads_that_are_no_plain_linear_layer():
    layer = torch.nn.Linear(2, 3)
    assert can_be_tiled(layer)
    layer.base_layer = torch.nn.Linear(2, 3)
    assert not can_be_tiled(layer)
    assert not can_be_tiled(torch.nn.Identity())
