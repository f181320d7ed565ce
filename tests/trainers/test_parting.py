import pytest

from align import PairTrainer
from align.recipe.disentangle import Calibrate, Normalise, Sparse
from tests.diagnostics.tiny import llama, logged, trainer_of


class OwnForward(PairTrainer):
    def forward_logps(self, model, batch):
        return super().forward_logps(model, batch)


@pytest.mark.parametrize(("cls", "objective"), [(OwnForward, "dpo"), (PairTrainer, "sft"), (PairTrainer, "npo")])
def test_both_sides_in_one_forward_are_needed(tokenizer, tmp_path, cls, objective):
    with pytest.raises(ValueError, match="disentangle: normalise needs both sides of a pair in one forward"):
        trainer_of(
            llama(tokenizer), tokenizer, tmp_path, cls=cls, options={"objective": objective, "disentangle": Normalise()}
        )


def test_moving_averages_are_continued(tokenizer, tmp_path):
    def run(folder):
        settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        return trainer_of(llama(tokenizer), tokenizer, folder, options={"disentangle": Calibrate()}, **settings)

    whole = run(tmp_path / "a")
    whole.train()
    again = run(tmp_path / "b")
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    last = [logged(trainer)[-1]["disentangle/log_alpha"] for trainer in (whole, again)]
    assert last[0] == pytest.approx(last[1], rel=1e-6)


@pytest.mark.parametrize("method", [Normalise(), Calibrate(), Sparse(mask="contrast"), Sparse()])
def test_evaluation_has_the_remedys_loss_and_touches_no_average(tokenizer, tmp_path, method):
    import datasets

    from tests.conftest import pair_rows

    trainer = trainer_of(
        llama(tokenizer),
        tokenizer,
        tmp_path,
        options={"disentangle": method, "eval_dataset": datasets.Dataset.from_list(pair_rows(4))},
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(0.6931, abs=0.02)
    if isinstance(method, Calibrate):
        assert trainer.parting.reweighting.averages == {}


def test_accumulated_batches_are_remedied_pair_by_pair(tokenizer, tmp_path):
    def trained(folder, **settings):
        trainer = trainer_of(llama(tokenizer), tokenizer, folder, options={"disentangle": Normalise()}, **settings)
        trainer.train()
        return [entry["loss"] for entry in logged(trainer)]

    whole = trained(tmp_path / "a", per_device_train_batch_size=4)
    parts = trained(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert whole == pytest.approx(parts, rel=1e-5)
