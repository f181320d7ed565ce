import json

import pytest

from align.cli.main import main


def degrade(pairs_file, model_dir, *words):
    return main(["data", "degrade", str(pairs_file), "--model", str(model_dir), "--extractor", "tfidf", *words])


def test_versions_are_printed_with_what_is_removed_marked(pairs_file, model_dir, capsys):
    assert degrade(pairs_file, model_dir, "--rows", "1", "--degrees", "3") == 0
    out = capsys.readouterr().out
    assert "chosen 0 │ lacks 0 % of the key content" in out
    assert "rejected 2 │ lacks 100 % of the key content" in out
    whole, half, least = (line for line in out.splitlines() if "│   " in line and "warm" in line)
    assert "⟦" not in whole
    assert 0 < half.count("⟦") <= least.count("⟦")


def test_json_says_what_training_sees(pairs_file, model_dir, tokenizer, capsys):
    from align.data.degrade import degraded
    from align.data.prepare import prepare_pairs
    from align.recipe.schema import SourceSettings
    from align.recipe.spo import DegreeSettings

    assert degrade(pairs_file, model_dir, "--json", "--rows", "24", "--degrees", "3") == 0
    shown = json.loads(capsys.readouterr().out)
    prepared = prepare_pairs([SourceSettings(path=str(pairs_file))], tokenizer).dataset
    trained = degraded(prepared, tokenizer, DegreeSettings(extractor="tfidf", degrees=3)).dataset
    for row, seen in zip(shown, trained, strict=True):
        for side in ("chosen", "rejected"):
            assert [version["tokens"] for version in row[side][1:]] == list(map(len, seen[f"{side}_versions"]))


def test_single_completions_as_unpaired_training_sees_them(pairs_file, model_dir, tokenizer, tmp_path, capsys):
    """A file of them, or pairs taken apart; words are weighed against those of all completions."""
    from align.data.degrade import degraded
    from align.data.prepare import prepare_unpaired
    from align.recipe.schema import SourceSettings
    from align.recipe.spo import DegreeSettings

    lines = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    file = tmp_path / "single.jsonl"
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in lines
        for side in ("chosen", "rejected")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for given, words in ((file, []), (pairs_file, ["--unpaired"])):
        assert degrade(given, model_dir, "--json", "--rows", "48", "--degrees", "3", *words) == 0
        shown = json.loads(capsys.readouterr().out)
        prepared = prepare_unpaired([SourceSettings(path=str(given))], tokenizer).dataset
        settings = DegreeSettings(extractor="tfidf", degrees=3)
        trained = degraded(prepared, tokenizer, settings, parts=["completion"]).dataset
        for row, seen in zip(shown, trained, strict=True):
            made = row["desirable" if seen["desirable"] else "undesirable"][1:]
            assert [version["tokens"] for version in made] == list(map(len, seen["completion_versions"]))
    assert degrade(file, model_dir, "--rows", "48", "--sides", "rejected") == 0
    out = capsys.readouterr().out
    assert "undesirable 0 │" in out
    assert "  desirable 0 │" not in out


def test_surprisal_loads_the_model(pairs_file, model_dir, capsys):
    assert degrade(pairs_file, model_dir, "--extractor", "surprisal", "--rows", "1", "--sides", "chosen") == 0
    assert "rejected" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--extractor", "rack"], "no extractor 'rack'"),
        (["--degrees", "1"], "degrees must be at least 2"),
        (["--shares", "0", "1"], "one number for each of 4 degrees"),
        (["--start", "99"], "there is no usable row 99; it has 24"),
        (["--rows", "0"], "--rows and --start must be at least 1"),
        (["--mask-token", "the"], "removal is 'delete'"),
    ],
)
def test_mistakes(pairs_file, model_dir, capsys, words, message):
    assert degrade(pairs_file, model_dir, *words) == 2
    assert message in capsys.readouterr().err


def test_rows_that_are_left_out_are_counted(pairs_file, model_dir, capsys):
    pairs_file.write_text(pairs_file.read_text() + '{"prompt": "a", "chosen": "b"}\n')
    assert degrade(pairs_file, model_dir, "--rows", "1") == 0
    assert "rows that cannot be used: 1; see align data check" in capsys.readouterr().err
