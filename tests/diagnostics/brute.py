"""Models of several architectures, and inner products of whole gradients, written apart from what is tested."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from align.diagnostics.measure import Rows

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
DRY = {"n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
KINDS = {
    "llama": lambda tie: LlamaForCausalLM(LlamaConfig(**SMALL, **SPECIAL, **GROUPED, tie_word_embeddings=tie)),
    "qwen3": lambda tie: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, **SPECIAL, **GROUPED, head_dim=8, tie_word_embeddings=tie)
    ),
    "gemma3": lambda tie: Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, **SPECIAL, **GROUPED, head_dim=8, tie_word_embeddings=tie)
    ),
    "gpt2": lambda tie: GPT2LMHeadModel(GPT2Config(**SMALL, **SPECIAL, **DRY, tie_word_embeddings=tie)),
}


def model_of(kind, *, tie=True, lora=False, dtype=torch.float32):
    """Return a small model in training mode, with random scales and adapters."""
    torch.manual_seed(0)
    model = KINDS[kind](tie)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=kind == "gpt2"))
    for name, weight in model.named_parameters():
        if weight.ndim == 1 or "lora_B" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    return model.to(dtype).train()


def rows_of(pairs=3, time=12, seed=1):
    """Return padded rows of pairs that share the start of their prompts; the pad token is a real one too."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 97, (2 * pairs, time), generator=drawn)
    lengths = torch.randint(time - 5, time + 1, (2 * pairs,), generator=drawn)
    lengths[0] = time
    starts = torch.randint(2, 5, (pairs,), generator=drawn).repeat(2)
    position = torch.arange(time)
    real = position < lengths[:, None]
    ids[pairs:, :2] = ids[:pairs, :2]
    ids[0, 1] = ids[0, 6] = 0
    return Rows(
        input_ids=ids.masked_fill(~real, 0),
        attention_mask=real.long(),
        completion_mask=real & (position >= starts[:, None]),
        groups=torch.arange(2 * pairs).view(2, pairs).T.contiguous(),
    )


def logps_of(model, rows):
    """Return the summed log-probability of each row's completion, from the model's whole logits."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logp = torch.log_softmax(logits, -1).gather(2, rows.input_ids[:, 1:, None])[..., 0]
    return (logp * rows.completion_mask[:, 1:]).sum(-1)


def one_row(rows, number):
    """Return a row by itself, without padding."""
    width = int(rows.attention_mask[number].sum())
    parts = [t[number : number + 1, :width] for t in (rows.input_ids, rows.attention_mask, rows.completion_mask)]
    return Rows(input_ids=parts[0], attention_mask=parts[1], completion_mask=parts[2], groups=torch.zeros(1, 1).long())


def exact_products(model, rows, logps=logps_of):
    """Return inner products of whole gradients within groups, each row computed by itself."""
    weights = [p for p in model.parameters() if p.requires_grad]
    whole = []
    for number in range(len(rows.input_ids)):
        found = torch.autograd.grad(logps(model, one_row(rows, number)).sum(), weights, allow_unused=True)
        pairs = zip(found, weights, strict=True)
        whole.append(torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs]).double())
    stacked = torch.stack(whole)[rows.groups]
    return stacked @ stacked.mT


def error_of(found, exact):
    """Return the largest difference relative to the product of the norms."""
    norms = exact.diagonal(dim1=1, dim2=2).sqrt()
    return float(((found - exact).abs() / (norms[:, :, None] * norms[:, None, :])).max())


class RootMeanSquareRMSNorm(nn.Module):
    """An RMSNorm that computes in the type it is given."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(size) + 0.5), 1e-5

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)


class LowRank(nn.Module):
    """A linear layer with an adapter beside it."""

    def __init__(self, size):
        super().__init__()
        self.base = nn.Linear(size, size)
        self.lora_A, self.lora_B = nn.Linear(size, 2, bias=False), nn.Linear(2, size, bias=False)

    def forward(self, hidden):
        return self.base(hidden) + 0.7 * self.lora_B(self.lora_A(hidden))


class Toy(nn.Module):
    """A causal transformer with everything: tied embedding, learned positions, both norms, a layer used twice."""

    def __init__(self, size=12, vocabulary=29):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.places = nn.Embedding(vocabulary, size), nn.Embedding(32, size)
        self.before, self.after = nn.LayerNorm(size), RootMeanSquareRMSNorm(size)
        self.mix, self.twice = LowRank(size), nn.Linear(size, size)
        self.head = nn.Linear(size, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.4)

    def get_input_embeddings(self):
        return self.tokens

    def forward(self, input_ids):
        hidden = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1])[None])
        normed = self.before(hidden)
        causal = torch.ones(input_ids.shape[1], input_ids.shape[1], dtype=torch.bool).tril()
        scores = (normed @ normed.mT).masked_fill(~causal, -torch.inf).softmax(-1)
        hidden = hidden + self.mix(scores @ normed)
        hidden = self.twice(torch.tanh(self.twice(hidden)))
        return self.head(self.after(hidden))


def toy_logps(model, rows):
    """Return the summed log-probability of each row's completion under a toy."""
    logp = F.log_softmax(model(rows.input_ids)[:, :-1], -1).gather(2, rows.input_ids[:, 1:, None])[..., 0]
    return (logp * rows.completion_mask[:, 1:]).sum(-1)
