"""Small models and pairs that several tests here measure."""

import datasets
import torch
from peft import LoraConfig
from transformers import LlamaForCausalLM

from align import PairTrainer
from align.diagnostics.measure import Rows
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from tests.conftest import arguments, pair_rows, tiny_config

LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
EVERY_STEP = DiagnosticsSettings(entanglement=EntanglementSettings(every=1, pairs=None))
VERIFIED = DiagnosticsSettings(entanglement=EntanglementSettings(every=1, pairs=None), verify=True)


def llama(tokenizer, *, seed=0, **changes):
    """Return a small Llama with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(tokenizer, initializer_range=0.2, **changes))


def suffix_rows(n=8):
    """Pairs that differ in one word and share what follows it."""
    told = "the day was so long and then we walked home in the rain"
    return [
        {
            "prompt": [{"role": "user", "content": f"say {i}"}],
            "chosen": [{"role": "assistant", "content": f"good {told} {i}"}],
            "rejected": [{"role": "assistant", "content": f"bad {told} {i}"}],
        }
        for i in range(n)
    ]


def trainer_of(model, tokenizer, folder, *, rows=None, peft_config=None, cls=PairTrainer, options=None, **changes):
    """Return a trainer of pairs; ``options`` go to it, ``changes`` to its arguments."""
    return cls(
        model,
        arguments(folder, **changes),
        train_dataset=datasets.Dataset.from_list(rows or pair_rows(8)),
        processing_class=tokenizer,
        peft_config=peft_config,
        **{"objective": "dpo", **(options or {})},
    )


def logged(trainer):
    """Return the log entries of training steps."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def pair_batch(tokenizer, rows):
    """Return a collated batch of rows."""
    from align.data.collate import PairCollator
    from align.data.prepare import prepare_pairs

    prepared = prepare_pairs(datasets.Dataset.from_list(rows), tokenizer).dataset
    return dict(PairCollator(tokenizer.pad_token_id)([prepared[i] for i in range(len(prepared))]))


def whole_gradients(model, logps):
    """Return the gradient of each of several numbers by all trainable weights, in float64, a row a number."""
    weights = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for one in logps:
        found = torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True)
        pairs = zip(found, weights, strict=True)
        rows.append(torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs]).double())
    return torch.stack(rows)


def nothing_measured():
    """Return log-probabilities and rows of one pair, for what passes them on unread."""
    tokens = TokenLogps(logp=torch.zeros(1, 1), mask=torch.ones(1, 1, dtype=torch.bool))
    ones = torch.ones(2, 1, dtype=torch.long)
    rows = Rows(input_ids=ones, attention_mask=ones, completion_mask=ones.bool(), groups=torch.tensor([[0, 1]]))
    return PairTokenLogps(chosen=tokens, rejected=tokens), rows
