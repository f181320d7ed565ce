"""A recipe of another project, as one of ours: every key of it is in the recipe, decided about, or left out aloud."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.objectives.registry import did_you_mean
from align.recipe.errors import Origin, RecipeError
from align.recipe.foreign.answers import Answer, truth
from align.recipe.foreign.asked import Asked, set_objective
from align.recipe.foreign.axolotl_parts import axolotl_parts
from align.recipe.foreign.dialects import DIALECTS, OTHER_METHODS, Dialect, detect
from align.recipe.foreign.draft import Decision, Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.methods import METHODS, method_of, sync_reference
from align.recipe.foreign.mixtures import handbook_sources
from align.recipe.foreign.parts import evaluates, trl_adapters, trl_sources
from align.recipe.load import build_recipe
from align.recipe.tree import RecipeTree, read_file, spelled_out
from align.recipe.yaml_tree import Node, plain, read_yaml

PLACEHOLDERS = {"model.path": "CHOOSE-A-MODEL", "data.train": [{"path": "CHOOSE-A-FILE.jsonl"}]}
"""What stands where a file names no model or no data."""
SECRET = {"token", "key", "password", "secret"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtOver:
    """A recipe of another project in our words.

    Attributes:
        dialect: the project.
        text: our recipe, YAML with comments; it loads.
        decisions: what is trained differently unless its reader decides; each is a comment of the recipe too.
        left: how many of their keys were left out without changing what is trained.
        unsaid: whether nothing in the file said which trainer it is for.
    """

    dialect: Dialect
    text: str
    decisions: list[Decision]
    left: int
    unsaid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How a file is read.

    Attributes:
        dialect: the project.
        method: a name of :data:`~align.recipe.foreign.methods.METHODS`; empty where the project's own key names it.
        sign: what says so; empty for nothing.
    """

    dialect: Dialect
    method: str
    sign: str

    @property
    def unsaid(self) -> bool:
        """Whether nothing says which trainer the file is for."""
        return bool(self.method) and not self.sign

    @property
    def defaults(self) -> dict[str, tuple[Any, str]]:
        """Our settings that the file's silence stands for, and whose default each is."""
        found = {key: (value, self.dialect.defaults_of) for key, value in self.dialect.defaults.items()}
        if self.method:
            method = METHODS[self.method]
            found |= {key: (value, method.defaults_of) for key, value in method.defaults}
        return found


def bring_over(path: str | Path, dialect_name: str | None = None, method: str | None = None) -> BroughtOver:
    """Convert a recipe file of another project.

    Args:
        path: the file.
        dialect_name: a name of :data:`~align.recipe.foreign.dialects.DIALECTS`; found out where None.
        method: which of TRL's trainers it is for, a name of :data:`~align.recipe.foreign.methods.METHODS`; found out by
            its keys where None, and DPO where none of them says.

    Raises:
        RecipeError: if it cannot be read, is of no known project, or its loss has no counterpart.
    """
    root = read_file(path)
    dialect = DIALECTS[dialect_name] if dialect_name is not None else _detected(root)
    given, draft = Given(root), Draft()
    reading = _reading(given, dialect, method)
    _refuse_other_methods(given, dialect)
    _parts(given, draft, reading)
    for key in given.rest():
        _single(given, draft, dialect, key)
    _fill(draft, reading)
    head = _head(path, reading)
    _account(given, draft, draft.render(head))
    _check(given, draft, head)
    return BroughtOver(
        dialect=dialect,
        text=draft.render(head),
        decisions=draft.decisions,
        left=len(draft.left),
        unsaid=reading.unsaid,
    )


def _reading(given: Given, dialect: Dialect, method: str | None) -> _Reading:
    if dialect.has_trainer_fields:
        name, sign = method_of(given) if method is None else (method, f"--method {method}")
        return _Reading(dialect=dialect, method=name, sign=sign)
    if method is not None:
        raise RecipeError(f"{dialect.title}'s key 'rl' names the method; leave --method out", origin=Origin(given.file))
    return _Reading(dialect=dialect, method="", sign="")


def _detected(root: Node) -> Dialect:
    dialect = detect(root)
    if dialect is None:
        names = ", ".join(DIALECTS)
        raise RecipeError(f"no recipe of a project that is known; say which with --from ({names})", origin=root.origin)
    return dialect


def _head(path: str | Path, reading: _Reading) -> list[str]:
    said = []
    if reading.unsaid:
        said = ["Nothing in it says which trainer it is for; it was read as a recipe for DPO."]
    elif reading.method not in ("", "dpo"):
        said = [f"Read as a recipe for {METHODS[reading.method].title}, by {reading.sign}."]
    return [
        f"Brought over from {Path(path).name}, a recipe of {reading.dialect.title}, by: align recipes convert",
        "A comment behind a value is the key it had there, or says that it was a default there.",
        *said,
    ]


def _refuse_other_methods(given: Given, dialect: Dialect) -> None:
    for key in given.nodes:
        if key in OTHER_METHODS and dialect.has_trainer_fields:
            raise given.refuse(
                key, f"belongs to {OTHER_METHODS[key]}, which has no counterpart here: align trains on preferences"
            )


