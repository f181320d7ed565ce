"""Plans of a small model on GPUs that are not here: parts that add up, laws between engines, what is recommended."""

import pytest
import torch

from align.models.dry_step import dry_step
from align.models.footprint import GIB
from align.models.gpus import Gpus
from align.models.shares import ENGINES, RESERVE
from align.recipe.load import load_recipe
from align.trainers import costs, scaling
from align.trainers.scaling import recommended
from align.trainers.validation import validate

WORDS = ("r.yaml", "data.train=my pairs.jsonl")
STEPS = {}


def followed_once(model, shape, **options):
    """A step without numbers, the same for the same model and batch: following one takes a second."""
    weights = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in model.parameters())
    key = (weights, shape, *(repr(value) for name, value in sorted(options.items()) if name != "other"))
    if key not in STEPS:
        STEPS[key] = dry_step(model, shape, **options)
    return STEPS[key]


@pytest.fixture
def planned(tmp_path, model_dir, pairs_file, monkeypatch):
    """A function from overrides to the facts of a small recipe on GPUs; this machine is not measured."""
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, max_length: 48}}\nobjective: dpo\n"
        "trainer: {per_device_train_batch_size: 2, max_steps: 8}\n"
    )

    def refuse(*_):
        raise AssertionError("this machine was measured")

    monkeypatch.setattr(costs, "measure_speed", refuse)
    monkeypatch.setattr(costs, "free_memory", refuse)
    monkeypatch.setattr(costs, "dry_step", followed_once)

    def plan(*overrides, count=2, **gpus):
        given = Gpus(count=count, **{"memory": 80.0, **gpus})
        return validate(load_recipe(path, [f"output.dir={tmp_path / 'run'}", *overrides]), "r", gpus=given, words=WORDS)

    return plan


def by_engine(facts):
    return {row["engine"]: row for row in facts["gpus"]["engines"]}


def training(row):
    return row["stages"]["training"]


def test_number_types_are_those_of_gpus_and_shares_those_of_engines(planned):
    facts = planned(count=4)
    numbers, rows = facts["model"]["parameters"], by_engine(facts)
    assert facts["model"]["precision"].startswith("float32 weights, bfloat16 autocast: cuda")
    assert facts["steps"]["processes"] == 4
    assert list(rows) == list(ENGINES)
    assert rows["ddp"]["share"] == {
        name: n * numbers for name, n in (("weights", 4), ("gradients", 4), ("optimiser", 8), ("reference", 4))
    }
    zero3 = rows["zero3"]["share"]
    assert (zero3["weights"], zero3["optimiser"]) == (-(-2 * numbers // 4), 3 * numbers)
    for row in rows.values():
        assert row["peak_bytes"] == max(sum(parts.values()) for parts in row["stages"].values())
        assert training(row)["reserve"] == RESERVE
    state = [sum(row["share"].values()) for row in rows.values()]
    assert state[0] > state[1] > state[2] > state[4]


def test_activations_are_those_of_cast_weights_but_under_ddp(planned):
    rows = by_engine(planned())
    activations = {name: training(row)["activations"] for name, row in rows.items()}
    assert activations["zero2"] == activations["zero3"] == activations["fsdp2"] > 0
    assert activations["ddp"] > activations["zero3"]  # which keeps weights in bfloat16 beside those in float32


def test_what_is_recommended_is_started_by_its_command(planned):
    gpus = planned()["gpus"]
    assert gpus["recommended"] == "ddp"
    assert gpus["command"] == (
        "accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/train.py r.yaml "
        "'data.train=my pairs.jsonl'"
    )
    several = planned(count=4, per_node=2)["gpus"]
    assert (several["nodes"], several["several_nodes"] is None) == (2, False)
    assert "--num_processes 4 --num_machines 2 scripts/train.py" in several["command"]
    tight = planned(count=4, per_node=2, memory=1e-6)
    assert tight["gpus"]["command"] is None


def test_the_first_that_fits_else_the_first_that_is_tight():
    def rows(**verdicts):
        return [{"engine": name, "verdict": verdict} for name, verdict in verdicts.items()]

    assert recommended(rows(ddp="does not fit", zero1="tight", zero2="fits", zero3="fits")) == "zero2"
    assert recommended(rows(ddp="does not fit", zero1="tight", zero2="tight")) == "zero1"
    assert recommended(rows(ddp="does not fit")) is None


def test_where_nothing_fits_there_is_what_to_change_first(planned, monkeypatch):
    monkeypatch.setattr(scaling, "RESERVE", 0)
    facts = planned(memory=1 / GIB, count=2)
    gpus = facts["gpus"]
    assert gpus["recommended"] is None
    assert gpus["command"] is None
    changes = [way["change"] for way in gpus["advice"]]
    assert any("model.lora" in change for change in changes)
    assert any("twice as many GPUs (4)" in change for change in changes)
    assert not any("adafactor" in change for change in changes)
    saved = [way["saves_bytes"] for way in gpus["advice"]]
    assert saved == sorted(saved, reverse=True)
    assert any("which needs least, needs" in warning for warning in facts["warnings"])


def test_time_by_hand(planned):
    facts = planned("trainer.gradient_accumulation_steps=3", utilisation=0.5, tflops=1e-3)
    gpus, rows = facts["gpus"], by_engine(facts)
    computing = gpus["step_flops"] / (0.5 * 1e9)
    for row in rows.values():
        assert row["computing_seconds"] == pytest.approx(computing)
        assert row["step_seconds"] == row["computing_seconds"] + row["waiting_seconds"]
        assert row["training_seconds"] == pytest.approx(8 * row["step_seconds"])
    assert rows["ddp"]["waiting_seconds"] == 0
    assert 0 < rows["zero1"]["waiting_seconds"] < rows["zero2"]["waiting_seconds"]
    slow = by_engine(planned("trainer.gradient_accumulation_steps=3", node_bandwidth=1e-6))
    assert slow["zero3"]["step_seconds"] == pytest.approx(slow["zero3"]["sending_seconds"], rel=0.01)


def test_accumulation_leaves_fsdp2s_gradients_whole_unless_told(planned):
    each = "trainer.accelerator_config={gradient_accumulation_kwargs: {sync_each_batch: true}}"
    several = planned("trainer.gradient_accumulation_steps=2")
    whole = by_engine(several)["fsdp2"]
    shard = by_engine(planned("trainer.gradient_accumulation_steps=2", each))["fsdp2"]
    assert training(whole)["gradients"] == 2 * several["model"]["parameters"]
    assert training(shard)["gradients"] == 4 * several["model"]["parameters"] // 2
    assert whole["note"] is None  # too little to matter
    tight = by_engine(planned("trainer.gradient_accumulation_steps=2", memory=1e-3))["fsdp2"]
    assert each in tight["note"]
    assert by_engine(planned("trainer.gradient_accumulation_steps=2", each, memory=1e-3))["fsdp2"]["note"] is None


def test_adapters_on_gpus_are_float32_on_bfloat16(planned):
    facts = planned("model.lora={r: 2}")
    rows, model = by_engine(facts), facts["model"]
    frozen = model["parameters"] - model["trainable"]
    assert rows["ddp"]["share"]["weights"] == 2 * frozen + 4 * model["trainable"]
    assert rows["zero2"]["share"]["weights"] == 2 * model["parameters"]
    assert rows["fsdp2"]["share"]["reference"] == 0
    assert training(rows["ddp"])["gradients"] == 4 * model["trainable"]


def test_an_evaluation_is_a_moment_of_its_own(planned):
    facts = planned("data.eval_fraction=0.3", "trainer.per_device_eval_batch_size=16")
    for name, row in by_engine(facts).items():
        assert row["stages"]["evaluation"]["activations"] > 0, name
        assert "gradients" not in row["stages"]["evaluation"]
    assert facts["gpus"]["evaluation_seconds"] > 0


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model.reference_sync={every: 2}"], "reference_sync"),
        (["model.quantization=nf4", "model.lora={r: 2}"], "quant"),
    ],
)
def test_what_needs_whole_weights_is_not_sharded(planned, overrides, name):
    facts = planned(*overrides)
    assert list(by_engine(facts)) == ["ddp", "zero1", "zero2"]
    assert any(f"fsdp2 and zero3 are left out: model.{name}" in warning for warning in facts["warnings"])


