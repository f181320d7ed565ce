"""Pages that are made by a script are fresh, and what pages link to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_recipe_reference_is_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/recipe_reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs" / "recipes.md").read_text(), (
        "run: python scripts/recipe_reference.py > docs/recipes.md"
    )


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_page_of_what_objectives_mean_is_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/logic_reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs" / "logic-zoo.md").read_text(), (
        "run: python scripts/logic_reference.py > docs/logic-zoo.md"
    )


def test_the_page_of_objectives_is_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/objective_reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs" / "objectives.md").read_text(), (
        "run: python scripts/objective_reference.py > docs/objectives.md"
    )
