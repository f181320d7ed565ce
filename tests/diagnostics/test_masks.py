import pytest
import torch
from safetensors.torch import load_file

from align.diagnostics.masks import ATTRIBUTE, MASK_FILE, contrast_weights
from align.models.beside import without
from align.recipe.disentangle import Sparse
from tests.diagnostics.tiny import EVERY_STEP, LORA, llama, logged, suffix_rows, trainer_of


@pytest.mark.parametrize(
    ("chosen", "rejected", "weights"),
    [
        ([1, 2, 3], [1, 2, 3], ([0, 0, 0], [0, 0, 0])),
        ([1, 2, 3], [4, 5], ([1, 1, 1], [1, 1])),
        ([9, 1, 2, 3], [8, 1, 2, 3], ([1, 0, 0, 0], [1, 0, 0, 0])),
        ([1, 2, 3], [1, 2, 3, 4], ([0, 0, 0], [0, 0, 0, 1])),
        ([1, 7, 2, 3], [1, 2, 3], ([0, 1, 0, 0], [0, 0, 0])),
    ],
)
def test_tokens_that_both_sides_share_in_one_order_are_masked(chosen, rejected, weights):
    assert contrast_weights(chosen, rejected, 0.0) == tuple([float(w) for w in side] for side in weights)


def test_shared_tokens_may_keep_a_weight():
    assert contrast_weights([1, 2], [1, 3], 0.25) == ([0.25, 1.0], [0.25, 1.0])


def test_a_contrast_mask_at_a_last_layer_keeps_condition_1():
    """Contrast tokens in one context, a learnable last layer: <g_w, g_l> is below both squared norms (A.5)."""
    torch.manual_seed(0)
    for _ in range(20):
        hidden, weight = torch.randn(6).double(), torch.randn(9, 6).double().requires_grad_()
        suffix, chosen, rejected = torch.randn(4, 6).double(), 2, 5
        tokens = torch.randint(0, 9, (4,)).tolist()
        masks = [torch.tensor(side) for side in contrast_weights([chosen, *tokens], [rejected, *tokens], 0.0)]
        gradients = []
        for first, mask in zip((chosen, rejected), masks, strict=True):
            states = torch.cat([hidden[None], suffix])
            logp = torch.log_softmax(states @ weight.T, -1)[torch.arange(5), torch.tensor([first, *tokens])]
            gradients.append(torch.autograd.grad((logp * mask).sum(), weight, retain_graph=True)[0].flatten())
        inner = gradients[0] @ gradients[1]
        assert inner < min(gradients[0] @ gradients[0], gradients[1] @ gradients[1])


def test_a_contrast_mask_trains_on_the_contrast_alone(tokenizer, tmp_path):
    options = {"disentangle": Sparse(mask="contrast"), "diagnostics": EVERY_STEP}
    trainer = trainer_of(llama(tokenizer), tokenizer, tmp_path, rows=suffix_rows(8), options=options)
    trainer.train()
    first = logged(trainer)[0]
    assert 0 < first["disentangle/mask"] < 0.1  # one word of a whole sentence
    assert first["entanglement/extra_pass"] == 1
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_a_learned_mask_is_trained_kept_and_not_exported(tokenizer, tmp_path, lora):
    model = llama(tokenizer)
    model.name_or_path = "tiny"
    options = {"disentangle": Sparse(mask="learned", penalty=1.0)}
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 0.02}
    trainer = trainer_of(
        model, tokenizer, tmp_path / "run", rows=suffix_rows(8), peft_config=lora, options=options, **settings
    )
    trainer.train()
    masks = [entry["disentangle/mask"] for entry in logged(trainer)]
    assert masks[0] == pytest.approx(0.88, abs=0.01)
    assert masks[-1] < masks[0]  # the penalty
    trainer.save_model(str(tmp_path / "out"))
    for folder in (tmp_path / "out", tmp_path / "run" / "checkpoint-2"):
        weights = next(folder.glob("*model.safetensors"))
        assert not [name for name in load_file(weights) if "token_mask" in name]
    assert set(load_file(tmp_path / "run" / "checkpoint-2" / MASK_FILE)) == {"weight", "bias"}
    again = trainer_of(
        _fresh(tokenizer),
        tokenizer,
        tmp_path / "run",
        rows=suffix_rows(8),
        peft_config=lora,
        options=options,
        **settings,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert logged(again)[-1]["disentangle/mask"] == pytest.approx(masks[-1], rel=1e-5)


def _fresh(tokenizer):
    model = llama(tokenizer)
    model.name_or_path = "tiny"
    return model


def test_a_run_without_a_mask_is_not_continued_with_one(tokenizer, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer_of(llama(tokenizer), tokenizer, tmp_path, **settings).train()
    masked = trainer_of(llama(tokenizer), tokenizer, tmp_path, options={"disentangle": Sparse()}, **settings)
    with pytest.raises(ValueError, match="learned no mask"):
        masked.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_weights_of_a_mask_are_left_out_by_name():
    names = ["lm_head.weight", "lm_head.token_mask.weight", "token_mask.bias", "my_token_mask"]
    assert list(without(dict.fromkeys(names, torch.zeros(1)), ATTRIBUTE)) == ["lm_head.weight", "my_token_mask"]
