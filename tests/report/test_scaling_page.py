"""What the section on GPUs says, by hand-made facts."""

import pytest

from align.report.scaling_page import on_gpus, title_of

GIB = 2**30
PARTS = {
    **{"reserve": 2 * GIB, "weights": 10 * GIB, "reference copy": 5 * GIB, "gradients": 4 * GIB},
    **{"optimiser state": 20 * GIB, "gradient buckets": GIB, "activations": 8 * GIB},
}


def row(engine, verdict, note=None, **changes):
    stages = {"training": PARTS, "evaluation": {**PARTS, "gradients": 0, "activations": 30 * GIB}}
    seconds = {"computing_seconds": 5.0, "sending_seconds": 1.0, "waiting_seconds": 0.5, "step_seconds": 5.5}
    return {
        **{"engine": engine, "verdict": verdict, "note": note, "stages": stages, "peak_stage": "training"},
        **{"peak_bytes": 50 * GIB, "training_seconds": 7200.0, **seconds, **changes},
    }


@pytest.fixture
def facts():
    gpus = {
        **{"count": 16, "memory": 80.0, "nodes": 2, "per_node": 8, "tflops": 989.0, "utilisation": 0.4},
        **{"node_bandwidth": 450.0, "network_bandwidth": 50.0, "step_flops": 2.0e15, "evaluation_seconds": 90.0},
        "engines": [row("ddp", "does not fit"), row("zero2", "fits"), row("fsdp2", "fits", "a note on it")],
        **{"recommended": "zero2", "command": "accelerate launch " + "word " * 30, "several_nodes": "on every node"},
        "advice": [],
    }
    return {"gpus": gpus, "steps": {"steps": 1300}}


def told(facts):
    return list(on_gpus(facts))


def test_a_row_an_engine(facts):
    rows = dict(told(facts)[1:4])
    assert rows["zero2"].split() == ["15.0", "4.0", "20.0", "3.0", "8.0", "50.0", "5.5", "s", "fits"]
    assert rows["ddp"].endswith("does not fit")
    heads = told(facts)[0][1]
    assert heads.index("weights + ref") + len("weights + ref") == rows["zero2"].index("15.0") + 4
    assert all(text.startswith(" ") for text in (heads, *rows.values()))  # shown as they are


def test_another_moment_that_is_the_worst_is_named(facts):
    facts["gpus"]["engines"][0] = row("ddp", "tight", peak_stage="evaluation", peak_bytes=68 * GIB)
    cells = dict(told(facts))["ddp"].split()
    assert cells[:6] == ["15.0", "0.0", "20.0", "3.0", "30.0", "68.0"]
    assert dict(told(facts))["ddp"].endswith("tight (worst in evaluation)")


def test_notes_command_and_time(facts):
    rows = dict(told(facts))
    assert rows["under fsdp2"] == "a note on it"
    assert rows["recommended"] == "zero2: the simplest engine that fits"
    assert rows["start it with"].strip() == facts["gpus"]["command"].strip()
    assert rows["estimated time"] == "1,300 steps in about 2.0 h, and 90 s of evaluations"
    assert rows["a step"] == "2,000 TFLOP on each GPU: 5 s computing, 1 s sending, of which 0.5 s is waited for"
    assert "40 % of 989 TFLOP/s; 450 GB/s to a GPU inside a node of 8, 50 GB/s" in rows["assumed"]
    assert "nothing here is measured" in rows["assumed"]
    assert ("", "on every node") in told(facts)


def test_nothing_fits(facts):
    ways = [{"engine": "zero3", "change": "set model.lora", "saves_bytes": 12 * GIB}]
    facts["gpus"] |= {"recommended": None, "command": None, "advice": ways}
    rows = dict(told(facts))
    assert rows["recommended"] == "none fits; first, for zero3: set model.lora (12.0 GiB less)"
    assert "start it with" not in rows
    facts["gpus"]["advice"] = []
    assert dict(told(facts))["recommended"] == "none fits; nothing that is known here would help"


def test_the_simplest_may_be_tight(facts):
    facts["gpus"]["engines"][1] = row("zero2", "tight", waiting_seconds=0.0)
    rows = dict(told(facts))
    assert rows["recommended"].endswith("that fits, but it is tight")
    assert rows["a step"].endswith("of which nothing is waited for")


def test_a_title_says_how_many():
    assert title_of({"count": 1, "memory": 40.0, "nodes": 1}).startswith("on 1 GPU of 40 GiB (")
