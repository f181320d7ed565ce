import json

import pytest
import torch

from align.diagnostics.conditions import METRICS
from align.diagnostics.monitor import LAYERS_FILE, EntanglementMonitor
from align.models.logprobs import output_head
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from tests.conftest import pair_rows
from tests.diagnostics.tiny import EVERY_STEP, llama, logged, pair_batch, trainer_of


def test_steps_and_pairs_that_are_measured(tokenizer):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(6))
    settings = DiagnosticsSettings(entanglement=EntanglementSettings(every=3, pairs=4))
    monitor = EntanglementMonitor(model, output_head(model), settings)
    assert [step for step in range(7) if monitor.settings.measures(step)] == [0, 3, 6]
    batch["weight"][1], batch["real"][2] = 0.0, False
    assert monitor.open(0, batch).pairs.tolist() == [0, 3, 4, 5]
    assert monitor.open(0, batch).pairs.tolist() == []  # of the step's second batch none is left
    assert monitor.open(3, batch).pairs.tolist() == [0, 3, 4, 5]


def test_whole_gradients_need_whole_weights(tokenizer):
    model = llama(tokenizer)
    settings = DiagnosticsSettings(entanglement=EntanglementSettings(), verify=True)
    with pytest.raises(ValueError, match="verify under one process or ddp"):
        EntanglementMonitor(model, output_head(model), settings, sharded=True)


def test_what_cannot_be_followed_is_said(tokenizer, capsys):
    model = llama(tokenizer)
    EntanglementMonitor(model, output_head(model), EVERY_STEP, follows_steps=False)
    assert "is not measured under zero3" in capsys.readouterr().out


def test_layers_are_written_for_each_measured_step(tokenizer, tmp_path):
    settings = DiagnosticsSettings(entanglement=EntanglementSettings(every=2, pairs=None))
    trainer = trainer_of(llama(tokenizer), tokenizer, tmp_path, options={"diagnostics": settings}, max_steps=4)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / LAYERS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]
    assert list(lines[0]["layers"]) == ["embed_tokens", "layer 0", "layer 1", "norm"]
    inner = sum(part[0][1] for part in lines[0]["layers"].values())
    assert inner == pytest.approx(logged(trainer)[0]["entanglement/inner"], rel=1e-5)


def test_coverage_is_announced(tokenizer, tmp_path, capsys):
    model = llama(tokenizer)
    model.model.extra = torch.nn.Parameter(torch.ones(5))
    trainer_of(model, tokenizer, tmp_path, options={"diagnostics": EVERY_STEP}, max_steps=1).train()
    assert "of the trained weights are covered; not model.extra: no rule" in capsys.readouterr().out


def test_a_process_without_pairs_logs_the_same_names(tokenizer):
    model, batch = llama(tokenizer), pair_batch(tokenizer, pair_rows(2))
    batch["real"][:] = False
    monitor = EntanglementMonitor(model, output_head(model), EVERY_STEP)
    watch = monitor.open(0, batch)
    from align.models.pair_logps import pair_logps

    watch.read(pair_logps(model, output_head(model), batch))
    watch.read_losses(lambda: torch.ones(2))
    found = monitor.close(watch, 1.0)
    assert [name.removeprefix("entanglement/") for name in found][: len(METRICS)] == list(METRICS)
    assert all(len(values) == 0 for values in found.values())
    assert all(len(values) == 0 for values in monitor.stepped(0).values())
