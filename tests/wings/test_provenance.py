import ast

import pytest

from align.wings import provenance
from align.wings.provenance import code_digest
from align.wings.registry import modules

TOLD = (
    "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='a')],kwonlyargs=[arg(arg='b',annotat"
    "ion=Name(id='int',ctx=Load()))],kw_defaults=[Constant(value=1)]),body=[Return(value=JoinedStr(values"
    "=[FormattedValue(value=Name(id='a',ctx=Load()),conversion=114,format_spec=JoinedStr(values=[Constant"
    "(value='>'),FormattedValue(value=Name(id='b',ctx=Load()),conversion=-1)])),Constant(value=' c'),Form"
    "attedValue(value=Name(id='b',ctx=Load()),conversion=-1)]))],returns=Name(id='str',ctx=Load()))])"
)
OTHERS = ("align.wings.drawing", "align.wings.verdict", "align.wings.recipe", "align.contrastive.multimodal.clip")


def forget():
    for function in (code_digest, provenance._bare):
        function.cache_clear()


@pytest.fixture
def rewritten(monkeypatch):
    """Return a function that gives modules another text, and asks for the digest."""

    def change(module, edit):
        def edited(name):
            text = provenance._file(name).read_text()
            return ast.parse(edit(text) if name == module else text)

        forget()
        with monkeypatch.context() as patched:
            patched.setattr(provenance, "_tree", edited)
            found = code_digest("sla", "mnist")
        forget()
        return found

    return change


@pytest.mark.parametrize(
    "module",
    [
        *("learning.supervision.sla", "wings.parts.labels", "wings.data.mnist", "wings.trainer"),
        *("trainers.base", "data.order", "recipe.trainer_arguments", "wings.run"),
    ],
)
def test_what_a_module_does_counts(rewritten, module):
    now = code_digest("sla", "mnist")
    assert rewritten(f"align.{module}", lambda text: text) == now
    assert rewritten(f"align.{module}", lambda text: text + "\nx = 1\n") != now


def test_what_is_said_of_it_does_not(rewritten):
    now = code_digest("sla", "mnist")
    assert rewritten("align.learning.supervision.sla", lambda text: text + "\n# a comment\n'a text'\n") == now
    assert rewritten("align.wings.parts.labels", lambda text: text.replace("how many.", "their number.")) == now


def test_what_only_draws_or_judges_and_other_methods_do_not(rewritten):
    now = code_digest("sla", "mnist")
    for other in OTHERS:
        assert rewritten(other, lambda text: text + "\nx = 1\n") == now


def test_every_method_and_source_has_its_own():
    found = {name: code_digest(name, "mnist") for name in modules()}
    assert len(set(found.values())) == len(found)
    assert code_digest("sla", "digits") != code_digest("sla", "mnist")


def test_a_tree_is_told_alike_under_every_python():
    """Written down under 3.11: later ones have fields more, and print strings with braces otherwise."""
    text = "def f(a, *, b: int = 1) -> str:\n    return f'{a!r:>{b}} c{b}'\n"
    assert provenance._told(ast.parse(text)) == TOLD
