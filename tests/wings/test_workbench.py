import pytest
import torch
from torch import nn

from align.trainers.base import RowLosses
from align.wings.gallery import Gallery, Rows, Splits
from align.wings.recipe import load_method_recipe
from align.wings.workbench import FINISHED_FILE, Workbench

TEXT = """
method: clip
data: mnist
trainer: {max_steps: 6, per_device_train_batch_size: 4, learning_rate: 0.05, save_steps: 2, logging_steps: 1, seed: 5}
"""


def bench(folder, *, keeps=True, text=TEXT):
    file = folder / "r.yaml"
    file.write_text(text)
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = Gallery(images=images, labels=torch.arange(12) % 2, classes=("a", "b"))
    return Workbench(load_method_recipe(file), Splits(train=whole, test=whole), folder / "run", keeps=keeps)


def losses(model, batch):
    return RowLosses(losses=model(batch["images"].flatten(1))[:, 0].square(), metrics={})


def net():
    torch.manual_seed(1)
    return nn.Linear(16, 1)


def trained(work, **more):
    rows = Rows(images=work.data.train.images)
    return work.train(net(), losses, rows, **more)


def test_a_finished_stage_is_read_back_and_not_trained_again(tmp_path):
    work = bench(tmp_path)
    first = trained(work, stage="pretrain")
    assert (work.folder / "pretrain" / FINISHED_FILE).is_file()

    def never(model, batch):
        raise AssertionError("trained again")

    again = bench(tmp_path)
    second = again.train(net(), never, Rows(images=again.data.train.images), stage="pretrain")
    torch.testing.assert_close(second.weight, first.weight)
    assert not second.training


def test_a_stage_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = trained(bench(tmp_path / "whole"))

    class KilledError(Exception):
        pass

    work = bench(tmp_path / "cut")

    def dying(model, batch):
        if work.step == 5:
            raise KilledError
        return losses(model, batch)

    with pytest.raises(KilledError):
        work.train(net(), dying, Rows(images=work.data.train.images))
    again = trained(bench(tmp_path / "cut"))
    torch.testing.assert_close(again.weight, whole.weight, rtol=0, atol=0)


def test_runs_that_keep_nothing_leave_nothing(tmp_path):
    work = bench(tmp_path, keeps=False)
    trained(work)
    work.picture("p", lambda: pytest.fail("drawn"))
    assert not (work.folder / FINISHED_FILE).exists()
    assert not list(work.folder.glob("**/*.png"))
    assert not list(work.folder.glob("**/checkpoint*"))


def test_a_stage_draws_the_same_rows_whatever_came_before_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone = trained(bench(tmp_path / "a"))
    work = bench(tmp_path / "b")
    trained(work, stage="first", max_steps=3)
    torch.rand(100)
    torch.testing.assert_close(trained(work).weight, alone.weight, rtol=0, atol=0)


def test_progress_runs_from_nothing_to_all(tmp_path):
    work, seen = bench(tmp_path), []

    def looking(model, batch):
        seen.append(work.progress)
        return losses(model, batch)

    assert work.progress == 0.0
    work.train(net(), looking, Rows(images=work.data.train.images))
    assert seen == pytest.approx([step / 6 for step in range(6)])


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    work = bench(tmp_path)

    def broken(model, batch):
        return RowLosses(losses=model(batch["images"].flatten(1))[:, 0] * float("nan"), metrics={})

    with pytest.raises(ValueError, match=r"main: the loss became nan; lower trainer.learning_rate"):
        work.train(net(), broken, Rows(images=work.data.train.images))


def test_generators_depend_on_the_seed_and_on_nothing_drawn(tmp_path):
    work = bench(tmp_path)
    first = torch.rand(3, generator=work.generator())
    torch.rand(7)
    assert torch.equal(torch.rand(3, generator=work.generator()), first)
    assert not torch.equal(torch.rand(3, generator=work.generator(1)), first)


def test_one_process_gathers_its_own_rows(tmp_path):
    work = bench(tmp_path)
    rows = torch.rand(3, 2)
    assert work.gather(rows) is rows
    assert work.place(rows).tolist() == [0, 1, 2]
    assert work.processes == 1


def test_over_is_the_function_in_batches_without_gradient(tmp_path):
    work = bench(tmp_path)
    layer = nn.Linear(2, 3)
    rows = torch.rand(7, 2)
    found = work.over(layer, rows, batch_size=3)
    torch.testing.assert_close(found, layer(rows).detach())
    assert not found.requires_grad
