"""Writes docs/recipes.md from the recipe's schema: ``python scripts/recipe_reference.py > docs/recipes.md``."""

import ast
import re
from pathlib import Path

import align.recipe.d2o as d2o
import align.recipe.disentangle as disentangle
import align.recipe.schema as schema
import align.recipe.speed as speed
import align.recipe.spo as spo
import align.recipe.sync as sync
from align.recipe.trainer_fields import DEFAULTS, OWNED

SECTIONS = (
    ("model", "ModelSettings"),
    ("model.lora", "LoraSettings"),
    ("model.reference_sync", "ReferenceSyncSettings"),
    ("data", "DataSettings"),
    ("data.train and data.eval, each source", "SourceSettings"),
    ("data.train.synth", "SynthSettings"),
    ("evaluation", "EvaluationSettings"),
    ("evaluation.generation", "GenerationSettings"),
    ("diagnostics", "DiagnosticsSettings"),
    ("diagnostics.entanglement", "EntanglementSettings"),
    ("disentangle: {name: normalise}", "Normalise"),
    ("disentangle: {name: calibrate}", "Calibrate"),
    ("disentangle: {name: sparse}", "Sparse"),
    ("spo", "SpoSettings"),
    ("spo.versions", "DegreeSettings"),
    ("spo.head", "DegreeHeadSettings"),
    ("d2o", "D2oSettings"),
    ("d2o.online", "OnlineSettings"),
    ("speed", "SpeedSettings"),
    ("output", "OutputSettings"),
)

HEAD = """# Recipes: every section and setting

Made from the schema by `python scripts/recipe_reference.py > docs/recipes.md`; a test holds it fresh.

A recipe is one YAML file with the sections `model`, `data`, `objective`, `trainer`, `evaluation`, `diagnostics`,
`disentangle`, `spo`, `d2o`, `speed` and `output`; `disentangle` is the name of a method, or a mapping with `name` and
its settings. A setting without a default must be given. Unknown keys, wrong types and missing values are errors (exit
code 2) with file, line and dotted path. `section.key=value` on the command line replaces a setting; the value is YAML
(`model.lora=null`, `data.train.0.weight=0.5`). Relative paths start at the folder the command is run in.
"""

OBJECTIVE = """## objective

`{name: dpo, beta: 0.1}`: a registered objective and its settings, or its bare name. `{file: my_loss.py, name:
my_loss}` and the function's own keyword arguments: a loss from a Python file; see the README.
[objectives.md](objectives.md) lists the registered ones with their settings, and so does `align objectives ls`.

`{formula: "M(l) -> M(w)", condition: "M(w) | M(l)", additive: "false", link: logistic, beta: 1.0, margin: 0.0,
length_normalised: false}`: the loss that makes a formula true; all but `formula` may be left out. [logic.md](logic.md)
says what formulas mean, and `align logic compile` prints this section for any loss.

A list is a weighted sum: `[{name: dpo, beta: 0.1}, {name: sft, weight: 0.2}]`, each with a `weight`, 1 where not
given. `label_smoothing` goes with any objective: where it is no setting of its own, it is the share of pairs whose
sides are taken to be exchanged (at least 0, below 0.5).
"""


def main() -> None:
    """Print the page."""
    modules = (schema, sync, disentangle, spo, d2o, speed)
    bodies = [ast.parse(Path(str(module.__file__)).read_text()).body for module in modules]
    classes = {node.name: node for body in bodies for node in body if isinstance(node, ast.ClassDef)}
    print(HEAD)
    for title, name in SECTIONS:
        print(
            f"## {title}\n\n{ast.get_docstring(classes[name])}\n\n| setting | default | meaning |\n| --- | --- | --- |"
        )
        for field, meaning in zip(classes[name].body, classes[name].body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(meaning, ast.Expr):
                print(row(field, meaning))
        print()
    print(OBJECTIVE)
    print(trainer_section(), end="")


def row(field: ast.AnnAssign, meaning: ast.Expr) -> str:
    """Return a setting as a row of the table."""
    default = "required" if field.value is None else ast.unparse(field.value)
    for source, shown in (
        ("field(default_factory=list)", "[]"),
        ("field(default_factory=lambda: MappingProxyType({}))", "{}"),
        ("None", "null"),
        ("True", "true"),
        ("False", "false"),
    ):
        default = shown if default == source else default
    default = re.sub(r"field\(default_factory=\w+Settings\)", "{}", default)
    text = " ".join(ast.literal_eval(meaning.value).split()).replace("``", "`").replace("|", "\\|")
    return f"| `{ast.unparse(field.target)}` | `{default}` | {text} |"


def trainer_section() -> str:
    """Return what is special about ``trainer``."""
    defaults = "\n".join(f"| `{name}` | `{value}` |" for name, value in DEFAULTS.items())
    owned = "\n".join(f"| `{name}` | {reason.replace('|', chr(92) + '|')} |" for name, reason in OWNED.items())
    return (
        "## trainer\n\nEvery field of `transformers.TrainingArguments`, by its own name. "
        "Defaults that differ from its:\n\n"
        f"| setting | default |\n| --- | --- |\n{defaults}\n\n"
        f"Refused, because something else decides them:\n\n| setting | reason |\n| --- | --- |\n{owned}\n"
    )


if __name__ == "__main__":
    main()
