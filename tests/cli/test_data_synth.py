"""``align data synth`` with a model, prompts and a scorer of one's own."""

import json

from align.cli.main import main


def test_synth_writes_pairs_that_train(model_dir, tmp_path, capsys):
    (tmp_path / "score.py").write_text("def vowels(p, completions):\n    return [c.count('a') for c in completions]\n")
    (tmp_path / "prompts.txt").write_text("".join(f"the day {i}\n" for i in range(6)))
    out = tmp_path / "pairs.jsonl"
    words = ["data", "synth", "--model", str(model_dir), "--prompts", str(tmp_path / "prompts.txt"), "--split", "all"]
    words += ["--scorer", f"{tmp_path / 'score.py'}:vowels", "--samples", "3", "--max-new-tokens", "5"]
    assert main([*words, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows
    assert f"{len(rows)} pairs from 6 prompts and 18 completions" in capsys.readouterr().out
    assert all(row["chosen_score"] > row["rejected_score"] for row in rows)

    assert main([*words, "--out", str(out)]) == 0  # the same again changes nothing
    out.write_text("mine\n")
    assert main([*words, "--out", str(out)]) == 2
    assert "exists with other content" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
