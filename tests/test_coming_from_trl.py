"""docs/coming-from-trl.md: its tables are fresh, its blocks run, and each of its claims holds."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig
from transformers import TrainingArguments
from trl import DatasetMixtureConfig, DPOConfig, DPOTrainer, ModelConfig, ScriptArguments, TrlParser
from trl.trainer.dpo_trainer import DataCollatorForPreference

from align import DPO, PairTrainer
from align.data.tokenize import PairTokenizer
from align.data.tokens import TokenPair
from align.data.truncate import truncate
from align.recipe.trainer_fields import DEFAULTS
from tests.conftest import arguments, pair_rows, rows

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "coming-from-trl.md"
TEXT = PAGE.read_text()
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
SHARED = {
    "per_device_train_batch_size": 4,
    "max_steps": 3,
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


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture
def workplace(tmp_path, model_dir, monkeypatch):
    """The folder of somebody who has a model, pairs, and the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(model_dir)
    (tmp_path / "my_pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair_rows()))
    for block in (*blocks("yaml"), *blocks("python")):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    return tmp_path


def run(words, place):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ALIGN_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_tables_are_fresh():
    words = [sys.executable, "scripts/renamed_keys.py", "--print"]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == TEXT, "run: python scripts/renamed_keys.py"


def test_the_tables_have_every_key():
    from align.recipe.foreign import axolotl, handbook, trl

    cells = set(re.findall(r"`([\w-]+)`", TEXT))
    assert (trl.TABLE | handbook.TABLE | axolotl.TABLE).keys() <= cells


def test_the_commands_run_on_the_files_shown(workplace):
    for command in blocks("bash")[0].splitlines():
        run(shlex.split(command), workplace)
    assert json.loads((workplace / "runs/from-trl/summary.json").read_text())["steps"] == 2


def test_the_yaml_is_one_that_trl_reads(workplace):
    parser = TrlParser((ScriptArguments, DPOConfig, ModelConfig, DatasetMixtureConfig))
    _, config, _, mixture = parser.parse_args_and_config(["--config", "dpo.yaml", "--use_cpu", "true"])
    assert (config.beta, config.max_steps, mixture.datasets[0].data_files) == (0.05, 2, "my_pairs.jsonl")


@pytest.mark.parametrize("file", ["theirs.py", "ours.py"])
def test_both_scripts_run(workplace, file):
    run([sys.executable, file], workplace)


def test_arguments_of_the_table_exist():
    """``PairTrainer`` takes what the table says it takes; a ``DPOConfig`` it does not."""
    import inspect

    ours = set(inspect.signature(PairTrainer).parameters)
    named = {"objective", "max_length", "truncation", "reference"}
    assert ours >= named | {"processing_class", "peft_config", "callbacks", "optimizers", "args", "train_dataset"}


def test_a_dpo_config_is_refused(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"pass transformers.TrainingArguments instead of DPOConfig"):
        PairTrainer(model, DPOConfig(str(tmp_path), beta=0.5, use_cpu=True, bf16=False), processing_class=tokenizer)


# ---- what is the same ----------------------------------------------------------------------------------------------


def plain_text():
    """Rows of plain text, which both libraries tokenise to the same ids."""
    keep = ("chosen", "rejected")
    rows_ = [
        {"prompt": row["prompt"][0]["content"], **{k: " " + row[k][0]["content"] for k in keep}} for row in pair_rows()
    ]
    return datasets.Dataset.from_list(rows_)


@pytest.mark.parametrize("max_length", [1024, 10])
def test_the_loss_and_the_log_agree_with_trls(model_dir, tmp_path, max_length):
    """Where completions are cut (keep_start), too: 10 tokens cut most of these rows."""
    ours = PairTrainer(
        model=str(model_dir),
        args=TrainingArguments(str(tmp_path / "ours"), **SHARED),
        objective=DPO(beta=0.3),
        train_dataset=plain_text(),
        max_length=max_length,
    )
    theirs = DPOTrainer(
        model=str(model_dir),
        args=DPOConfig(str(tmp_path / "theirs"), beta=0.3, max_length=max_length, **SHARED),
        train_dataset=plain_text(),
        processing_class=ours.processing_class,
    )
    longest = max(len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in theirs.train_dataset)
    assert (longest > max_length) == (max_length == 10)
    ours.train()
    theirs.train()
    for key in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
        mine, other = ([e[key] for e in t.state.log_history if key in e] for t in (ours, theirs))
        assert len(mine) == 3
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5), key


def token_pair(prompt, chosen, rejected):
    return TokenPair(
        prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected, weight=1.0, where="row 1", prompt_hash="0"
    )


