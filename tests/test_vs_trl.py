"""The benchmark beside TRL: what is compared with what, what its figures are made of, and files of before."""

import json

import pytest
import torch

pytest.importorskip("trl")

from scripts.benchmarks import vs_trl
from scripts.benchmarks.vs_trl_figures import completed, furthest, spread, times
from scripts.benchmarks.vs_trl_page import PAGE, RESULTS, measured, table
from scripts.benchmarks.vs_trl_rows import ARMS, CPU_ROWS, Row, ratio_of, trainer_of

STEPS = {
    "align": [1.0, 1.0, 2.0],
    "trl": [4.0, 4.4, 8.0],
    "trl bf16": [3.0, 3.0, 6.0],
    "trl as it comes": [5.0, 5.0, 10.0],
}


def test_trl_at_its_best_is_the_faster_of_both():
    found = times(STEPS, [(1.0, 2.0)] * 3)
    assert (found["best"], found["wall_ratio"]) == ("trl bf16", 3.0)
    assert found["wall_ratios"] == {"trl": 4.0, "trl bf16": 3.0, "trl as it comes": 5.0}
    slower = times({**STEPS, "trl bf16": [9.0] * 3}, [])
    assert (slower["best"], slower["wall_ratio"]) == ("trl", 4.0)


def test_both_in_bfloat16_are_a_run_of_their_own(monkeypatch):
    """Of a tiny row, really run: the two agree as bfloat16 can, and take turns."""
    monkeypatch.setitem(vs_trl.REPETITIONS, "all", 2)
    found = vs_trl.measure_both_in_bf16(TINY)
    assert found["wall_ratio_bf16"] > 0
    assert found["max_logp_rel_diff_bf16"] < 0.02
    assert {arm: len(each) for arm, each in found["steps_bf16"].items()} == {"align bf16": 2, "trl bf16": 2}
    assert all(row.both == name.startswith("SmolLM2") for name, row in CPU_ROWS.items())


def test_ratios_are_of_steps_side_by_side():
    """A machine that is half as fast for one step of all arms changes no ratio; medians of each arm could."""
    found = times(STEPS, [(1.0, 1.25), (1.0, 1.25), (2.0, 2.5)])
    assert found["over_limit"] == 1.0
    assert found["over_limit_with_optimizer"] == 0.8
    assert found["wall_ratio_quartiles"] == [3.0, 3.0]
    assert found["over_limit_quartiles"] == [1.0, 1.0]
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, [2.0, 4.0])


def test_sequences_are_compared_one_by_one():
    """Differences that cancel in a batch's mean are seen."""
    ours, theirs = [torch.tensor([-10.0, -20.0])], [torch.tensor([-11.0, -19.0])]
    assert float(ours[0].mean()) == float(theirs[0].mean())
    assert furthest(ours, theirs) == pytest.approx(1 / 11)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_files_that_are_there_make_a_table(device):
    names = [file.stem for file in (RESULTS / device).glob("*.json")]
    found = measured(RESULTS / device, names)
    assert len(found) == len(names) > 0
    text = table(found)
    assert text.count("\n") == len(names) + 1
    assert ("MFU" in text) == (device == "cuda")
    assert "memory, as it comes" in text
    for row in found:
        assert row["best"] in ARMS["cpu"]
        low, high = row["wall_ratio_quartiles"]
        assert low <= high
        assert f"{row['wall_ratio']:.2f} ({low:.2f}–{high:.2f})" in text


def test_a_file_keeps_what_it_says():
    row = {"steps": {arm: STEPS[arm] for arm in ("align", "trl", "trl as it comes")}, "wall_ratio": 7.0}
    found = completed(row)
    assert (found["best"], found["wall_ratio"], found["wall_ratio_quartiles"]) == ("trl", 7.0, [4.0, 4.2])
    assert "over_limit_quartiles" not in found


def test_quick_rows():
    quick = {name: row for name, row in CPU_ROWS.items() if row.quick}
    ratios = [ratio_of(row) for row in quick.values()]
    assert "HH" in quick
    assert (min(ratios), max(ratios)) == (0.25, 16)
    assert all(row.model == "small Llama" for row in quick.values())


def test_json_is_one_object_of_what_is_asked_for(monkeypatch, capsys):
    made = dict.fromkeys(vs_trl.PRINTED, 1.0) | {"name": "HH", "seconds": {}, "best": "trl"}

    def fake(*args, **kwargs):
        print("{'loss': 0.6931}")  # as trainers do
        return dict(made)

    monkeypatch.setattr(vs_trl, "measure", fake)
    monkeypatch.setattr("sys.argv", ["vs_trl.py", "--quick", "--json", "--device", "cpu", "--row", "HH"])
    vs_trl.main()
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    asked = {"prompt_completion_ratio", "wall_ratio", "wall_ratio_default", "memory_ratio", "tokens_ratio"}
    assert row.keys() >= {"name", "max_logp_rel_diff", *asked}


TINY = Row(model="small Llama", prompt=4, completion=4, pairs=2)


def test_align_in_both_precisions(tmp_path):
    assert trainer_of("align", TINY, 1, "cpu", str(tmp_path / "a")).args.bf16 is False
    assert trainer_of("align bf16", TINY, 1, "cpu", str(tmp_path / "b")).args.bf16 is True


@pytest.mark.parametrize(("arm", "bf16", "ahead"), [("trl", False, True), ("trl bf16", True, True)])
def test_tuned_arms(tmp_path, arm, bf16, ahead):
    """No second model is kept beside the policy, whose memory would count against them."""
    trainer = trainer_of(arm, TINY, 1, "cpu", str(tmp_path))
    assert trainer.ref_model is None
    assert trainer.args.bf16 is bf16
    assert trainer.args.precompute_ref_log_probs is ahead
    assert trainer.args.gradient_checkpointing is False


def test_the_page_says_which_figures_are_older():
    text = PAGE.read_text(encoding="utf-8")
    assert "no fast bfloat16" not in text
    assert "avx512_bf16" in text
