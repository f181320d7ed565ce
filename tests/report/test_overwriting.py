import pytest

from align.report.overwriting import refuse_to_overwrite


def test_only_what_the_tool_made_is_written_over(tmp_path):
    mine, others = tmp_path / "mine.svg", tmp_path / "others.svg"
    refuse_to_overwrite(mine, "align report")
    mine.write_text("<svg><!-- align report --></svg>")
    refuse_to_overwrite(mine, "align report")
    others.write_text("<svg></svg>")
    with pytest.raises(ValueError, match=r"others\.svg exists and was not made by align report"):
        refuse_to_overwrite(others, "align report")
    with pytest.raises(ValueError, match="is a folder"):
        refuse_to_overwrite(tmp_path, "align report")
