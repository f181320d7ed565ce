"""What learning degrees adds to a trainer, whatever its rows: layout, heads, surprisal."""

import pytest
import torch

from align.recipe.spo import DegreeSettings, SpoSettings
from tests.diagnostics.tiny import llama
from tests.trainers.test_spo import batch_of, spo


def test_versions_decide_about_packing_too(tokenizer, tmp_path):
    """Pairs alone save next to nothing here: the objective reads one side, and prompts are short."""
    trainer = spo(llama(tokenizer), tokenizer, tmp_path, options={"objective": "sft"}, max_steps=1)
    trainer.train()
    assert trainer.speed.packs
    batch = batch_of(trainer)
    padded, laid = trainer.rows_beside(batch)
    assert laid < 0.7 * padded == 0.7 * batch["degree_input_ids"].numel()


def test_heads_of_other_degrees_are_not_taken_over(tokenizer, tmp_path):
    kept = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    spo(llama(tokenizer), tokenizer, tmp_path / "a", **kept).train()
    other = SpoSettings(versions=DegreeSettings(extractor="tfidf", degrees=4))
    with pytest.raises(ValueError, match=r"degree_head.safetensors is of other degree heads than spo asks for"):
        spo(llama(tokenizer), tokenizer, tmp_path / "b", settings=other, **kept).train(
            resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2")
        )


def test_surprisal_is_that_of_a_reference_of_its_own(tokenizer, tmp_path):
    """Where the reference is another model, words are as surprising as that one finds them."""
    versions = DegreeSettings(extractor="surprisal", degrees=3)

    def made(folder, **options):
        trainer = spo(
            llama(tokenizer), tokenizer, tmp_path / folder, settings=SpoSettings(versions=versions), options=options
        )
        return [row["chosen_versions"] for row in trainer.train_dataset]

    other = llama(tokenizer)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    assert made("a") != made("b", reference=other)
