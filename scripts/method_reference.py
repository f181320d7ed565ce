"""Writes docs/methods.md from the code: ``python scripts/method_reference.py > docs/methods.md``."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from align.wings.claims import read_result
from align.wings.method import WINGS, Method
from align.wings.registry import load, modules

RESULTS = Path(__file__).parents[1] / "docs" / "results"
HEAD = """# Methods of the wings

Made from the code and the committed results by `python scripts/method_reference.py > docs/methods.md`; a test holds it
fresh. `align train recipes/<wing>/<name>.yaml` runs a method; `align claims run <name>` compares it with its baselines.
[wings.md](wings.md) says how both work, and what adding a method takes.

Effects are means over seeds of differences paired by seed (or of the figure itself); intervals are 95 %, by Student's t
over seeds.
A claim *holds* where every relation it asserts lies with its whole interval beyond the level; it *does not hold* where
one lies on the wrong side.
"""


def page() -> Iterator[str]:
    """Return the lines of the page."""
    yield HEAD
    methods = [load(name) for name in modules()]
    yield from verdicts(methods)
    for wing in WINGS:
        yield f"## {wing.capitalize()}\n"
        for cls in methods:
            if cls.about.wing == wing:
                yield from section(cls)


def verdicts(methods: list[type[Method]]) -> Iterator[str]:
    """Return the table of what came out."""
    yield "| method | paper | verdict | first relation | effect |\n| --- | --- | --- | --- | --- |"
    for cls in methods:
        found = read_result(cls.about.name, RESULTS)
        if found is None:
            yield f"| [{cls.about.name}](#{cls.about.name}) | {cls.about.title} | not run | | |"
            continue
        low, high = found["interval"]
        effect = f"{found['effect']:+.3g} [{low:+.3g}, {high:+.3g}]"
        first = found["relations"][0]["text"]
        yield f"| [{cls.about.name}](#{cls.about.name}) | {cls.about.title} | {found['verdict']} | {first} | {effect} |"
    yield ""


def outcome(cls: type[Method]) -> Iterator[str]:
    """Return what is claimed of a method, and what came out."""
    name = cls.about.name
    found = read_result(name, RESULTS)
    if found is None:
        return
    yield f"**Claim.** {found['says']} **Verdict: {found['verdict']}**{_because(found)}.\n"
    yield "| relation | effect | |\n| --- | --- | --- |"
    for one in found["relations"]:
        aside = "" if one["asserted"] else ", reported only"
        yield f"| {one['text']} | {one['value']:+.3g} [{one['low']:+.3g}, {one['high']:+.3g}] | {one['word']}{aside} |"
    yield f"\n![{name}: arms beside each other, a dot a seed](results/{name}.png)\n"
    for text in found.get("tried", ()):
        yield f"Before: {' '.join(text.split())}\n"
    cost = f"{len(found['seeds'])} seeds, {found['cpu_seconds'] / 60:.1f} minutes of CPU"
    yield f"{cost}: `{found['command']}`, [results/{name}.json](results/{name}.json).\n"


def _because(found: Mapping[str, Any]) -> str:
    return f" ({found['reason']})" if found["reason"] else ""


def section(cls: type[Method]) -> Iterator[str]:
    """Return what is said of one method."""
    about = cls.about
    yield f"### {about.name}\n"
    paper = f"[arXiv:{about.arxiv}](https://arxiv.org/abs/{about.arxiv})"
    yield f"**{about.title}**, {about.venue}, {paper}. {about.summary}\n"
    yield f"```\n{about.equation}\n```\n"
    source = f"align/{about.wing}/{about.room}/{about.name}.py"
    recipe = f"recipes/{about.wing}/{about.name}.yaml"
    yield f"Code: [{source}](../{source}); recipe: [{recipe}](../{recipe}).\n"
    if about.departures:
        yield "Differs from the paper:\n"
        yield from (f"- {departure}" for departure in about.departures)
        yield ""
    yield from outcome(cls)
    yield "| setting | default | |\n| --- | --- | --- |"
    docs = setting_docs(cls)
    for field in fields(cls.Settings):
        yield f"| `{field.name}` | `{_default(field)}` | {docs.get(field.name, '')} |"
    yield ""


def setting_docs(cls: type[Method]) -> dict[str, str]:
    """Return the text after each setting in the source of a method's settings."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(cls.Settings)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for this, following in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(this, ast.AnnAssign)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[this.target.id] = " ".join(str(following.value.value).split())  # type: ignore[union-attr]
    return found


def _default(field: Any) -> Any:
    from dataclasses import MISSING

    if field.default is not MISSING:
        return field.default
    return "" if field.default_factory is MISSING else field.default_factory()


if __name__ == "__main__":
    print("\n".join(page()).rstrip())
