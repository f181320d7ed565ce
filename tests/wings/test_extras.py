import pytest

from align.wings.extras import needed


def test_what_is_there_is_imported():
    assert needed("math").pi > 3


def test_what_is_missing_is_named_with_the_line_that_installs_it():
    with pytest.raises(ValueError, match=r"needs the package 'no_such_package': pip install 'align\[wings\]'"):
        needed("no_such_package.part")
    with pytest.raises(ValueError, match=r"align\[medical\]"):
        needed("no_such_package", extra="medical")


def test_a_package_that_lacks_one_of_its_own_needs_is_not_blamed(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import something_else_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_else_missing"):
        needed("broken_package")
