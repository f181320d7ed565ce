"""Log-probabilities of completions against the whole logits, one sequence at a time."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GPT2LMHeadModel, Qwen3Config

from align.models.logprobs import completion_logps, output_head

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
GEMMA2 = Gemma2Config(vocab_size=60, intermediate_size=48, head_dim=8, final_logit_softcapping=3.0, **SIZES)
QWEN3 = Qwen3Config(vocab_size=60, intermediate_size=48, head_dim=8, tie_word_embeddings=False, **SIZES)
GPT2 = GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4)


def sequences() -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(0)
    lengths = [(5, 3), (2, 7), (6, 1)]
    return [tuple(torch.randint(3, 60, (n,), generator=generator).tolist() for n in pair) for pair in lengths]


def batch() -> dict[str, torch.Tensor]:
    rows = sequences()
    longest = max(len(p) + len(c) for p, c in rows) + 2
    ids = torch.full((len(rows), longest), 7)
    attention, completion = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        attention[i, :end] = 1
        completion[i, len(prompt) : end] = True
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def by_hand(model, prompt: list[int], answer: list[int]) -> list[float]:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].detach().double()
    table = logits.log_softmax(-1)
    return [float(table[len(prompt) + k - 1, token]) for k, token in enumerate(answer)]


@pytest.mark.parametrize("config", [GEMMA2, QWEN3, GPT2], ids=["gemma2-softcap", "qwen3", "gpt2"])
def test_equal_to_a_forward_a_sequence(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tokens = completion_logps(model, output_head(model), **batch())
    for i, (prompt, answer) in enumerate(sequences()):
        expected = torch.tensor(by_hand(model, prompt, answer), dtype=torch.float32)
        torch.testing.assert_close(tokens.logp[i][tokens.mask[i]], expected, rtol=1e-5, atol=1e-5)
    assert tokens.lengths.tolist() == [3, 7, 1]


def test_gradient_equals_the_full_logits_gradient(model):
    inputs = batch()
    completion_logps(model, output_head(model), **inputs).summed().logps.sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    table = logits.log_softmax(-1)[:, :-1].gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    (table * inputs["completion_mask"][:, 1:]).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-5)


def test_logits_of_other_positions_never_exist(model):
    seen = []
    head = output_head(model)
    head.register_forward_hook(lambda module, arguments, output: seen.append(tuple(output.shape)))
    completion_logps(model, head, **batch())
    assert seen == [(1, 3 + 7 + 1, model.config.vocab_size)]


def test_the_hook_is_gone_afterwards_even_after_an_error(model):
    head = output_head(model)
    inputs = batch()
    with pytest.raises(ValueError, match="hidden states of shape"):
        completion_logps(_Truncating(model), head, **inputs)
    assert not head._forward_pre_hooks
    assert model(input_ids=inputs["input_ids"]).logits.shape[1] == inputs["input_ids"].shape[1]


class _Truncating(torch.nn.Module):
    """A model that passes only some of its positions to its head."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        return self.inner(**inputs, logits_to_keep=2)


def test_what_follows_a_sequence_does_not_matter(model):
    """Padding on the right, of whatever token, changes no log-probability."""
    inputs = batch()
    first = completion_logps(model, output_head(model), **inputs)
    padded = {k: torch.nn.functional.pad(v, (0, 5)) for k, v in inputs.items()}
    second = completion_logps(model, output_head(model), **padded)
    torch.testing.assert_close(first.summed().logps, second.summed().logps, rtol=1e-5, atol=1e-5)


def test_temperature_divides_the_logits():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2).eval()
    tokens = completion_logps(model, output_head(model), temperature=2.0, **batch())
    prompt, answer = sequences()[0]
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].detach()
    expected = [float((logits[len(prompt) + k - 1] / 2).log_softmax(-1)[t]) for k, t in enumerate(answer)]
    torch.testing.assert_close(tokens.logp[0, : len(answer)], torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_a_model_without_a_head_is_refused():
    from transformers import GPT2Model

    with pytest.raises(ValueError, match="no output embedding"):
        output_head(GPT2Model(GPT2))
