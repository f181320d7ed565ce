"""Memory and time of a planned run: from the shapes it has, and rough where a step cannot be followed."""

import pytest

from align.recipe.load import load_recipe
from align.trainers import costs
from align.trainers.validation import validate


@pytest.fixture
def facts_of(tmp_path, model_dir, pairs_file, monkeypatch):
    """A function from overrides to the facts of a small recipe; the machine's speed does not change from run to run."""
    import torch

    from align.models.machine import Speed

    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32}}\ndata: {{train: {pairs_file}, max_length: 48}}\nobjective: dpo\n"
        "trainer: {use_cpu: true, per_device_train_batch_size: 4, max_steps: 8}\n"
    )
    speed = Speed(flops=1e9, traffic=1e9, dtype=torch.float32, threads=1)
    monkeypatch.setattr(costs, "measure_speed", lambda *_: speed)
    return lambda *overrides, **options: validate(
        load_recipe(path, [f"output.dir={tmp_path / 'run'}", *overrides]), "r", **options
    )


def training(facts):
    return facts["memory"]["stages"]["training"]


def test_adapters_leave_out_the_copy_and_most_of_the_state(facts_of):
    full, adapted = facts_of(), facts_of("model.lora={r: 2}")
    assert training(full)["reference copy"] == training(full)["weights"] == full["model"]["weight_bytes"]
    assert training(adapted)["reference copy"] == 0
    assert training(full)["optimiser state"] == 8 * full["model"]["trainable"]
    assert training(adapted)["optimiser state"] == 8 * adapted["model"]["trainable"]
    assert adapted["model"]["trainable"] < 0.2 * full["model"]["trainable"]
    assert training(adapted)["gradients"] == 4 * adapted["model"]["trainable"]


def test_time_follows_steps_and_batches(facts_of):
    once, twice = facts_of(), facts_of("trainer.max_steps=16")
    assert twice["time"]["training"] == pytest.approx(2 * once["time"]["training"], rel=0.1)
    wide = facts_of("trainer.per_device_train_batch_size=8")
    assert 1.7 < wide["time"]["training"] / once["time"]["training"] < 2.4
    assert training(wide)["activations"] > 1.6 * training(once)["activations"]


def test_an_evaluation_is_counted_where_pairs_are_held_out(facts_of):
    assert "evaluation" not in facts_of()["memory"]["stages"]
    held = facts_of("data.eval_fraction=0.3")
    assert held["time"]["evaluation"] > 0
    assert "gradients" not in held["memory"]["stages"]["evaluation"]


def test_processes_add_up_on_one_machine_and_divide_the_pairs(facts_of):
    alone = facts_of("trainer.max_steps=-1")
    three = facts_of("trainer.max_steps=-1", processes=3)
    assert three["memory"]["total_bytes"] == 3 * three["memory"]["peak_bytes"]
    assert three["steps"]["steps"] == alone["steps"]["steps"] / 3
    assert three["time"]["training"] == pytest.approx(alone["time"]["training"] / 3, rel=0.1)
    with pytest.raises(ValueError, match="--processes must be at least 1"):
        facts_of(processes=0)


def test_what_does_not_fit_is_a_warning_with_what_to_change_first(facts_of, monkeypatch):
    from align.models.machine import Memory

    little = Memory(kind="memory", available=2**20, total=2**30, source="test")
    monkeypatch.setattr(costs, "free_memory", lambda device: little)
    facts = facts_of()
    assert facts["memory"]["verdict"] == "does not fit"
    assert any("does not fit" in warning for warning in facts["warnings"])


def test_a_step_that_cannot_be_followed_is_rough_and_says_so(facts_of, monkeypatch):
    exact = facts_of()

    def refuse(*_, **__):
        raise RuntimeError("data-dependent\nand more")

    monkeypatch.setattr(costs, "dry_step", refuse)
    rough = facts_of()
    (warning,) = [text for text in rough["warnings"] if "rough" in text]
    assert "RuntimeError: data-dependent" in warning
    assert 0.3 < rough["time"]["training"] / exact["time"]["training"] < 3


def test_an_optimiser_whose_state_is_not_known(facts_of, monkeypatch):
    monkeypatch.setattr("align.trainers.combinations.find_spec", lambda name: object())
    facts = facts_of("trainer.optim=grokadamw")
    assert any("how much grokadamw keeps is not known" in warning for warning in facts["warnings"])


def test_single_completions_are_half_a_pair(facts_of):
    pairs = facts_of("objective=bco_pair", "trainer.max_steps=8")
    singles = facts_of("objective=bco_pair", "data.unpaired=true", "trainer.max_steps=8")
    assert singles["time"]["training"] == pytest.approx(pairs["time"]["training"] / 2, rel=0.15)
    assert training(singles)["activations"] < 0.7 * training(pairs)["activations"]
    assert singles["steps"]["positions"] == pytest.approx(pairs["steps"]["positions"] / 2, rel=0.15)


