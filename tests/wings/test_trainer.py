import pytest
import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import TrainingArguments

from align.trainers.base import AlignmentTrainer, RowLosses
from align.wings.gallery import Rows
from align.wings.trainer import COMPOSER_FILE, MethodTrainer, stacked


def arguments(folder, **more):
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.1, "report_to": "none"}
    quiet = {"disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "logging_steps": 1, "seed": 3}
    return TrainingArguments(output_dir=str(folder), **settings | quiet | more)


def losses(model, batch):
    found = (model(batch["x"])[:, 0] - batch["y"]).square()
    return RowLosses(losses=found, metrics={"size": batch["x"].norm(dim=1)})


def rows(n=10):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    return Rows(x=x, y=x.sum(1))


def net():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_a_step_is_the_gradient_of_the_mean_over_rows(tmp_path):
    model, start = net(), net()
    everything = rows(4)
    trainer = MethodTrainer(
        model,
        arguments(tmp_path, max_steps=1, lr_scheduler_type="constant", max_grad_norm=0),
        losses=losses,
        rows=everything,
        optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
    )
    trainer.train()
    loss = (start(everything.columns["x"])[:, 0] - everything.columns["y"]).square().mean()
    loss.backward()
    torch.testing.assert_close(model.weight, start.weight - 0.1 * start.weight.grad)
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert log["size"] == pytest.approx(everything.columns["x"].norm(dim=1).mean().item(), rel=1e-5)
    assert log["rows_per_second"] > 0
    assert "tokens_per_second" not in log


def test_rows_that_are_compared_are_not_cut_into_accumulation_steps(tmp_path):
    cut = arguments(tmp_path, gradient_accumulation_steps=2)
    MethodTrainer(net(), cut, losses=losses, rows=rows())
    with pytest.raises(ValueError, match="gradient_accumulation_steps: every row is compared"):
        MethodTrainer(net(), cut, losses=losses, rows=rows(), couples_rows=True)


def test_batches_are_not_filled_up_with_copies(tmp_path, monkeypatch):
    def trainer(sampler=None, **more):
        monkeypatch.undo()
        made = MethodTrainer(net(), arguments(tmp_path, **more), losses=losses, rows=rows(10), sampler=sampler)
        monkeypatch.setattr(type(made.accelerator), "num_processes", 2)
        monkeypatch.setattr(AlignmentTrainer, "train", lambda self, *a, **k: "trained")
        return made

    with pytest.raises(ValueError, match=r"dataloader_drop_last: the last batch of an epoch has 2 of 8 rows"):
        trainer().train()
    assert trainer(dataloader_drop_last=True).train() == "trained"
    assert trainer(range(8)).train() == "trained"  # a sampler's batches are whole
    with pytest.raises(ValueError, match="dataloader_drop_last: the last batch of an epoch has 1 of 8 rows"):
        trainer(range(9)).train()
    with pytest.raises(ValueError, match="per_device_train_batch_size: 64 rows make a batch, and there are 10"):
        trainer(dataloader_drop_last=True, per_device_train_batch_size=32).train()


def test_evaluations_say_what_the_method_says(tmp_path):
    seen = []

    def figures():
        seen.append(model.training)
        return {"weight": float(model.weight.detach().norm())}

    model = net()
    options = {"eval_strategy": "steps", "eval_steps": 2}
    trainer = MethodTrainer(model, arguments(tmp_path, **options), losses=losses, rows=rows(), figures=figures)
    trainer.train()
    logged = [entry["eval_weight"] for entry in trainer.state.log_history if "eval_weight" in entry]
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(model.weight.detach().norm().item())
    assert seen == [False, False]
    assert model.training


class Counted(Sampler[int]):
    """Draws backwards, and remembers how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return 8

    def __iter__(self):
        self.asked += 1
        return iter(range(7, -1, -1))

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def test_a_sampler_of_ones_own_orders_the_rows_and_is_kept_in_checkpoints(tmp_path):
    drawn = []

    def looking(model, batch):
        drawn.extend(batch["index"].tolist())
        return losses(model, batch)

    saving = arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    MethodTrainer(net(), saving, losses=looking, rows=rows(8), sampler=Counted()).train()
    assert drawn == [7, 6, 5, 4, 3, 2, 1, 0]
    assert torch.load(tmp_path / "checkpoint-2" / COMPOSER_FILE)["asked"] == 1

    again = Counted()
    further = arguments(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    trainer = MethodTrainer(net(), further, losses=looking, rows=rows(8), sampler=again)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.asked >= 2  # went on from 1


def test_rows_that_fill_a_batch_up_do_not_count():
    batch = stacked(
        [{"x": torch.tensor(1.0), "filler": False}, {"x": torch.tensor(2.0), "filler": True, "weight": 0.0}]
    )
    assert batch["x"].tolist() == [1, 2]
    assert batch["weight"].tolist() == [1, 0]
    assert batch["real"].tolist() == [True, False]


def test_summaries_are_means(tmp_path):
    trainer = MethodTrainer(net(), arguments(tmp_path), losses=losses, rows=rows())
    assert trainer.summarise({"a": torch.tensor([1.0, 3.0]).numpy()}) == {"a": 2.0}
