import pytest
import torch
from torch import nn

from align.diagnostics.capture import Recorder
from align.diagnostics.measure import Rows
from align.models.logprobs import completion_logps, output_head
from tests.diagnostics.brute import KINDS, Toy, error_of, exact_products, logps_of, model_of, rows_of, toy_logps

WEIGHTS = torch.tensor([0.3, -0.2, 0.5, -0.1, 0.7, 0.4])


def scored(model, rows):
    """The log-probabilities as training computes them: of scored positions alone."""
    return (
        completion_logps(
            model,
            output_head(model),
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            completion_mask=rows.completion_mask,
        )
        .summed()
        .logps
    )


def captured(model, rows, logps=scored, weights=WEIGHTS):
    """Inner products from one weighted backward, in units of log-probabilities."""
    recorder = Recorder(model).attach()
    with recorder.watching(rows.sequences):
        found = logps(model, rows)
    weights = weights[: len(found)].to(found.dtype)
    (found * weights).sum().backward()
    recorder.detach()
    model.zero_grad()
    assert recorder.faults() == []
    return recorder, recorder.finish().of_units(weights[rows.groups]).products


@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["stored", "non-reentrant", "reentrant"])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_whole_gradients(kind, tie, lora, checkpointing):
    model, rows = model_of(kind, tie=tie, lora=lora), rows_of()
    exact = exact_products(model, rows)
    if checkpointing is not None:
        if lora:
            model.enable_input_require_grads()
        model.activation_checkpointing_enable({"use_reentrant": checkpointing})
    recorder, found = captured(model, rows)
    assert recorder.coverage == 1
    assert error_of(found, exact) < 1e-5


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_gpt2_in_float64(tie, lora):
    model, rows = model_of("gpt2", tie=tie, lora=lora, dtype=torch.float64), rows_of()
    assert error_of(captured(model, rows)[1], exact_products(model, rows)) < 1e-9


def toy_rows():
    rows = rows_of(time=10)
    return Rows(
        input_ids=rows.input_ids % 29,
        attention_mask=torch.ones_like(rows.attention_mask),
        completion_mask=rows.completion_mask,
        groups=rows.groups,
    )


def test_a_toy_with_everything_in_float64():
    model, rows = Toy().double(), toy_rows()
    recorder, found = captured(model, rows, toy_logps)
    weights = [p for p in model.parameters() if p.requires_grad]
    whole = [torch.autograd.grad(one, weights, retain_graph=True) for one in toy_logps(model, rows)]
    stacked = torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in whole])[rows.groups]
    assert recorder.coverage == 1
    assert error_of(found, stacked @ stacked.mT) < 1e-9


def test_a_tied_head_has_cross_terms_that_count():
    rows = rows_of()
    tied, untied = (model_of("gpt2", tie=tie, dtype=torch.float64) for tie in (True, False))
    untied.load_state_dict(tied.state_dict())
    exact, apart = exact_products(tied, rows), exact_products(untied, rows)
    assert error_of(apart, exact) > 1e-3
    assert error_of(captured(tied, rows)[1], exact) < 1e-9


def test_learned_positions_are_looked_up_once_for_all_rows():
    model, rows = model_of("gpt2", dtype=torch.float64), rows_of()
    recorder, _ = captured(model, rows)
    name = "transformer.wpe.weight"
    exact = torch.stack(
        [torch.autograd.grad(one, model.transformer.wpe.weight, retain_graph=True)[0] for one in logps_of(model, rows)]
    ).flatten(1)[rows.groups]
    counts = WEIGHTS.double()[rows.groups]
    found = recorder.products[name] / (counts[:, :, None] * counts[:, None, :])
    assert error_of(found, exact @ exact.mT) < 1e-9


def test_of_mixed_precision_the_backward_that_was_run_is_measured():
    model, rows = model_of("llama"), rows_of()
    with torch.autocast("cpu", torch.bfloat16):
        _, found = captured(model, rows)
        exact = exact_products(model, rows)
    assert error_of(found, exact) < 3e-2


def test_all_members_of_a_group_are_compared():
    model, rows = model_of("qwen3"), rows_of()
    whole = Rows(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        completion_mask=rows.completion_mask,
        groups=torch.arange(6)[None],
    )
    assert error_of(captured(model, whole)[1], exact_products(model, whole)) < 1e-5


def test_what_is_used_otherwise_is_not_covered_and_named():
    class Odd(Toy):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.ones(12))
            self.unseen = nn.Linear(12, 12)

        def forward(self, input_ids):
            return super().forward(input_ids) + self.unseen.weight.sum() * self.raw.sum()

    model, rows = Odd(), toy_rows()
    recorder, _ = captured(model, rows, toy_logps)
    assert set(recorder.uncovered) == {"raw", "unseen.weight", "unseen.bias"}
    total = sum(p.numel() for p in model.parameters())
    assert recorder.coverage == pytest.approx(1 - (12 + 12 * 12 + 12) / total)


def test_nothing_of_it_stays_on_the_model_and_gradients_are_the_same():
    model, rows = model_of("llama"), rows_of()
    logps_of(model, rows).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    recorder = Recorder(model).attach()
    with recorder.watching(rows.sequences):
        found = logps_of(model, rows)
    found.sum().backward()
    recorder.detach()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_forward_that_is_not_watched_is_not_counted():
    model, rows = model_of("llama"), rows_of()
    exact = exact_products(model, rows)
    recorder = Recorder(model).attach()
    with recorder.watching(rows.sequences):
        found = logps_of(model, rows)
    beside = logps_of(model, rows_of(seed=5))
    (found.sum() + beside.sum()).backward()
    recorder.detach()
    assert error_of(recorder.finish().products, exact) < 1e-5


def test_kept_gradients_are_those_of_the_weights():
    model, rows = model_of("llama"), rows_of()
    recorder = Recorder(model, keep=True).attach()
    with recorder.watching(rows.sequences):
        found = logps_of(model, rows)
    found.sum().backward(retain_graph=True)
    recorder.detach()
    torch.manual_seed(3)
    changes = {id(p): torch.randn_like(p) for p in model.parameters()}
    along = sum(piece.along(changes[key]) for key, pieces in recorder.pieces.items() for piece in pieces)
    weights = list(model.parameters())
    for group, row in ((0, 0), (2, 1)):
        gradient = torch.autograd.grad(found[rows.groups[group, row]], weights, retain_graph=True)
        exact = sum(float((g.double() * changes[id(p)].double()).sum()) for g, p in zip(gradient, weights, strict=True))
        assert float(along[group, row]) == pytest.approx(exact, rel=1e-3, abs=1e-2)
