"""How losses are averaged, and that evaluation is over the whole set."""

import datasets
import pytest
import torch

from align import PairTrainer
from tests.conftest import arguments, losses, pair_rows, rows


def dataset(n=24, **columns):
    return datasets.Dataset.from_list(pair_rows(n)).add_column("weight", columns["weight"]) if columns else rows(n)


def _other(model_dir):
    from align.models.load import Source, load_model

    other = load_model(Source(path=str(model_dir)))
    with torch.no_grad():
        other.model.embed_tokens.weight.mul_(1.3)
    return other


def test_accumulation_changes_nothing(model_dir, tmp_path):
    """8 pairs at once, 2 x 4 and 4 x 2, with weights that differ: the same step."""
    weights = [1.0 + (i % 5) for i in range(24)]
    final = []
    for batch, steps in ((8, 1), (4, 2), (2, 4)):
        trainer = PairTrainer(
            model=str(model_dir),
            args=arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=steps),
            train_dataset=dataset(weight=weights),
        )
        trainer.train()
        final.append((losses(trainer), trainer.model.model.embed_tokens.weight.detach().clone()))
    for history, weight in final[1:]:
        assert history == pytest.approx(final[0][0], rel=1e-5)
        torch.testing.assert_close(weight, final[0][1], rtol=1e-4, atol=1e-6)


def gradients(model_dir, tmp_path, data):
    trainer = PairTrainer(
        model=str(model_dir),
        args=arguments(tmp_path, per_device_train_batch_size=len(data), lr_scheduler_type="constant", optim="sgd"),
        train_dataset=data,
    )
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_weight_two_is_the_row_twice(model_dir, tmp_path):
    weighted = dataset(4, weight=[2.0, 1.0, 1.0, 1.0])
    doubled = datasets.Dataset.from_list([*pair_rows(4), pair_rows(4)[0]])
    once, twice = (gradients(model_dir, tmp_path, data) for data in (weighted, doubled))
    assert once.keys() == twice.keys()
    for name in once:
        torch.testing.assert_close(once[name], twice[name], rtol=1e-4, atol=1e-7)


def test_evaluation_is_over_the_set_not_over_batches(model_dir, tmp_path):
    """Batches of 1, 3 and 8 give one accuracy, that of all pairs together."""
    results = []
    for size in (1, 3, 8):
        trainer = PairTrainer(
            model=str(model_dir),
            reference=_other(model_dir),
            args=arguments(tmp_path, per_device_eval_batch_size=size),
            train_dataset=rows(),
            eval_dataset=rows(11),
        )
        results.append(trainer.evaluate())
    for result in results[1:]:
        for key in ("eval_loss", "eval_accuracy", "eval_accuracy_low", "eval_margin", "eval_logps/chosen"):
            assert result[key] == pytest.approx(results[0][key], rel=1e-4), key
    assert results[0]["eval_pairs"] == 11
