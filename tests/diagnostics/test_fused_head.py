import pytest
import torch
from transformers import LlamaConfig

from align.diagnostics.fused_head import FusedHead, transform_of
from tests.diagnostics.tiny import llama


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda z: z),
        ({"logit_scale": 0.5}, lambda z: 0.5 * z),
        ({"logits_scaling": 4.0}, lambda z: z / 4),
        ({"final_logit_softcapping": 3.0}, lambda z: 3 * torch.tanh(z / 3)),
        ({"lm_head_multiplier": 2.0, "final_logit_softcapping": 3.0}, lambda z: 3 * torch.tanh(2 * z / 3)),
    ],
)
def test_what_models_do_to_logits(settings, expected):
    logits = torch.linspace(-9, 9, 7)
    torch.testing.assert_close(transform_of(LlamaConfig(**settings))(logits), expected(logits))


@pytest.mark.parametrize("settings", [{}, {"final_logit_softcapping": 2.0}, {"logit_scale": 0.3}])
def test_slopes_are_those_of_the_log_probability_by_the_logits(tokenizer, settings):
    model = llama(tokenizer, **settings)
    fused = FusedHead(model)
    hidden, targets = torch.randn(3, 32), torch.tensor([1, 7, 9])
    logits = (hidden @ model.lm_head.weight.T).detach().requires_grad_()
    logps = torch.log_softmax(transform_of(model.config)(logits), -1)[torch.arange(3), targets]
    (expected,) = torch.autograd.grad(logps.sum(), logits)
    torch.testing.assert_close(fused._slopes(hidden, targets), expected)
