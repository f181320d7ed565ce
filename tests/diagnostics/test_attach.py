import json
import warnings

import datasets
import pytest
import torch
from peft import LoraConfig
from transformers import Trainer

from align import attach_entanglement
from align.diagnostics.measure import brute_force, rows_of_pairs
from align.models.logprobs import output_head
from tests.conftest import arguments, pair_rows
from tests.diagnostics.tiny import LORA, llama, logged, pair_batch

# TRL's own, of a name that transformers is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")
HEADS = {"tied": True, "untied": False}
ADAPTER = LoraConfig(r=4, target_modules="all-linear")


def trl_trainer(tokenizer, folder, *, tie=True, lora=False, steps=2, **settings):
    """TRL's own DPOTrainer, as its users make it."""
    from trl import DPOConfig, DPOTrainer

    model = folder / "model"
    llama(tokenizer, tie_word_embeddings=tie).save_pretrained(model)
    tokenizer.save_pretrained(model)
    usual = {"max_steps": steps, "logging_steps": 1, "per_device_train_batch_size": 4, "report_to": "none"}
    usual |= {"use_cpu": True, "bf16": False, "disable_tqdm": True, "learning_rate": 1e-3, "save_strategy": "no"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DPOTrainer(
            str(model),
            args=DPOConfig(str(folder / "run"), **{**usual, **settings}),
            train_dataset=datasets.Dataset.from_list(pair_rows(8)),
            processing_class=tokenizer,
            peft_config=ADAPTER if lora else None,
        )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("tie", HEADS.values(), ids=HEADS)
def test_trl_is_measured_by_its_own_backward(tokenizer, tmp_path, tie, lora, checkpointing):
    trainer = trl_trainer(tokenizer, tmp_path, tie=tie, lora=lora, gradient_checkpointing=checkpointing)
    monitor = attach_entanglement(trainer, every=1, pairs=None, verify=True)
    trainer.train()
    assert monitor.monitor.max_rel_error < 1e-5
    first = logged(trainer)[0]
    assert first["entanglement/coverage"] == 1
    assert first["entanglement/extra_pass"] == 0
    assert first["entanglement/d_chosen"] == pytest.approx(0.05, rel=1e-4)  # beta sigma(0)
    assert {"entanglement/step_chosen", "loss", "rewards/margins"} <= first.keys()
    lines = (tmp_path / "run" / "entanglement.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_trl_trains_to_the_same_weights_with_a_monitor(tokenizer, tmp_path):
    weights = []
    for attached in (False, True):
        folder = tmp_path / str(attached)
        folder.mkdir()
        trainer = trl_trainer(tokenizer, folder, steps=3)
        if attached:
            attach_entanglement(trainer, every=2)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_trl_where_tokens_do_not_count_alike(tokenizer, tmp_path, capsys):
    trainer = trl_trainer(tokenizer, tmp_path, ld_alpha=0.3, steps=1)
    monitor = attach_entanglement(trainer, every=1, pairs=None, verify=True)
    trainer.train()
    assert monitor.monitor.max_rel_error < 1e-5
    assert logged(trainer)[0]["entanglement/extra_pass"] > 0
    assert "measured by a pass of their own" in capsys.readouterr().out


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trl_accumulates_beyond_the_pairs_that_are_measured(tokenizer, tmp_path, checkpointing):
    """Two of a step's six are measured, all in its first batch; predictions know the share of each."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "optim": "sgd", "steps": 2}
    settings |= {"max_grad_norm": 0.0, "learning_rate": 1e-4, "lr_scheduler_type": "constant"}
    trainer = trl_trainer(tokenizer, tmp_path, gradient_checkpointing=checkpointing, **settings)
    attach_entanglement(trainer, every=1, pairs=2, verify=True)
    trainer.train()
    for entry in logged(trainer):
        assert entry["entanglement/extra_pass"] == 0
        assert {"entanglement/step_chosen", "entanglement/sgd_chosen"} <= entry.keys()


def test_trl_with_one_pair_a_step_is_predicted(tokenizer, tmp_path):
    """Plain descent on the pair alone, in three batches of which each has it: the optimiser does what is predicted."""
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "optim": "sgd", "steps": 1}
    settings |= {"max_grad_norm": 0.0, "learning_rate": 1e-4, "lr_scheduler_type": "constant"}
    trainer = trl_trainer(tokenizer, tmp_path, **settings)
    trainer.train_dataset = trainer.train_dataset.select([0, 0, 0])
    attach_entanglement(trainer, every=1, pairs=None)
    trainer.train()
    (entry,) = logged(trainer)
    for side in ("chosen", "rejected"):
        whole = 3 * entry[f"entanglement/sgd_{side}"]
        assert entry[f"entanglement/step_{side}"] == pytest.approx(whole, rel=1e-3)


def test_the_routers_loss_of_trl_is_not_taken_for_the_pairs(tokenizer, tmp_path, capsys):
    from transformers import MixtralConfig, MixtralForCausalLM
    from trl import DPOConfig, DPOTrainer

    config = MixtralConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2, "output_router_logits": True},
    )
    torch.manual_seed(0)
    settings = {"max_steps": 1, "logging_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False}
    MixtralForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = DPOTrainer(
            str(tmp_path / "model"),
            args=DPOConfig(str(tmp_path / "run"), gradient_checkpointing=False, save_strategy="no", **settings),
            train_dataset=datasets.Dataset.from_list(pair_rows(8)),
            processing_class=tokenizer,
        )
    assert trainer.aux_loss_enabled
    attach_entanglement(trainer, every=1, pairs=2)
    trainer.train()
    assert logged(trainer)[0]["entanglement/extra_pass"] == 1
    assert "routers goes past the log-probabilities" in capsys.readouterr().out


def test_trl_with_an_anchor_pulls_the_chosen_harder(tokenizer, tmp_path):
    trainer = trl_trainer(tokenizer, tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.2], steps=1)
    attach_entanglement(trainer, every=1, pairs=None)
    trainer.train()
    first = logged(trainer)[0]
    assert first["entanglement/d_rejected"] == pytest.approx(0.05, rel=1e-4)
    assert first["entanglement/d_chosen"] > 0.06


class PairsTrainer(Trainer):
    """A user's own trainer of pairs."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = both_at_once(model, inputs)
        return torch.nn.functional.softplus(-(chosen - rejected)).mean()


def both_at_once(model, inputs):
    ids, mask, completion = (inputs[name] for name in ("input_ids", "attention_mask", "completion_mask"))
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    logp = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0]
    return (logp * completion[:, 1:]).sum(-1).chunk(2)


def side_by_side(model, inputs):
    total, found = len(inputs["input_ids"]) // 2, []
    for rows in (slice(0, total), slice(total, None)):
        part = {name: value[rows] for name, value in inputs.items() if value.shape[0] == 2 * total}
        logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1]
        logp = torch.log_softmax(logits, -1).gather(2, part["input_ids"][:, 1:, None])[..., 0]
        found.append((logp * part["completion_mask"][:, 1:]).sum(-1))
    return tuple(found)


