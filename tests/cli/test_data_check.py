"""``align data check``: figures, places, JSON, exit codes; no model is loaded."""

import json
import subprocess
import sys

from align.cli.main import main

ROWS = [
    {"prompt": "Hi", "chosen": "a", "rejected": "b"},
    {"prompt": "Hi", "chosen": "a", "rejected": "a"},
    {"prompt": "Hi " * 99, "chosen": "a", "rejected": "b"},
]


def written(tmp_path, rows):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_figures_and_exit_codes(tmp_path, model_dir, capsys):
    file = written(tmp_path, ROWS)
    assert main(["data", "check", file]) == 1
    out = capsys.readouterr().out
    assert out.startswith("pairs.jsonl: 3 rows, 2 can be used, 1 cannot\n  same: 1 (chosen and rejected are equal)\n")
    assert "places: pairs.jsonl:2\n" in out
    assert main(["data", "check", file, "--model", str(model_dir), "--max-length", "40", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["usable"], sorted(report["faults"])) == (3, 1, ["nothing_left", "same"])
    assert main(["data", "check", written(tmp_path, ROWS[:1])]) == 0


def test_nothing_heavy_is_loaded_without_a_model(tmp_path):
    file = written(tmp_path, ROWS)
    code = (
        "import sys; from align.cli.main import main; main(['data', 'check', sys.argv[1]]); "
        "print([m for m in ('peft', 'accelerate', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_single_completions_are_not_called_pairs(tmp_path, model_dir, capsys):
    rows = [{"prompt": "Hi", "completion": "a", "label": True}, {"prompt": "Hi", "completion": "b " * 99, "label": 0}]
    assert main(["data", "check", written(tmp_path, rows), "--model", str(model_dir), "--max-length", "40"]) == 0
    assert "1 completions (50.0 %) would be cut" in capsys.readouterr().out
