"""PairTrainer: the loss it minimises, how it averages, its references, its extension points."""

import json
import math
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import TrainingArguments

from align import DPO, FormulaObjective, PairObjective, PairTrainer
from align.objectives.custom import FunctionObjective
from tests.conftest import arguments, losses, pair_rows, rows

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def test_from_python_without_a_recipe(model, tokenizer, tmp_path):
    trainer = PairTrainer(
        model=model, args=arguments(tmp_path), train_dataset=rows(), eval_dataset=rows(8), processing_class=tokenizer
    )
    trainer.train()
    history = losses(trainer)
    assert history[0] == pytest.approx(math.log(2), abs=1e-6)
    assert trainer.start_margin == pytest.approx(
        0, abs=1e-4
    )  # rounding: a kept reference was computed in other batches
    held_out = trainer.evaluate()
    assert held_out["eval_pairs"] == 8
    assert held_out["eval_accuracy_low"] <= held_out["eval_accuracy"] <= held_out["eval_accuracy_high"]


def test_every_promised_metric_is_logged(model, tokenizer, tmp_path):
    PairTrainer(model=model, args=arguments(tmp_path), train_dataset=rows(), processing_class=tokenizer).train()
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    promised = {
        *("loss", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins"),
        *("rewards/accuracies", "mean_logps/chosen", "mean_logps/rejected", "tokens_per_second", "padding_fraction"),
        *("grad_norm", "learning_rate", "step", "epoch"),
    }
    assert promised <= first.keys()
    assert 0 <= first["padding_fraction"] < 1
    assert first["tokens_per_second"] > 0


def test_a_model_may_be_a_path(model_dir, tmp_path):
    trainer = PairTrainer(model=str(model_dir), args=arguments(tmp_path, max_steps=1), train_dataset=rows())
    trainer.train()
    assert trainer.processing_class.eos_token == "<|im_end|>"


def test_lora_trains_only_the_adapter_against_the_policy_without_it(model_dir, tmp_path):
    trainer = PairTrainer(model=str(model_dir), args=arguments(tmp_path), train_dataset=rows(), peft_config=LORA)
    before = trainer.model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.detach().clone()
    trainer.train()
    assert trainer.reference.description.startswith("adapter_off")
    assert trainer.start_margin == pytest.approx(
        0, abs=1e-4
    )  # rounding: a kept reference was computed in other batches
    assert losses(trainer)[-1] < math.log(2)
    after = trainer.model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight
    assert torch.equal(before, after)


def test_adapter_off_and_a_frozen_copy_train_alike(model_dir, tmp_path):
    histories = []
    for reference in ("adapter_off", "base"):
        torch.manual_seed(0)
        trainer = PairTrainer(
            model=str(model_dir),
            args=arguments(tmp_path),
            train_dataset=rows(),
            peft_config=LORA,
            reference=reference,
        )
        trainer.train()
        histories.append(losses(trainer))
    assert histories[0] == pytest.approx(histories[1], rel=1e-6)


def test_a_trained_adapter_against_adapter_off_is_noticed_at_step_0(model_dir, tmp_path):
    from align.models.adapters import add_adapter
    from align.models.load import Source, load_model

    adapted = add_adapter(load_model(Source(path=str(model_dir))), LORA)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.add_(0.3)
    tokenizer_source = str(model_dir)
    from align.models.load import load_tokenizer

    trainer = PairTrainer(
        model=adapted,
        args=arguments(tmp_path),
        train_dataset=rows(),
        processing_class=load_tokenizer(Source(path=tokenizer_source)),
    )
    with pytest.raises(ValueError, match=r"differ by .* nats before the first update.*reference='base'"):
        trainer.train()


def test_a_model_with_dropout_starts_at_margin_0(tokenizer, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5)
    trainer = PairTrainer(
        model=GPT2LMHeadModel(config), args=arguments(tmp_path), train_dataset=rows(), processing_class=tokenizer
    )
    trainer.train()
    assert trainer.start_margin == pytest.approx(
        0, abs=1e-4
    )  # rounding: a kept reference was computed in other batches


def test_an_objective_without_reference_loads_none(model, tokenizer, tmp_path):
    objective = FunctionObjective(function=lambda policy: -policy.mean_chosen)
    trainer = PairTrainer(
        model=model, args=arguments(tmp_path), objective=objective, train_dataset=rows(), processing_class=tokenizer
    )
    assert trainer.reference is None
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_the_reference_may_not_be_the_policy_itself(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="the very model that is trained"):
        PairTrainer(
            model=model,
            reference=model,
            args=arguments(tmp_path),
            train_dataset=rows(),
            processing_class=tokenizer,
        )


class Halved(PairTrainer):
    """What a user may write: another forward, another loss, and something beside it."""

    def forward_logps(self, model, batch):
        self.forwards = getattr(self, "forwards", 0) + 1
        return super().forward_logps(model, batch)

    def objective_loss(self, policy, reference, batch):
        return super().objective_loss(policy, reference, batch) / 2

    def extra_loss(self, model, batch, policy):
        return torch.full_like(policy.chosen, 0.25)


def test_a_subclass_touches_only_the_extension_points(model, tokenizer, tmp_path):
    trainer = Halved(
        model=model, args=arguments(tmp_path, max_steps=1), train_dataset=rows(), processing_class=tokenizer
    )
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2) / 2 + 0.25, abs=1e-6)
    assert trainer.forwards == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyTheFirstToken(PairObjective):
    """An objective with a token weighting of its own."""

    needs_reference = False

    def weigh(self, tokens):
        from align.objectives.logps import PairLogps

        sides = {name: getattr(tokens, name) for name in ("chosen", "rejected")}
        return PairLogps(
            **{name: side.logp[:, 0] for name, side in sides.items()},
            **{f"{name}_lengths": side.lengths for name, side in sides.items()},
        )

    def score(self, policy, reference):
        return policy.chosen - policy.rejected

    def link(self, score):
        return -score