def own_trainer(tokenizer, folder, model, **changes):
    batch = pair_batch(tokenizer, pair_rows(4))
    settings = {"max_steps": 2, "per_device_train_batch_size": 1, "remove_unused_columns": False, **changes}
    return PairsTrainer(
        model, arguments(folder, **settings), train_dataset=[batch] * 4, data_collator=lambda rows: rows[0]
    ), batch


def test_a_trainer_with_dropout_trains_to_the_same_weights_with_a_monitor(tokenizer, tmp_path):
    """The monitor measures in training mode, and leaves the draws of training as they were."""
    weights = []
    for attached in (False, True):
        model = llama(tokenizer, attention_dropout=0.2)
        trainer, _ = own_trainer(tokenizer, tmp_path / str(attached), model)
        if attached:
            attach_entanglement(trainer, every=1, logps=both_at_once)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("logps", [both_at_once, side_by_side])
def test_any_trainer_with_two_log_probabilities(tokenizer, tmp_path, logps, lora, capsys):
    model = llama(tokenizer)
    if lora:
        from align.models.adapters import add_adapter

        model.name_or_path = "tiny"
        model = add_adapter(model, LORA)
    trainer, batch = own_trainer(tokenizer, tmp_path, model)
    exact = brute_force(model, output_head(model), rows_of_pairs(batch, range(4)))
    attach_entanglement(trainer, every=1, pairs=3, logps=logps)
    trainer.train()
    first = logged(trainer)[0]
    assert first["entanglement/cosine"] == pytest.approx(float(exact.cosine[:3].mean()), abs=1e-5)
    assert first["entanglement/chosen_norm"] == pytest.approx(float(exact.chosen_norm[:3].mean()), rel=1e-4)
    assert "entanglement/step_chosen" in first
    assert ("differentiated alone" in capsys.readouterr().out) is (logps is side_by_side)


def test_strangers_are_told_what_to_pass(tokenizer, tmp_path):
    trainer, _ = own_trainer(tokenizer, tmp_path, llama(tokenizer))
    with pytest.raises(ValueError, match="PairsTrainer is not known: pass logps=f"):
        attach_entanglement(trainer)
    with pytest.raises(ValueError, match="not with logps"):
        attach_entanglement(trainer, logps=both_at_once, verify=True)


@pytest.mark.parametrize(
    "wrong", [lambda m, i: (torch.zeros(2), torch.zeros(2)), lambda m, i: tuple(x[:, None] for x in both_at_once(m, i))]
)
def test_functions_that_return_something_else_are_refused(tokenizer, tmp_path, wrong):
    trainer, _ = own_trainer(tokenizer, tmp_path, llama(tokenizer))
    attach_entanglement(trainer, every=1, logps=wrong)
    with pytest.raises(ValueError, match="as two vectors of one length"):
        trainer.train()