def cut_by_trl(mode, length, prompt, chosen, rejected):
    collator = DataCollatorForPreference(pad_token_id=0, max_length=length, truncation_mode=mode)
    batch = collator([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    ids = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [row[mask.bool()].tolist() for row, mask in ids]


def test_keep_start_cuts_to_the_same_ids():
    prompt, chosen, rejected = [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]
    cut = truncate(token_pair(prompt, chosen, rejected), 7, "keep_start")
    ours = [cut.prompt_ids + side for side in (cut.chosen_ids, cut.rejected_ids)]
    assert ours == cut_by_trl("keep_start", 7, prompt, chosen, rejected)


FORMS = {
    "plain text": {"prompt": "the day", "chosen": " good sun", "rejected": " bad rain"},
    "plain text, shared start": {"chosen": "the day good sun", "rejected": "the day bad rain"},
    "conversation": pair_rows(1)[0],
    "conversation, shared turns": {
        side: [*pair_rows(1)[0]["prompt"], *pair_rows(1)[0][side]] for side in ("chosen", "rejected")
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_form_are_read_alike(model, model_dir, tokenizer, tmp_path, form):
    data = datasets.Dataset.from_list([FORMS[form]])
    args = TrainingArguments(str(tmp_path), **SHARED)
    ours = PairTrainer(model, args, train_dataset=data, processing_class=tokenizer).train_dataset[0]
    theirs = prepared_by_trl(model_dir, tokenizer, tmp_path, data)
    assert list(ours["prompt_ids"]) == theirs["prompt_ids"]
    for side in ("chosen_ids", "rejected_ids"):  # behind the end of the turn, see below
        assert list(ours[side]) == theirs[side][: len(ours[side])]


@pytest.mark.parametrize("library", ["ours", "theirs"])
def test_dropout_is_off_and_lora_dropout_stays(tokenizer, tmp_path, library):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5)
    lora = LoraConfig(r=2, lora_dropout=0.25, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    parts = {"train_dataset": rows(), "processing_class": tokenizer, "peft_config": lora}
    if library == "ours":
        trainer = PairTrainer(GPT2LMHeadModel(config), TrainingArguments(str(tmp_path), **SHARED), **parts)
    else:
        trainer = DPOTrainer(GPT2LMHeadModel(config), args=DPOConfig(str(tmp_path), **SHARED), **parts)
    dropouts = {name: m.p for name, m in trainer.model.named_modules() if isinstance(m, torch.nn.Dropout)}
    of_adapters = {p for name, p in dropouts.items() if "lora_dropout" in name}
    assert {p for name, p in dropouts.items() if "lora_dropout" not in name} == {0}
    if library == "ours":
        assert of_adapters == {0.25}


# ---- what differs --------------------------------------------------------------------------------------------------


def test_bf16_checkpointing_and_learning_rate_by_default(tmp_path):
    theirs, ours = DPOConfig(str(tmp_path), use_cpu=True), TrainingArguments(str(tmp_path), use_cpu=True)
    assert (theirs.bf16, theirs.gradient_checkpointing, theirs.learning_rate) == (True, True, 1e-6)
    assert (bool(ours.bf16), bool(ours.gradient_checkpointing), ours.learning_rate) == (False, False, 5e-5)
    assert DEFAULTS["learning_rate"] == 1e-5
    assert not {"bf16", "gradient_checkpointing"} & DEFAULTS.keys()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_keep_end_leaves_both_sides_the_same_prompt_here_only():
    prompt, chosen, rejected = [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]
    cut = truncate(token_pair(prompt, chosen, rejected), 7, "keep_end")
    assert (cut.prompt_ids, cut.chosen_ids, cut.rejected_ids) == ([2, 3, 4], chosen, rejected)
    theirs = cut_by_trl("keep_end", 7, prompt, chosen, rejected)
    assert theirs == [[2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 10]]


def test_a_prompt_that_fills_the_length(model_dir, tmp_path):
    """TRL leaves the row out; here it is an error that names it, or counted with truncation: drop."""
    data = datasets.Dataset.from_list(
        [*plain_text(), {"prompt": "the day " * 40, "chosen": " good", "rejected": " bad"}]
    )
    ours = {"model": str(model_dir), "args": TrainingArguments(str(tmp_path), **SHARED), "max_length": 32}
    with pytest.raises(ValueError, match=r"row 25.*the prompt alone has"):
        PairTrainer(train_dataset=data, **ours)
    trainer = PairTrainer(train_dataset=data, truncation="drop", **ours)
    assert len(trainer.train_dataset) == 24
    theirs = DPOTrainer(
        str(model_dir),
        args=DPOConfig(str(tmp_path), max_length=32, **SHARED),
        train_dataset=data,
        processing_class=trainer.processing_class,
    )
    assert len(theirs.train_dataset) == 24


def prepared_by_trl(model_dir, tokenizer, tmp_path, data):
    config = DPOConfig(str(tmp_path), **SHARED)
    return DPOTrainer(str(model_dir), args=config, train_dataset=data, processing_class=tokenizer).train_dataset[0]


def test_prompt_and_completion_are_tokenised_apart(model, model_dir, tokenizer, tmp_path):
    """A prompt that ends within a word keeps its ids here; there its end merges with the answer and is lost."""
    row = {"prompt": "the wa", "chosen": "rm", "rejected": "lk"}
    own = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
    ours = PairTrainer(
        model,
        TrainingArguments(str(tmp_path), **SHARED),
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=tokenizer,
    ).train_dataset[0]
    theirs = prepared_by_trl(model_dir, tokenizer, tmp_path, datasets.Dataset.from_list([row]))
    assert ours["prompt_ids"] == own
    assert len(theirs["prompt_ids"]) < len(own)


def test_every_completion_ends_in_one_token_that_closes_the_turn(model, model_dir, tokenizer, tmp_path):
    eos = tokenizer.eos_token_id
    ours = PairTrainer(
        model, TrainingArguments(str(tmp_path), **SHARED), train_dataset=rows(1), processing_class=tokenizer
    ).train_dataset[0]
    theirs = prepared_by_trl(model_dir, tokenizer, tmp_path, rows(1))
    assert ours["prompt_ids"] == theirs["prompt_ids"]
    for side in ("chosen_ids", "rejected_ids"):
        assert (ours[side][-1], list(ours[side]).count(eos)) == (eos, 1)
        assert theirs[side][: len(ours[side])] == list(ours[side])
        assert tokenizer.decode(theirs[side][len(ours[side]) :]) == "\n"


def test_an_unknown_key_is_refused(workplace):
    from align.recipe.load import load_recipe

    Path("r.yaml").write_text("model: {path: my-model}\ndata: {train: a, max_lenght: 3}\nobjective: dpo\n")
    with pytest.raises(ValueError, match=r"r.yaml:2: data.max_lenght: .*did you mean 'max_length'"):
        load_recipe("r.yaml")


def test_what_was_tokenised_is_found_again(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    calls = []
    whole = PairTokenizer.__call__
    monkeypatch.setattr(
        PairTokenizer, "__call__", lambda self, *given: calls.append(len(given[0])) or whole(self, *given)
    )
    for folder, rate, beta in (("a", 1e-3, 0.1), ("a", 1e-6, 0.1), ("b", 1e-6, 0.1), ("b", 1e-6, 0.5)):
        PairTrainer(
            model,
            arguments(tmp_path / folder, learning_rate=rate),
            objective=DPO(beta=beta),
            train_dataset=rows(),
            processing_class=tokenizer,
        )
    assert calls == [24]


def test_the_reference_by_default(model_dir, tmp_path):
    args = TrainingArguments(str(tmp_path), **SHARED)
    adapted = PairTrainer(str(model_dir), args, train_dataset=rows(), peft_config=LORA)
    assert adapted.reference.description.startswith("adapter_off")
    assert PairTrainer(str(model_dir), args, train_dataset=rows()).reference.description.startswith("base")


def trained_adapter(model_dir):
    from align.models.adapters import add_adapter
    from align.models.load import Source, load_model

    torch.manual_seed(0)  # the adapter's own values
    adapted = add_adapter(load_model(Source(path=str(model_dir))), LORA)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    return adapted


def test_a_trained_adapter_has_two_references(model_dir, tokenizer, tmp_path):
    """There its copy is the reference, as with 'base' here; without a word on it, training here stops."""
    parts = {"train_dataset": plain_text(), "processing_class": tokenizer}
    args = TrainingArguments(str(tmp_path), **SHARED)
    with pytest.raises(ValueError, match=r"nats before the first update.*reference='base'"):
        PairTrainer(trained_adapter(model_dir), args, **parts).train()
    ours = PairTrainer(trained_adapter(model_dir), args, reference="base", **parts)
    theirs = DPOTrainer(trained_adapter(model_dir), args=DPOConfig(str(tmp_path), **SHARED), **parts)
    ours.train()
    theirs.train()
    mine, other = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (ours, theirs))
    assert mine == pytest.approx(other, rel=1e-4)