def test_token_weighting_is_the_objectives(model, tokenizer, tmp_path):
    trainer = PairTrainer(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        objective=OnlyTheFirstToken(),
        train_dataset=rows(),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    seen = trainer.row_losses(trainer.model, batch)
    logits = trainer.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    first = batch["completion_mask"].int().argmax(-1)
    picked = [float(logits[i, s - 1, batch["input_ids"][i, s]].detach()) for i, s in enumerate(first)]
    expected = -(torch.tensor(picked[:4]) - torch.tensor(picked[4:]))
    torch.testing.assert_close(seen.losses.detach(), expected, rtol=1e-4, atol=1e-5)


def test_summaries_weigh_the_loss_and_count_the_accuracy(model, tokenizer, tmp_path):
    trainer = PairTrainer(model=model, args=arguments(tmp_path), train_dataset=rows(), processing_class=tokenizer)
    columns = {
        "loss": np.array([1.0, 4.0]),
        "weight": np.array([3.0, 1.0]),
        "rewards/chosen": np.array([1.0, 0.0]),
        "rewards/rejected": np.array([0.0, 1.0]),
        "length/chosen": np.array([5.0, 5.0]),
        "length/rejected": np.array([4.0, 9.0]),
    }
    summary = trainer.summarise(columns)
    assert summary["loss"] == pytest.approx(1.75)
    assert summary["accuracy"] == 0.5
    assert summary["accuracy_longer_wins"] == 0.5


def test_gradient_checkpointing_gives_the_same_losses(model_dir, tmp_path):
    histories = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trainer = PairTrainer(
            model=str(model_dir),
            args=arguments(tmp_path, gradient_checkpointing=checkpointing),
            train_dataset=rows(),
            peft_config=LORA,
        )
        trainer.train()
        histories.append(losses(trainer))
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_parity_with_trl(model_dir, tmp_path, beta):
    """TRL 1.16's 'sigmoid', the same data, seeds and optimiser: the same losses, rewards and weights."""
    from trl import DPOConfig, DPOTrainer

    data = plain_text()
    shared = {
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "gradient_checkpointing": False,
        "bf16": False,
    }
    ours = PairTrainer(
        model=str(model_dir),
        args=TrainingArguments(str(tmp_path / "ours"), **shared),
        objective=DPO(beta=beta),
        train_dataset=data,
    )
    ours.train()
    theirs = DPOTrainer(
        model=str(model_dir),
        args=DPOConfig(str(tmp_path / "theirs"), beta=beta, loss_type="sigmoid", **shared),
        train_dataset=data,
        processing_class=ours.processing_class,
    )
    theirs.train()
    for key in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
        mine, other = ([e[key] for e in t.state.log_history if key in e] for t in (ours, theirs))
        assert len(mine) == 6
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5), key
    other = theirs.model.state_dict()
    for name, weight in ours.model.state_dict().items():
        assert float((weight - other[name]).norm() / weight.norm()) < 1e-5, name


def plain_text():
    plain = [
        {
            "prompt": row["prompt"][0]["content"],
            "chosen": " " + row["chosen"][0]["content"],
            "rejected": " " + row["rejected"][0]["content"],
        }
        for row in pair_rows(24)
    ]
    return datasets.Dataset.from_list(plain)


def test_several_held_out_sets_by_name(model, tokenizer, tmp_path):
    trainer = PairTrainer(
        model=model,
        args=arguments(tmp_path),
        train_dataset=rows(),
        eval_dataset={"few": rows(3), "more": rows(6)},
        processing_class=tokenizer,
    )
    metrics = trainer.evaluate()
    assert (metrics["eval_few_pairs"], metrics["eval_more_pairs"]) == (3, 6)


