import pytest
import torch
from torch import nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from align.diagnostics.blocks import (
    BESIDE,
    coverage,
    of_bias,
    of_embedding,
    of_linear,
    of_rows,
    of_scale,
    rule_of,
    trainable_parameters,
)
from align.diagnostics.capture import Recorder
from align.diagnostics.places import ForeignShapeError, Sequences
from tests.diagnostics.brute import RootMeanSquareRMSNorm, model_of


def everything(rows=4, time=3):
    marked = torch.ones(rows, time, dtype=torch.bool)
    return Sequences(marked, marked, torch.arange(rows).view(2, 2), torch.zeros(rows, time).long())


class Scaled(nn.Embedding):
    """As Gemma's."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.embed_scale = 3.0

    def forward(self, ids):
        return super().forward(ids) * self.embed_scale


@pytest.mark.parametrize(
    ("module", "given", "rules"),
    [
        (nn.Linear(4, 5), (4, 3, 4), {"weight": of_linear, "bias": of_bias}),
        (nn.LayerNorm(4), (4, 3, 4), {"weight": of_scale, "bias": of_bias}),
        (nn.RMSNorm(4, eps=1e-5), (4, 3, 4), {"weight": of_scale}),
        (RootMeanSquareRMSNorm(4), (4, 3, 2, 4), {"weight": of_scale}),
        (T5LayerNorm(4), (4, 3, 4), {"weight": of_scale}),
        (CohereLayerNorm((2, 4)), (4, 3, 2, 4), {"weight": of_scale}),
        (nn.Conv1d(3, 2, 2), (4, 3, 5), {"weight": of_rows, "bias": of_rows}),
    ],
)
def test_each_row_by_itself_gives_the_same(module, given, rules):
    torch.manual_seed(0)
    module, given, sequences = module.double(), torch.randn(given).double(), everything()
    for weight in module.parameters():
        nn.init.normal_(weight)
    out = module(given)
    slope = torch.randn_like(out)
    for name, rule in rules.items():
        assert rule_of(module, name) is rule
        piece = rule(module, name, given, slope, sequences)
        weight = getattr(module, name)
        change = torch.randn_like(weight)
        for row in range(4):
            one = torch.autograd.grad((module(given[row : row + 1]) * slope[row : row + 1]).sum(), weight)[0]
            found = piece.along(change)[row // 2, row % 2]
            assert float(found) == pytest.approx(float((one * change).sum()), rel=1e-4)


@pytest.mark.parametrize("module", [nn.Embedding(9, 4, padding_idx=2), nn.Embedding(9, 4), Scaled(9, 4)])
def test_embeddings_with_their_padding_and_scale(module):
    torch.manual_seed(0)
    ids, sequences, module = torch.randint(0, 9, (4, 3)), everything(), module.double()
    ids[0, 1] = 2
    slope = torch.randn(4, 3, 4).double()
    piece = of_embedding(module, "weight", ids, slope, sequences)
    change = torch.randn_like(module.weight)
    for row in range(4):
        (one,) = torch.autograd.grad((module(ids[row : row + 1]) * slope[row : row + 1]).sum(), module.weight)
        assert float(piece.along(change)[row // 2, row % 2]) == pytest.approx(float((one * change).sum()))


@pytest.mark.parametrize(
    "module",
    [nn.Embedding(9, 4, max_norm=1.0), nn.Embedding(9, 4, scale_grad_by_freq=True), nn.GRU(4, 4), nn.Bilinear(2, 2, 2)],
)
def test_what_has_no_rule(module):
    assert all(rule_of(module, name) is None for name, _ in module.named_parameters())


def test_heads_before_time_are_turned():
    torch.manual_seed(0)
    norm, sequences = RootMeanSquareRMSNorm(4).double(), everything()
    given, slope = torch.randn(4, 2, 3, 4).double(), torch.randn(4, 2, 3, 4).double()
    one = of_scale(norm, "weight", given, slope, sequences)
    other = of_scale(norm, "weight", given.transpose(1, 2), slope.transpose(1, 2), sequences)
    torch.testing.assert_close(one.products(), other.products())


def test_a_norm_that_does_something_else_has_no_rule():
    class OddRMSNorm(RootMeanSquareRMSNorm):
        def forward(self, hidden):
            return super().forward(hidden) * hidden

    assert rule_of(OddRMSNorm(4), "weight") is None


def test_rows_that_cannot_be_told_apart():
    with pytest.raises(ForeignShapeError, match="Conv1d was called with"):
        of_rows(nn.Conv1d(3, 2, 2), "weight", torch.randn(7, 3, 5), torch.randn(7, 2, 4), everything())


def test_a_tied_weight_is_one_parameter_with_two_uses():
    tied = trainable_parameters(model_of("llama"))
    shared = next(p for p in tied.values() if len(p.uses) == 2)
    assert shared.name == "model.embed_tokens.weight"
    assert shared.covered
    assert coverage(tied) == 1
    assert sum(p.size for p in tied.values()) == sum(p.numel() for p in model_of("llama").parameters())


def test_adapters_alone_are_trainable():
    names = [p.name for p in trainable_parameters(model_of("llama", lora=True)).values()]
    assert names
    assert all("lora_" in name for name in names)


def test_what_trains_beside_the_policy_is_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    setattr(model[1], BESIDE, True)
    assert [p.name for p in trainable_parameters(model).values()] == ["0.weight", "0.bias"]
    assert set(Recorder(model, within=model[0]).parameters) == {id(p) for p in model[0].parameters()}
