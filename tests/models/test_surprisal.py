import pytest
import torch

from align.models.logprobs import output_head
from align.models.surprisal import surprisals


def test_against_the_whole_distribution(model, monkeypatch):
    monkeypatch.setattr(
        "align.models.sequence_logps.logps_of.__kwdefaults__",
        {"lay_out": None, "tiled": None, "share": (0, 1), "tokens": 12},
    )  # several batches
    torch.manual_seed(1)
    sequences = [(torch.randint(5, 300, (3,)).tolist(), torch.randint(5, 300, (n,)).tolist()) for n in (4, 1, 6, 2)]
    found = surprisals(model.train(), output_head(model), sequences, label="surprisal")
    assert model.training
    for (prompt, ids), nats in zip(sequences, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        expected = [-float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids)]
        assert nats == pytest.approx(expected, rel=1e-4)
