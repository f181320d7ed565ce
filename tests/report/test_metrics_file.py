import json
import math

import pytest

from align.report.metrics_file import read_metrics


@pytest.fixture
def write(tmp_path):
    def into(text):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "metrics.jsonl").write_bytes(content)
        return tmp_path

    return into


def test_reads_lines_in_order(write):
    rows = [
        {"step": 1, "epoch": 0.1, "loss": 0.7},
        {"step": 1, "epoch": 0.1, "eval_loss": 0.69},
        {"step": 2, "loss": 0.6},
    ]
    assert read_metrics(write("".join(json.dumps(row) + "\n" for row in rows))) == rows


def test_a_folder_may_be_given_as_text(write):
    assert read_metrics(str(write('{"step": 1}\n'))) == [{"step": 1}]


def test_a_last_line_without_its_newline_counts(write):
    assert len(read_metrics(write('{"step": 1}\n{"step": 2}'))) == 2


@pytest.mark.parametrize("torn", [b'{"step": 2, "loss": 0.', b"{", b'{"step": 2, "name": "\xc3', b'{"step": 2'])
def test_a_torn_last_line_is_passed_over(write, torn):
    assert read_metrics(write(b'{"step": 1}\n' + torn)) == [{"step": 1}]


def test_a_broken_line_before_the_last_is_an_error_with_its_number(write):
    with pytest.raises(ValueError, match=r"line 2 of .* is no JSON"):
        read_metrics(write('{"step": 1}\n{"step": \n{"step": 3}\n'))


def test_a_whole_broken_last_line_is_an_error(write):
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(write('{"step": 1}\n{"step": 2, "lo\n'))


@pytest.mark.parametrize("line", ["[1, 2]", '{"loss": 0.5}', '{"step": "7"}', '{"step": true}', '{"step": NaN}', "3"])
def test_a_line_is_an_object_with_a_step(write, line):
    with pytest.raises(ValueError, match=r"line 1 of .* no object with a step"):
        read_metrics(write(line + "\n"))


def test_blank_lines_are_no_lines_but_keep_the_count(write):
    assert read_metrics(write('{"step": 1}\n\n{"step": 2}\n')) == [{"step": 1}, {"step": 2}]
    with pytest.raises(ValueError, match="line 3"):
        read_metrics(write('{"step": 1}\n\nbroken\n'))


def test_a_loss_that_blew_up_is_kept(write):
    assert math.isnan(read_metrics(write('{"step": 1, "loss": NaN}\n'))[0]["loss"])


@pytest.mark.parametrize("content", ["", "\n\n", '{"step": 1, "lo'])
def test_nothing_logged_is_an_error(write, content):
    with pytest.raises(ValueError, match="logged nothing yet"):
        read_metrics(write(content))


def test_a_missing_folder_or_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no run folder"):
        read_metrics(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no metrics\.jsonl"):
        read_metrics(tmp_path)