def _parts(given: Given, draft: Draft, reading: _Reading) -> None:
    if not reading.method:
        axolotl_parts(given, draft)
        return
    _model_settings(given, draft)
    by_default = "TRL's default" if reading.method == "dpo" else reading.sign
    set_objective(draft, METHODS[reading.method].parts(Asked(given, draft, loss=by_default)))
    if reading.method in ("dpo", "kto"):
        sync_reference(given, draft)
    trl_adapters(given, draft)
    (handbook_sources if reading.dialect.name == "alignment-handbook" else trl_sources)(given, draft)
    _evaluation(given, draft)


def _model_settings(given: Given, draft: Draft) -> None:
    names = {"revision": "model.revision", "dtype": "model.dtype", "torch_dtype": "model.dtype"}
    names |= {name: f"model.{name}" for name in ("attn_implementation", "trust_remote_code")}
    for name, value in (given.take("model_init_kwargs") or {}).items():
        if name in names:
            draft.set(names[name], truth(value), f"model_init_kwargs: {name}")
        elif value is not None:
            draft.decide(f"model_init_kwargs: {name}", given.line("model_init_kwargs"), f"{value!r} has no counterpart")


def _evaluation(given: Given, draft: Draft) -> None:
    if evaluates(given) and not {"data.eval", "data.eval_fraction"} & draft.settings.keys():
        for key in ("eval_strategy", "evaluation_strategy", "eval_on_start"):
            given.take(key)
        draft.decide(
            "eval_strategy",
            given.line("eval_strategy"),
            "the file holds nothing out; give data.eval_fraction and trainer.eval_strategy",
        )


def _single(given: Given, draft: Draft, dialect: Dialect, key: str) -> None:
    answer = dialect.answer(key)
    value = given.take(key)
    if answer is None:
        near = did_you_mean(key, list(dialect.table))
        hint = "" if near.startswith("; known") else near
        draft.decide(key, given.line(key), f"not a key of {dialect.title} that is known here{hint}")
    elif value is None and not (answer.null and key in given.nodes):
        draft.leave(key, "null there, so nothing was asked for")
    elif answer.to and not answer.grouped and not _asks_for_nothing(answer, value):
        _rename(given, draft, key, answer, value)
    elif answer.trains and not _asks_for_nothing(answer, value):
        draft.decide(key, given.line(key), f"{_shown(key, value)}: {answer.says}")
    else:
        draft.leave(key, answer.says or "nothing was asked for")


def _asks_for_nothing(answer: Answer, value: Any) -> bool:
    alike = (h for h in answer.harmless if type(value) is type(h) or (_number(value) and _number(h)))
    return any(value == harmless for harmless in alike)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rename(given: Given, draft: Draft, key: str, answer: Answer, value: Any) -> None:
    value = plain(given.nodes[key]) if key.endswith("strategy") else value  # 'no' is a choice there
    try:
        ours = value if answer.value is None else answer.value(value)
    except ValueError as error:
        draft.decide(key, given.line(key), f"{_shown(key, value)}: {error}")
        return
    if answer.to in draft.settings:
        draft.leave(key, f"{answer.to} is set by {draft.settings[answer.to].source}")
        return
    note = answer.says if ours != value or answer.null else ""
    draft.set(answer.to, ours, key, note)


def _shown(key: str, value: Any) -> str:
    if SECRET & set(re.split(r"\W|_", key.lower())) and isinstance(value, str):
        return "set"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _account(given: Given, draft: Draft, text: str) -> None:
    """Name what was read together with other keys and has left no trace of its own."""
    for key in given.nodes:
        if re.search(rf"\b{re.escape(key)}\b", text) is None:
            draft.leave(key, "read together with other keys, as above")


def _fill(draft: Draft, reading: _Reading) -> None:
    """Write out what the project takes where the file is silent, and what a recipe cannot do without."""
    if draft.settings.get("trainer.fp16") and draft.settings["trainer.fp16"].value:
        draft.settings.setdefault("trainer.bf16", type(draft.settings["trainer.fp16"])(value=False, source="fp16"))
    for key, (value, whose) in reading.defaults.items():
        taken = key in draft.settings or (key == "trainer.save_steps" and "trainer.save_strategy" in draft.settings)
        if not taken:
            draft.set(key, value, f"{whose}'s default")
    for key, value in PLACEHOLDERS.items():
        if key not in draft.settings:
            draft.set(key, value, "")
            draft.decide(key, None, "not in the file; give yours")
    order = [*PLACEHOLDERS, *(key for key in draft.settings if key not in PLACEHOLDERS)]
    draft.settings = {key: draft.settings[key] for key in order}


def _check(given: Given, draft: Draft, head: list[str]) -> None:
    """Load what was made; a setting that our loader refuses becomes a decision, until it loads."""
    for _ in range(len(draft.settings)):
        try:
            build_recipe(_tree(draft.render(head)))
            return
        except RecipeError as error:
            dropped = draft.drop(error.key)
            if dropped is None or error.key in PLACEHOLDERS:
                raise RecipeError(
                    f"cannot be brought over: {error.key}: {error.message}", origin=Origin(given.file or None)
                ) from error
            source = dropped.source.partition(":")[0]
            draft.decide(
                source or error.key, given.line(source), f"{_shown(error.key, dropped.value)}: {error.message}"
            )


def _tree(text: str) -> RecipeTree:
    root = read_yaml(text, lambda line: Origin("converted", line))
    assert root is not None
    return RecipeTree(spelled_out(root))
