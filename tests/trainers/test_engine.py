"""Engines: which one runs, who continues whose checkpoints, and what is said where that cannot be."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from align.trainers import engine
from align.trainers.engine import Engine, check_continues, engine_of, leave_group, rows_of_step, write_engine


def accelerator(kind, processes=2, **state):
    plugins = {name: SimpleNamespace(**fields) for name, fields in state.items()}
    return Mock(
        spec=Accelerator,
        distributed_type=kind,
        num_processes=processes,
        device=torch.device("cpu"),
        state=SimpleNamespace(**plugins),
    )


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (accelerator(DistributedType.NO, 1), "one process"),
        (accelerator(DistributedType.MULTI_CPU), "ddp"),
        (accelerator(DistributedType.MULTI_GPU), "ddp"),
        (accelerator(DistributedType.DEEPSPEED, deepspeed_plugin={"zero_stage": 3}), "zero3"),
        (accelerator(DistributedType.FSDP, fsdp_plugin={"fsdp_version": 2}), "fsdp2"),
    ],
)
def test_what_runs(found, name):
    assert engine_of(found) == Engine(name=name, processes=found.num_processes)
    assert engine_of(found).shards_weights == (name in ("zero3", "fsdp2"))


def test_fsdp_that_does_not_run_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="set fsdp_version: 2"):
        engine_of(accelerator(DistributedType.FSDP, fsdp_plugin={"fsdp_version": 1}))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"accelerate leaves it out on cpu.*accelerate_configs/ddp\.yaml"):
        engine_of(accelerator(DistributedType.MULTI_CPU))
    assert engine.fsdp_would_be_idle(torch.device("cpu"))
    assert not engine.fsdp_would_be_idle(torch.device("cuda"))


@pytest.mark.parametrize(
    ("wrote", "reads", "says"),
    [
        (Engine(name="ddp", processes=2), Engine(name="one process", processes=1), None),
        (Engine(name="one process", processes=1), Engine(name="ddp", processes=8), None),
        (Engine(name="fsdp2", processes=2), Engine(name="fsdp2", processes=4), None),
        (Engine(name="zero1", processes=2), Engine(name="zero2", processes=2), None),
        (Engine(name="zero3", processes=2), Engine(name="zero3", processes=2), None),
        (Engine(name="zero3", processes=2), Engine(name="zero3", processes=4), "lies in 2 shards, which 4 processes"),
        (Engine(name="zero1", processes=2), Engine(name="zero2", processes=4), "lies in 2 shards, which 4 processes"),
        (Engine(name="zero2", processes=2), Engine(name="zero3", processes=2), "which zero3 cannot read"),
        (Engine(name="ddp", processes=2), Engine(name="fsdp2", processes=2), "which fsdp2 cannot read"),
        (Engine(name="fsdp2", processes=2), Engine(name="one process", processes=1), "which one process cannot read"),
    ],
)
def test_who_continues_whom(tmp_path, wrote, reads, says):
    write_engine(wrote, 8, tmp_path / "checkpoint-3")
    if says is None:
        check_continues(reads, 8, tmp_path / "checkpoint-3")
        return
    with pytest.raises(ValueError, match=says) as raised:
        check_continues(reads, 8, tmp_path / "checkpoint-3")
    assert f"Go on under {wrote}" in str(raised.value)


def test_steps_must_see_as_many_rows(tmp_path):
    one = Engine(name="one process", processes=1)
    check_continues(one, 4, tmp_path)  # it says nothing: nothing is known against it
    assert rows_of_step(tmp_path) is None
    write_engine(Engine(name="ddp", processes=2), 8, tmp_path)
    assert rows_of_step(tmp_path) == 8
    with pytest.raises(ValueError, match="see 8 rows; under one process they would see 4"):
        check_continues(one, 4, tmp_path)


def test_where_weights_alone_can_be_taken_from(tmp_path):
    write_engine(Engine(name="zero3", processes=2), 8, tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=f"model.path set to {tmp_path}$"):
        check_continues(Engine(name="ddp", processes=2), 8, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"accelerate merge-weights .*/pytorch_model_fsdp_0 {tmp_path}'"):
        check_continues(Engine(name="ddp", processes=2), 8, tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"name": "ddp", "processes": "x", "rows": 8}'])
def test_a_damaged_note_of_the_engine_is_named(text, tmp_path):
    (tmp_path / "engine.json").write_text(text)
    with pytest.raises(ValueError, match=r"engine\.json is damaged"):
        check_continues(Engine(name="ddp", processes=2), 8, tmp_path)


def test_the_group_is_left_behind(tmp_path):
    leave_group()  # of no group
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    leave_group()
    assert not torch.distributed.is_initialized()