def test_float32_is_said_to_be_no_bfloat16(planned):
    facts = planned("model.dtype=float32")
    assert any("training would multiply in float32" in warning for warning in facts["warnings"])
    rows = by_engine(facts)
    assert training(rows["zero2"])["weights"] == 4 * facts["model"]["parameters"]


def test_no_weights_and_no_gpu_are_needed(planned, model_dir, tmp_path):
    folder = tmp_path / "config-only"
    folder.mkdir()
    for file in model_dir.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    assert planned(f"model.path={folder}", "trainer.tf32=true")["gpus"]["recommended"] == "ddp"
    assert not torch.cuda.is_available() or torch.cuda.memory_allocated() == 0
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="holds only pickled weights"):
        planned(f"model.path={folder}")


def test_what_this_machine_has_is_left_out(planned):
    facts = planned()
    assert "memory" not in facts
    assert "time" not in facts
    assert facts["output"]["disk_free"] is None


def test_what_clashes_with_gpus_is_refused(planned, tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.use_cpu=true keeps a run off the GPUs"):
        planned("trainer.use_cpu=true")
    with pytest.raises(ValueError, match="--processes beside --gpus"):
        validate(load_recipe(tmp_path / "r.yaml"), "r", gpus=Gpus(count=2), processes=2)


def test_a_run_that_samples_does_so_on_the_first_gpu(planned, tmp_path):
    (tmp_path / "prompts.txt").write_text("".join(f"the day {i}\n" for i in range(4)))
    (tmp_path / "s.py").write_text("def score(prompts, completions):\n    return [0.0 for _ in completions]\n")
    asked = f"prompts: {tmp_path / 'prompts.txt'}, split: all, scorer: '{tmp_path / 's.py'}:score', max_new_tokens: 5"
    facts = planned(f"evaluation={{generation: {{{asked}}}}}", count=1)
    numbers = facts["model"]["parameters"]
    rows = by_engine(facts)
    assert rows["fsdp2"]["stages"]["before and after"]["aligned copy"] == 2 * numbers
    synth = planned(f"data.train={{synth: {{{asked}}}}}")
    assert by_engine(synth)["zero3"]["stages"]["making pairs"]["sampling copy"] == 2 * numbers
