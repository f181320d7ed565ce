"""Broken inputs, and the message that each gets.

``python scripts/studies/broken_inputs.py --write`` makes each file in a folder of its own, runs the command that is
named beside it, and writes what it said into ``docs/results/broken_inputs.md``. Commands run in this process; a tiny
tokenizer with a ChatML template is made on the spot where a case needs one.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from align.cli.main import main as align

PAGE = Path("docs/results/broken_inputs.md")
HEAD = """# Broken inputs, and what is said of each

Made by `python scripts/studies/broken_inputs.py --write`; a test runs it again and compares. Row faults are errors
(exit code 2) when training; `align data check` counts them (exit code 1), and with `on_bad_row: skip` they are left out
and written beside the run.
"""
USER, YES, NO = (
    {"role": "user", "content": "Is the sky blue?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "assistant", "content": "No."},
)
GOOD = {"prompt": "Is the sky blue?", "chosen": " Yes.", "rejected": " No."}
TURNS = {"prompt": [USER], "chosen": [YES], "rejected": [NO]}


def lines(*rows: Any) -> bytes:
    """Return a good row, and others behind it, as JSON lines; bytes stand as they are."""
    parts = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in (GOOD, *rows)]
    return b"\n".join(parts) + b"\n"


Case = tuple[str, str, bytes, list[str]]
CASES: list[Case] = [
    ("a column is missing", "a.jsonl", lines({"prompt": "Hi", "chosen": "a", "reject": "b"}), []),
    ("an empty completion", "a.jsonl", lines({**GOOD, "chosen": " \n"}), []),
    ("chosen equal to rejected", "a.jsonl", lines({**GOOD, "rejected": " Yes."}), []),
    ("two prompts", "a.jsonl", lines({"chosen": [USER, YES], "rejected": [{**USER, "content": "Hi"}, NO]}), []),
    ("bytes that are no UTF-8", "a.jsonl", lines(b'{"prompt": "caf\xe9"}'), []),
    ("broken JSON", "a.jsonl", lines(b'{"prompt": "Hi", "chosen": '), []),
    ("a JSON list named .jsonl", "a.jsonl", lines(b"[" + json.dumps(GOOD).encode() + b","), []),
    ("turns in the wrong order", "a.jsonl", lines({**TURNS, "prompt": [USER, YES]}), []),
    ("an unknown role", "a.jsonl", lines({**TURNS, "prompt": [{"role": "human", "content": "Hi"}]}), []),
    ("ShareGPT's form", "a.jsonl", lines({**TURNS, "prompt": [{"from": "human", "value": "Hi"}]}), []),
    ("a weight of 0", "a.jsonl", lines({**GOOD, "weight": 0}), []),
    ("a CSV cell too many", "a.csv", b"prompt,chosen,rejected\nHi,a,b\nHi,a, b,c\n", []),
    ("pictures", "a.jsonl", lines({**GOOD, "images": ["sky.png"]}), []),
    (
        "nothing left after truncation",
        "a.jsonl",
        lines({**GOOD, "prompt": "Is the sky blue? " * 20}),
        ["--model", "tiny", "--max-length", "32"],
    ),
    (
        "tools that the chat template does not write",
        "a.jsonl",
        lines({**TURNS, "tools": [{"name": "look_up"}]}),
        ["--model", "tiny"],
    ),
    ("a gzip file that ends early", "a.jsonl.gz", gzip.compress(lines(GOOD), mtime=0)[:-12], []),
    ("JSON that is one broken value", "a.json", b'[{"prompt": "Hi"}, {"prompt": ', []),
    ("UTF-16", "a.csv", "prompt,chosen,rejected\nHi,a,b\n".encode("utf-16"), []),
    ("no such file", "b.jsonl", b"", []),
]
"""What is wrong, the file's name, its content, and further words of the command."""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


def page() -> str:
    """Return the page."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_tokenizer(Path("tiny"))
        parts = [HEAD]
        for title, name, content, words in CASES:
            Path("a.jsonl").write_bytes(b"") if name == "b.jsonl" else Path(name).write_bytes(content)
            code, said = spoken(["data", "check", name, *words])
            command = " ".join(["align data check", name, *words])
            parts.append(f"## {title[0].upper() + title[1:]}\n\n`{command}` (exit code {code})\n")
            parts.append(f"```text\n{said.replace(os.path.realpath(folder), '.')}\n```\n")
            for left in Path().glob("a.*"):
                left.unlink()
    return "\n".join(parts)


def spoken(words: list[str]) -> tuple[int, str]:
    """Return a command's exit code and what it printed: its error, or the line that explains the first fault."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = align(words)
    first = [line.split("first:", 1)[1].strip() for line in out.getvalue().splitlines() if "first:" in line]
    refused = [line for line in error.getvalue().splitlines() if line.startswith("error:")]
    return code, "\n".join(refused or first)


def make_tokenizer(folder: Path) -> None:
    """Save a byte-level tokenizer with a ChatML template that knows no tools, and a config beside it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(folder)


if __name__ == "__main__":
    main()