def test_mismatched_rows_cost_two_forwards(facts_of):
    """A step is a forward, a reference forward and a backward of two; two forwards more are half of that."""
    plain = facts_of("objective=bco_pair", "data.unpaired=true", "data.eval_fraction=0.3")
    more = facts_of("objective=kto", "data.eval_fraction=0.3")
    assert 1.3 < more["time"]["step_flops"] / plain["time"]["step_flops"] < 1.6
    assert 1.8 < more["time"]["evaluation"] / plain["time"]["evaluation"] < 2.2
    assert training(more)["activations"] == pytest.approx(training(plain)["activations"], rel=0.2)


def test_one_side_that_is_read_is_half_the_training_and_a_whole_evaluation(facts_of):
    both = facts_of("objective=orpo", "data.eval_fraction=0.3")
    one = facts_of("objective=sft", "data.eval_fraction=0.3")
    assert one["steps"]["sides"] == ["chosen"]
    assert one["time"]["training"] == pytest.approx(both["time"]["training"] / 2, rel=0.2)
    assert training(one)["activations"] < 0.7 * training(both)["activations"]
    assert one["time"]["evaluation"] == pytest.approx(both["time"]["evaluation"], rel=0.2)
    held = [facts["memory"]["stages"]["evaluation"]["activations"] for facts in (one, both)]
    assert held[0] == held[1]


def test_mismatched_rows_are_rough_too_where_a_step_cannot_be_followed(facts_of, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("data-dependent")

    exact = facts_of("objective=kto")
    monkeypatch.setattr(costs, "dry_step", refuse)
    assert 0.3 < facts_of("objective=kto")["time"]["training"] / exact["time"]["training"] < 3


def test_versions_of_responses_are_rows_of_the_policy_alone(facts_of):
    """DPO: 2 rows of forward, reference forward and backward, 8 units; 3 versions a side add 6 of 3 units each."""
    plain, more = facts_of(), facts_of("spo={versions: {extractor: tfidf, degrees: 3}}")
    assert 2.5 < more["time"]["step_flops"] / plain["time"]["step_flops"] < 3.6
    assert training(more)["activations"] > 2 * training(plain)["activations"]


def test_samples_are_rows_beside_each_negative(facts_of):
    alone, more = facts_of("objective=npo", "d2o={}"), facts_of("objective=d2o", "d2o={samples: 3}")
    assert alone["steps"]["sides"] == ["completion"]
    assert 3.2 < more["time"]["step_flops"] / alone["time"]["step_flops"] < 4.5
    assert alone["time"]["drawing"] == 0  # nothing reads a sample
    assert not [text for text in more["warnings"] if "desirable" in text]


def test_samples_take_time_to_draw(facts_of):
    """Twice as many, twice as long; drawn anew for every batch behind the warm-up."""
    words = ["objective=d2o", "trainer.max_steps=6"]

    def tokens(*more):
        facts = facts_of(*words, *more)
        return facts["time"]["drawing"] * facts["time"]["speed_flops"]

    plain = tokens("d2o={samples: 4, max_new_tokens: 32}")
    assert tokens("d2o={samples: 8, max_new_tokens: 32}") == pytest.approx(2 * plain, rel=1e-2)
    assert 1.8 * plain < tokens("d2o={samples: 4, max_new_tokens: 64}") < 2 * plain
    online = tokens("d2o={samples: 4, max_new_tokens: 32, online: {warmup: 2, every: 1}}")
    assert online > 1.5 * plain


def test_a_row_a_sample_is_as_many_rows(facts_of):
    alone = ["objective=dpo", "trainer.max_steps=-1"]
    together = facts_of("objective=d2o", "d2o={samples: 3}", "trainer.max_steps=-1")
    each = facts_of(*alone, "d2o={samples: 3, level: instance}")
    assert each["steps"]["rows"] == 3 * together["steps"]["rows"]
    assert each["steps"]["sides"] == ["completion"] * 2
    assert each["time"]["drawing"] == pytest.approx(together["time"]["drawing"], rel=0.05)


def test_copies_of_the_policy_that_d2o_makes_are_in_memory_and_in_checkpoints(facts_of):
    plain, online = facts_of("objective=d2o", "d2o={}"), facts_of("objective=d2o", "d2o={online: {}}")
    weights = plain["model"]["weight_bytes"]
    assert training(online)["reference copy"] - training(plain)["reference copy"] == weights
    assert online["output"]["checkpoint_bytes"] - plain["output"]["checkpoint_bytes"] == weights
