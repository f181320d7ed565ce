"""What is wrong with the arguments is said before anything is read."""

import pytest

from align.cli.main import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "prompt"], "--columns prompt: write OURS=THEIRS"),
        (["--columns", "promt=question"], "columns has no 'promt'"),
        (["--max-length", "1"], "max_length must be at least 2"),
        ([], "no file or folder"),
    ],
)
def test_mistakes(words, said, capsys):
    assert main(["data", "check", "nowhere.jsonl", *words]) == 2
    assert said in capsys.readouterr().err


def test_columns_are_mapped(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "Hi", "chosen": "a", "rejected": "b"}\n')
    assert main(["data", "check", str(file)]) == 1
    assert main(["data", "check", str(file), "--columns", "prompt=q"]) == 0