def test_what_a_run_saves_loads_again_in_peft(model_dir, tmp_path):
    from peft import AutoPeftModelForCausalLM

    trainer = PairTrainer(model=str(model_dir), args=arguments(tmp_path), train_dataset=rows(), peft_config=LORA)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.arange(6)[None]
    torch.testing.assert_close(loaded(input_ids=ids).logits, trainer.model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


LORA_RUN = """
import sys, datasets
from peft import LoraConfig
from transformers import TrainingArguments
from align import PairTrainer
from tests.conftest import pair_rows
lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
arguments = TrainingArguments(sys.argv[2], seed=int(sys.argv[3]), use_cpu=True, report_to="none")
trainer = PairTrainer(sys.argv[1], arguments, train_dataset=datasets.Dataset.from_list(pair_rows()), peft_config=lora)
print("sum", sum(float(p.abs().double().sum()) for p in trainer.model.parameters() if p.requires_grad))
"""


def test_the_seed_decides_the_adapters_first_values(model_dir, tmp_path):
    import subprocess
    import sys

    def drawn(seed):
        words = [sys.executable, "-c", LORA_RUN, str(model_dir), str(tmp_path), str(seed)]
        out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return out.split("sum ")[1]

    assert drawn(1) == drawn(1) != drawn(2)


def test_other_librarys_settings_are_refused(model, tokenizer, tmp_path):
    from trl import DPOConfig

    with pytest.raises(ValueError, match=r"pass transformers.TrainingArguments instead of DPOConfig"):
        PairTrainer(model, DPOConfig(str(tmp_path), beta=0.5, use_cpu=True, bf16=False), processing_class=tokenizer)
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1 has no place"):
        PairTrainer(model, arguments(tmp_path, label_smoothing_factor=0.1), processing_class=tokenizer)


def test_truncation_policies_are_checked(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="one of keep_start, keep_end, drop; got 'keepstart'"):
        PairTrainer(
            model, arguments(tmp_path), train_dataset=rows(), processing_class=tokenizer, truncation="keepstart"
        )


def test_held_out_rows_are_never_dropped(model, tokenizer, tmp_path):
    trainer = PairTrainer(
        model,
        arguments(tmp_path, dataloader_drop_last=True, per_device_eval_batch_size=8),
        train_dataset=rows(),
        eval_dataset=rows(11),
        processing_class=tokenizer,
    )
    assert trainer.evaluate()["eval_pairs"] == 11


class Scalar(PairTrainer):
    def extra_loss(self, model, batch, policy):
        return policy.chosen.mean()


def test_a_subclass_returns_a_loss_for_each_pair(model, tokenizer, tmp_path):
    trainer = Scalar(model, arguments(tmp_path), train_dataset=rows(), processing_class=tokenizer)
    with pytest.raises(ValueError, match=r"extra_loss must return one loss for each pair, shape \(4,\); got \(\)"):
        trainer.train()


def test_adapters_are_not_put_on_adapters(model, tokenizer, tmp_path):
    from align.models.adapters import add_adapter

    with pytest.raises(ValueError, match="has adapters already"):
        PairTrainer(add_adapter(model, LORA), arguments(tmp_path), processing_class=tokenizer, peft_config=LORA)


def test_an_objective_may_be_a_name(model, tokenizer, tmp_path):
    trainer = PairTrainer(model, arguments(tmp_path), objective="dpo", processing_class=tokenizer)
    assert trainer.objective == DPO()


def test_bad_rows_from_python(model, tokenizer, tmp_path):
    same = pair_rows(1)[0]
    bad = datasets.Dataset.from_list([*pair_rows(6), {**same, "rejected": same["chosen"]}])
    with pytest.raises(ValueError, match=r"train_dataset row 7: .*on_bad_row: skip"):
        PairTrainer(model, arguments(tmp_path), train_dataset=bad, processing_class=tokenizer)
    settings = {"processing_class": tokenizer, "on_bad_row": "skip"}
    trainer = PairTrainer(model, arguments(tmp_path), train_dataset=bad, eval_dataset={"a/b": bad}, **settings)
    assert len(trainer.train_dataset) == 6
    names = sorted(path.name for path in tmp_path.glob("skipped-*.jsonl"))
    assert names == ["skipped-eval_dataset-a-b.jsonl", "skipped-train_dataset.jsonl"]


@pytest.mark.parametrize(("formula", "reads_reference"), [("M(l) -> M(w)", False), ("M(l) & Ref(w) -> M(w)", True)])
def test_the_loss_of_a_formula_loads_only_what_it_reads(formula, reads_reference, model, tokenizer, tmp_path):
    objective = FormulaObjective(formula=formula, length_normalised=True)
    given = {"model": model, "args": arguments(tmp_path), "objective": objective}
    trainer = PairTrainer(**given, train_dataset=rows(), eval_dataset=rows(8), processing_class=tokenizer)
    assert objective.needs_reference == reads_reference
    assert hasattr(trainer.reference, "module") == reads_reference
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert after["eval_loss"] < before["eval_loss"]
    assert "eval_rewards/margins" in after
