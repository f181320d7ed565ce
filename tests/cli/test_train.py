"""``align train`` and ``align plot`` on a small model."""

from align.cli.main import main
from align.cli.train import figures


def test_train_then_plot(tmp_path, model_dir, pairs_file, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, eval_fraction: 0.3}}\nobjective: dpo\n"
        "trainer: {max_steps: 2, logging_steps: 1, use_cpu: true, disable_tqdm: true}\n"
    )
    run = tmp_path / "run"
    assert main(["train", str(path), f"output.dir={run}"]) == 0
    out = capsys.readouterr().out
    assert "step     1 | loss 0.6931" in out
    assert "held-out accuracy:" in out
    assert f"everything is in {run}" in out
    assert main(["plot", str(run), "--out", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "curves.png").is_file()
    assert main(["plot", str(tmp_path / "nowhere")]) == 2


def test_figures_show_intervals():
    summary = {"generation": {"win_rate": {"value": 0.75, "low": 0.6, "high": 0.9}}, "held_out": {}}
    assert figures(summary) == [f"{'win rate:':36} 0.750  [0.600, 0.900]"]
    held_out = {"eval_auc": 0.8, "eval_auc_low": 0.7, "eval_auc_high": 0.9}
    assert figures({"held_out": held_out}) == [f"{'held-out AUC:':36} 0.800  [0.700, 0.900]"]
